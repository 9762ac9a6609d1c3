"""Texts for an evaluation that has no run: captured for as long as it lasts.

It reads samples of all tokens, and the documents of both splits, several times. On the disk they
cost no memory, however many there are, and every figure is that of a run of the same texts.
"""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from mi_crow.errors import UserError
from mi_crow.language_model.config import LiveTexts, ModelSpec
from mi_crow.mechanistic.sae.base import SparseAutoencoder
from mi_crow.mechanistic.sae.cross_layer.other_model import OtherModel
from mi_crow.mechanistic.sae.cross_layer.record import BASE, TUNED
from mi_crow.mechanistic.sae.cross_layer.sae import CrossLayerSae
from mi_crow.mechanistic.sae.cross_layer.two_models import TwoModelCrosscoder
from mi_crow.mechanistic.sae.evaluation.config import EvaluateConfig
from mi_crow.mechanistic.sae.evaluation.documents import document_places
from mi_crow.mechanistic.sae.fitting import check_width
from mi_crow.mechanistic.sae.targets import target_layer
from mi_crow.progress import Progress
from mi_crow.share import Share
from mi_crow.store.atomic import temporary_name
from mi_crow.store.leftovers import beside, remove
from mi_crow.store.runs.manifest import RunManifest
from mi_crow.store.runs.reader import RunReader
from mi_crow.store.workspace import Workspace

if TYPE_CHECKING:
    from mi_crow.language_model.language_model import LanguageModel

_RUN, _TUNED_RUN = "texts", "tuned-texts"
_ITS_MODEL = "give the model it was trained on"
_LESS_DISK = "use --limit or --token-limit"
_DTYPES = {torch.bfloat16: "bf16", torch.float16: "fp16"}


@dataclass(frozen=True)
class CapturedTexts:
    """Where the texts are, what evaluates an SAE over them, and the model that read them."""

    workspace: Workspace
    config: EvaluateConfig
    lm: "LanguageModel"


@contextmanager
def captured_texts(
    config: EvaluateConfig,
    texts: LiveTexts,
    sae: SparseAutoencoder,
    folder: Path,
    progress: Progress,
    lm: "LanguageModel | None",
    share: Share,
) -> Iterator[CapturedTexts]:
    """`texts` as the SAE reads them, in its model (`lm` if given, else loaded), in a folder within
    `folder` that is gone after the block. Several processes share the documents.

    Raises UserError where SAE, texts and model do not fit, or no text is held out; NotFoundError
    for an unknown layer; CancelledError.
    """
    lm = lm or _load(config, texts, sae, progress)
    if sae.metadata.tokenizer_hash not in (None, lm.tokenizer_hash):
        raise UserError(
            f"SAE {config.sae_id!r} is of model {sae.metadata.model_name!r}, not of "
            f"{lm.model_id!r}",
            hint=_ITS_MODEL,
        )
    if isinstance(sae, TwoModelCrosscoder) and sae.role_of(lm.model_id, lm.revision) == BASE:
        raise UserError(
            f"{lm.model_id!r} is the base model of SAE {config.sae_id!r}, which is read beside the "
            "tuned one",
            hint="leave out --model, or name the tuned model with it",
        )
    with _scratch(folder, share) as root:
        capture = _Capturing(Workspace(root), config.sae_id, texts, sae, progress, share)
        tuned = None
        if isinstance(sae, TwoModelCrosscoder):
            tuned = _TUNED_RUN
            capture.run(tuned, lm, _points(sae, TUNED))
            capture.run(_RUN, OtherModel(sae, lm).lm, _points(sae, BASE))
        else:
            capture.run(_RUN, lm, _points(sae))
        over_runs = replace(config, live=None, run_id=_RUN, tuned_run=tuned)
        yield CapturedTexts(capture.place, over_runs, lm)


@contextmanager
def _scratch(folder: Path, share: Share) -> Iterator[Path]:
    if not share.alone:  # has one already, for all processes
        yield share.folder
        return
    remove(beside(folder / "evaluation"))
    own = temporary_name(folder / "evaluation")
    own.mkdir()
    try:
        yield own
    finally:
        shutil.rmtree(own, ignore_errors=True)


def _load(
    config: EvaluateConfig, texts: LiveTexts, sae: SparseAutoencoder, progress: Progress
) -> "LanguageModel":
    """The model that reads the texts: the one named, else the SAE's; of two models the tuned."""
    from mi_crow.language_model.language_model import LanguageModel
    from mi_crow.language_model.placement.expected import memory_sentence

    spec = texts.model
    if spec is None and not sae.metadata.model_name:
        raise UserError(
            f"SAE {config.sae_id!r} does not say which model it belongs to",
            hint="name one with --model",
        )
    spec = spec or ModelSpec(sae.metadata.model_name, revision=sae.metadata.revision)
    spec = replace(spec, device=config.device)
    if expected := memory_sentence(spec):
        progress.log(expected)
    return LanguageModel.from_spec(spec)


def _points(sae: SparseAutoencoder, role: str = "") -> dict[str, int]:
    """The hook points that the SAE reads and predicts, with their widths; of two models those of
    one."""
    if isinstance(sae, TwoModelCrosscoder):
        widths = dict(zip(sae.layer_numbers, sae.widths, strict=True))
        return {name: widths[number] for number, name in sae.points_of(role).items()}
    if isinstance(sae, CrossLayerSae):
        read = zip(sae.layers, sae.widths, strict=True)
        return dict(read) | dict(zip(sae.target_layers, sae.output_widths, strict=True))
    found = {sae.metadata.layer_signature: sae.n_inputs}
    target = target_layer(sae) if sae.transcodes else None
    return found if target is None else found | {target: sae.n_outputs}


@dataclass(frozen=True)
class _Capturing:
    """The texts as runs of a workspace of their own."""

    place: Workspace
    sae_id: str
    texts: LiveTexts
    sae: SparseAutoencoder
    progress: Progress
    share: Share

    def run(self, run_id: str, lm: "LanguageModel", points: dict[str, int]) -> None:
        """Captures the points, which are so wide, as the model gives them."""
        from mi_crow.datasets import load_texts
        from mi_crow.language_model.capture.run import Capture
        from mi_crow.language_model.chat import chat_renderer
        from mi_crow.language_model.token_ids import ids_decoder

        for point, width in points.items():
            where, hint = f"layer {point!r} of model {lm.model_id!r}", _ITS_MODEL
            found = lm.layers.width(lm.layers.resolve(point))
            check_width(f"SAE {self.sae_id!r}", width, where, found, hint)
        dataset, spec = self.texts.dataset, self.texts.model or ModelSpec(lm.model_id)
        config = replace(
            self.texts.capture(spec, tuple(points)),
            name=run_id,
            bos=self.sae.metadata.bos(self.texts.bos),
            dtype=_DTYPES.get(lm.dtype, "fp32"),
        )
        chat, ids = chat_renderer(lm.tokenizer), ids_decoder(lm.tokenizer)
        texts = load_texts(dataset, spec.offline, chat, ids)
        capture = Capture(lm, texts, config, less=_LESS_DISK)
        capture.run(self.place, self.progress, None, self.share.ranks)
        run_dir = self.place.run_dir(run_id)
        reader = RunReader(run_dir, RunManifest.load(run_dir).layers[0].name)
        if not document_places(reader, heldout=True):
            raise UserError(
                f"dataset {dataset.source!r} contains no held-out documents",
                hint="a tenth of the documents is held out: name more of them",
            )
