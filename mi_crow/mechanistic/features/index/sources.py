"""What is indexed: runs and texts for an SAE, checked to match it, the model and each other."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from mi_crow.errors import NotFoundError, UserError
from mi_crow.language_model.config import ModelSpec
from mi_crow.mechanistic.features.config import IndexConfig
from mi_crow.mechanistic.features.index.live_run import LiveRun, open_live_run
from mi_crow.mechanistic.features.index.origins import Origin, check_unchanged, known_origins
from mi_crow.mechanistic.sae.base import SparseAutoencoder
from mi_crow.mechanistic.sae.centring import set_centring
from mi_crow.mechanistic.sae.cross_layer.reading import layers_read
from mi_crow.mechanistic.sae.cross_layer.record import TUNED
from mi_crow.mechanistic.sae.cross_layer.sae import CrossLayerSae
from mi_crow.mechanistic.sae.cross_layer.two_models import TwoModelCrosscoder
from mi_crow.mechanistic.sae.fitting import (
    check_captured_with,
    check_run,
    check_width,
    report_differences,
    run_of,
)
from mi_crow.mechanistic.sae.stored_layers import stored_layer
from mi_crow.mechanistic.sae.targets import check_same_points
from mi_crow.progress import Progress
from mi_crow.store.runs.joined import JoinedReader
from mi_crow.store.runs.manifest import RunManifest
from mi_crow.store.runs.reader import RunReader
from mi_crow.store.workspace import Workspace

if TYPE_CHECKING:
    from mi_crow.language_model.language_model import LanguageModel

_ITS_MODEL = "give the model it was trained on"


@dataclass(frozen=True)
class Sources:
    """Runs and texts of one layer of one model, in the order they are read."""

    readers: tuple[RunReader | JoinedReader | LiveRun, ...]
    origins: tuple[Origin, ...]  # of each, for `meta.sources`
    lm: "LanguageModel"

    @property
    def run_ids(self) -> list[str]:
        """Of stored runs only."""
        return [origin.run_id for origin in self.origins if origin.run_id is not None]

    @property
    def model_id(self) -> str:
        return self.readers[0].manifest.model_id

    @property
    def layer(self) -> str:
        return self.readers[0].layer.name

    @property
    def n_tokens(self) -> int:
        """Rows to read, outliers included; an estimate for texts."""
        return sum(reader.n_tokens for reader in self.readers)

    def check_any(self, rows: int) -> None:
        """Raises UserError when texts gave no rows at all."""
        live = next((one for one in self.readers if isinstance(one, LiveRun)), None)
        if rows == 0 and live is not None:
            raise live.no_tokens()

    def as_json(self) -> list[dict[str, object]]:
        """For `meta.sources`: what is needed to read each one again."""
        return [origin.as_json() for origin in self.origins]


def find_sources(
    workspace: Workspace,
    config: IndexConfig,
    sae: SparseAutoencoder,
    progress: Progress,
    lm: "LanguageModel | None" = None,
) -> Sources:
    """What `config` asks for, checked against the SAE and each other, and its model: `lm` if given,
    else loaded.

    Raises UserError when anything does not match; writes nothing.
    """
    wanted = _wanted(workspace, config, sae)
    stored = {
        origin.run_id: _reader(workspace, origin, sae, config.sae_id)
        for origin in wanted
        if origin.run_id is not None
    }
    lm = lm or _load(config, wanted, list(stored.values()), sae, progress)
    _check_model(lm, list(stored.values()), sae, config.sae_id)
    if centring := set_centring(lm, sae):
        progress.log(centring)
    readers = [
        stored[origin.run_id]
        if origin.run_id is not None
        else _live(lm, origin, sae, config.sae_id, progress)
        for origin in wanted
    ]
    revision = readers[0].manifest.revision
    if sae.metadata.revision not in (None, revision):
        progress.log(f"the activations are of revision {revision}, the SAE of another")
    for run in stored.values():
        report_differences(sae.metadata, run.manifest, progress)
    origins = [origin.read(reader.manifest) for origin, reader in zip(wanted, readers, strict=True)]
    for number, origin in enumerate(origins):
        if origin in origins[:number]:
            raise UserError(
                f"{origin.name} is in the index of {config.sae_id!r} already",
                hint="leave out --append to build it again",
            )
    return Sources(tuple(readers), tuple(origins), lm)


def _wanted(workspace: Workspace, config: IndexConfig, sae: SparseAutoencoder) -> list[Origin]:
    """What is in the index already, if it is appended to, and what is new."""
    if config.live is not None:
        new = Origin(texts=config.live)
    else:
        hint = "name one with --run, or texts with --dataset"
        run_id = run_of(config.sae_id, config.run_id, sae.metadata.run_id, hint)
        tuned = sae.models[TUNED].run_id if isinstance(sae, TwoModelCrosscoder) else None
        new = Origin(run_id=run_id, tuned_run=config.tuned_run or tuned)
    before = known_origins(workspace, config.sae_id) if config.append else []
    if new.run_id is not None and new.run_id in [origin.run_id for origin in before]:
        raise UserError(
            f"run {new.run_id!r} is in the index of {config.sae_id!r} already",
            hint="name another with --run, or leave out --append to build it again",
        )
    return [*before, new]


def _reader(
    workspace: Workspace, origin: Origin, sae: SparseAutoencoder, sae_id: str
) -> RunReader | JoinedReader:
    run_id = origin.run_id or ""
    try:
        reader = _opened(workspace, origin, sae, sae_id)
    except NotFoundError as error:
        if not origin.indexed:
            raise
        raise UserError(
            f"the index of {sae_id!r} holds run {run_id!r}, which cannot be read again ({error})",
            hint="index without --append",
        ) from error
    manifest = reader.manifest
    manifest.require_complete()
    check_unchanged(origin, manifest)
    for one, width in _read_with_widths(reader, sae):
        layer = f"layer {one.layer.name!r} of run {run_id!r}"
        check_width(f"SAE {sae_id!r}", width, layer, one.width)
    check_run(sae_id, sae.metadata.model_name, sae.metadata.tokenizer_hash, manifest)
    return reader


def _opened(
    workspace: Workspace, origin: Origin, sae: SparseAutoencoder, sae_id: str
) -> RunReader | JoinedReader:
    run_id = origin.run_id or ""
    if isinstance(sae, CrossLayerSae):
        readers = layers_read(workspace, sae, sae_id, run_id, origin.tuned_run)
        return JoinedReader(readers, sae.metadata.hook_name)
    if origin.tuned_run is not None:
        raise UserError(f"SAE {sae_id!r} reads one model", hint="leave out --tuned-run")
    run_dir = workspace.run_dir(run_id)
    layer = stored_layer(RunManifest.load(run_dir), sae.metadata.layer_signature)
    return RunReader(run_dir, layer.name)


def _read_with_widths(
    reader: RunReader | JoinedReader, sae: SparseAutoencoder
) -> list[tuple[RunReader, int]]:
    """Each layer that is read, with the width that the SAE takes there."""
    if isinstance(reader, JoinedReader) and isinstance(sae, CrossLayerSae):
        return list(zip(reader.readers, sae.widths, strict=True))
    assert isinstance(reader, RunReader)
    return [(reader, sae.n_inputs)]


def _load(
    config: IndexConfig,
    wanted: Sequence[Origin],
    stored: Sequence[RunReader | JoinedReader],
    sae: SparseAutoencoder,
    progress: Progress,
) -> "LanguageModel":
    """The model that was named, else that of the runs, else that of texts indexed before, else
    the SAE's. What memory it needs is said before it is loaded."""
    from mi_crow.language_model.language_model import LanguageModel
    from mi_crow.language_model.placement.expected import memory_sentence

    named = [origin.texts.model for origin in reversed(wanted) if origin.texts is not None]
    spec = next((model for model in named if model is not None), None)
    if spec is None and stored:
        manifest = stored[0].manifest
        spec = ModelSpec(manifest.model_id, revision=manifest.revision)
    if spec is None:
        if not sae.metadata.model_name:
            raise UserError(
                f"SAE {config.sae_id!r} does not say which model it belongs to",
                hint="name one with --model",
            )
        spec = ModelSpec(sae.metadata.model_name, revision=sae.metadata.revision)
    spec = replace(spec, device=config.device)
    if expected := memory_sentence(spec):
        progress.log(expected)
    return LanguageModel.from_spec(spec)


def _check_model(
    lm: "LanguageModel",
    stored: Sequence[RunReader | JoinedReader],
    sae: SparseAutoencoder,
    sae_id: str,
) -> None:
    """One tokenizer and one hook point for all: `lm`, the runs and the SAE. Raises UserError."""
    for reader in stored:
        if reader.manifest.tokenizer_hash != stored[0].manifest.tokenizer_hash:
            raise UserError(
                f"run {reader.manifest.run_id!r} has another tokenizer than run "
                f"{stored[0].manifest.run_id!r}",
                hint="index runs of one model",
            )
    if stored:
        hint = "give the model that the run was captured with, at the same revision"
        check_captured_with(lm.model_id, lm.tokenizer_hash, stored[0].manifest, hint)
    if sae.metadata.tokenizer_hash not in (None, lm.tokenizer_hash):
        raise UserError(
            f"SAE {sae_id!r} is of model {sae.metadata.model_name!r}, not of {lm.model_id!r}",
            hint=_ITS_MODEL,
        )
    for reader in stored:
        if isinstance(reader, JoinedReader):
            layers = [one.layer for one in reader.readers]
            check_same_points(lm, sae, layers, sae_id)
        else:
            check_same_points(lm, sae, [reader.layer], sae_id)


def _live(
    lm: "LanguageModel", origin: Origin, sae: SparseAutoencoder, sae_id: str, progress: Progress
) -> LiveRun:
    assert origin.texts is not None
    run = open_live_run(lm, origin.texts, sae, sae_id, progress)
    check_unchanged(origin, run.manifest)
    return run
