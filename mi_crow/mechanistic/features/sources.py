"""What is indexed: the SAE, the runs to read it over, and whether they belong together."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from mi_crow.errors import UserError
from mi_crow.mechanistic.features.config import IndexConfig
from mi_crow.mechanistic.sae.base import SparseAutoencoder
from mi_crow.progress import Progress
from mi_crow.store.reader import RunReader
from mi_crow.store.workspace import Workspace

if TYPE_CHECKING:
    from mi_crow.language_model.language_model import LanguageModel


@dataclass(frozen=True)
class Sources:
    """Runs of one layer of one model, in the order they are read."""

    readers: tuple[RunReader, ...]

    @property
    def run_ids(self) -> list[str]:
        return [reader.manifest.run_id for reader in self.readers]

    @property
    def model_id(self) -> str:
        return self.readers[0].manifest.model_id

    @property
    def layer(self) -> str:
        return self.readers[0].layer.name

    @property
    def n_tokens(self) -> int:
        """Rows stored, outliers included."""
        return sum(reader.n_tokens for reader in self.readers)

    def as_json(self) -> list[dict[str, object]]:
        """For `meta.sources`: every run with its parts."""
        return [
            {
                "run_id": reader.manifest.run_id,
                "fingerprint": reader.manifest.fingerprint,
                "parts": [part.stem for part in reader.manifest.parts],
            }
            for reader in self.readers
        ]


def find_sources(
    workspace: Workspace, config: IndexConfig, sae: SparseAutoencoder, progress: Progress
) -> Sources:
    """The runs that `config` asks for, checked against the SAE and each other.

    Raises UserError when anything does not fit; writes nothing.
    """
    readers = [
        _reader(workspace, run_id, sae, config.sae_id)
        for run_id in _run_ids(workspace, config, sae)
    ]
    first = readers[0].manifest
    for reader in readers[1:]:
        if reader.manifest.tokenizer_hash != first.tokenizer_hash:
            raise UserError(
                f"run {reader.manifest.run_id!r} has another tokenizer than run {first.run_id!r}",
                hint="index runs of one model",
            )
    if sae.metadata.revision not in (None, first.revision):
        progress.log(f"the run is of revision {first.revision}, the SAE of {sae.metadata.revision}")
    return Sources(tuple(readers))


def _run_ids(workspace: Workspace, config: IndexConfig, sae: SparseAutoencoder) -> list[str]:
    run_id = config.run_id or sae.metadata.run_id
    if run_id is None:
        raise UserError(
            f"SAE {config.sae_id!r} does not say which run it belongs to",
            hint="name one with --run",
        )
    if not config.append:
        return [run_id]
    from mi_crow.mechanistic.features.queries import FeatureStore

    before = [
        source["run_id"] for source in FeatureStore.open(workspace, config.sae_id).meta().sources
    ]
    if run_id in before:
        raise UserError(
            f"run {run_id!r} is in the index of {config.sae_id!r} already",
            hint="name another with --run, or leave out --append to build it again",
        )
    return [*before, run_id]


def _reader(workspace: Workspace, run_id: str, sae: SparseAutoencoder, sae_id: str) -> RunReader:
    run_dir: Path = workspace.run_dir(run_id)
    metadata = sae.metadata
    reader = RunReader(run_dir, metadata.layer_signature)
    manifest = reader.manifest
    if manifest.status != "complete":
        raise UserError(
            f"run {run_id!r} is not complete",
            hint="wait for its capture or resume it: mi-crow jobs",
        )
    if reader.width != sae.n_inputs:
        raise UserError(
            f"SAE {sae_id!r} takes {sae.n_inputs} inputs, layer {reader.layer.name!r} of run "
            f"{run_id!r} has {reader.width}",
            hint="index it over a run of the model it was trained on",
        )
    ours = metadata.tokenizer_hash is not None
    if ours and metadata.tokenizer_hash != manifest.tokenizer_hash:
        raise UserError(
            f"run {run_id!r} is of model {manifest.model_id!r}, SAE {sae_id!r} of "
            f"{metadata.model_name!r}",
            hint="index it over a run of the model it was trained on",
        )
    return reader


def model_of(sources: Sources, lm: "LanguageModel | None", device: str) -> "LanguageModel":
    """The model of the runs: `lm` when it is that one, else loaded. Raises UserError."""
    manifest = sources.readers[0].manifest
    if lm is None:
        from mi_crow.language_model.config import ModelSpec
        from mi_crow.language_model.language_model import LanguageModel

        spec = ModelSpec(manifest.model_id, revision=manifest.revision, device=device)
        lm = LanguageModel.from_spec(spec)
    if lm.tokenizer_hash != manifest.tokenizer_hash:
        raise UserError(
            f"model {lm.model_id!r} has another tokenizer than the one run "
            f"{manifest.run_id!r} was captured with",
            hint="give the model that the run was captured with, at the same revision",
        )
    return lm
