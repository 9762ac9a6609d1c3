"""A corpus through the running model, or two, read as a captured run is, with nothing stored."""

from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from typing import TYPE_CHECKING

import pyarrow as pa
import torch
from torch import Tensor

from mi_crow.background import read_ahead
from mi_crow.datasets import Texts
from mi_crow.errors import UserError
from mi_crow.language_model.capture.live_layer import LiveLayer
from mi_crow.language_model.capture.live_pair import LivePair
from mi_crow.language_model.capture.plan import PartPlan
from mi_crow.language_model.config import LiveTexts, ModelSpec
from mi_crow.mechanistic.sae.base import SparseAutoencoder
from mi_crow.mechanistic.sae.cross_layer.record import BASE, TUNED
from mi_crow.mechanistic.sae.cross_layer.sae import CrossLayerSae
from mi_crow.mechanistic.sae.cross_layer.two_models import TwoModelCrosscoder
from mi_crow.mechanistic.sae.fitting import check_width
from mi_crow.progress import Progress, raise_if_stopped
from mi_crow.ranks import ALONE, Ranks
from mi_crow.store.runs.manifest import LayerSpec, RunManifest
from mi_crow.store.runs.parts import DTYPES, Part

if TYPE_CHECKING:
    from mi_crow.language_model.language_model import LanguageModel

_PLANS_AHEAD = 1
_SAMPLE_DOCUMENTS = 256


class LivePart(Part):
    """One part in memory: rows on the model's device, documents on the host."""

    def __init__(
        self, table: pa.Table, rows: Tensor, norms: Tensor, place: tuple[int, int] = (0, 0)
    ) -> None:
        """`table` follows DOCUMENT_SCHEMA; rows [n, d] in the order of its kept tokens, norms [n]
        fp32; `place`: shard and piece."""
        self.place: tuple[int, int] = place
        self._table, self._rows = table, rows
        self._norms = norms.cpu()

    def __len__(self) -> int:
        return len(self._rows)

    def take(self, index: slice | Tensor) -> Tensor:
        """Rows [m, d] on the model's device; a view for a slice."""
        return self._rows[index if isinstance(index, slice) else index.to(self._rows.device)]

    @property
    def norms(self) -> Tensor:
        return self._norms

    def columns(self, *names: str) -> pa.Table:
        return self._table.select(list(names))


class LiveRun:
    """Layers of a model, or of two, over texts: the parts that a capture would write, all layers
    side by side."""

    def __init__(self, live: LiveLayer, texts: Texts, progress: Progress, called: str = "") -> None:
        """`called` is what several layers are called together. Raises UserError for texts that
        nobody knows the end of."""
        self._progress, self._live = progress, live
        self.layer: LayerSpec = live.layer
        if len(live.read) > 1:
            self.layer = replace(live.layer, name=called, width=self.width)
        self._source = live.source(texts)
        self._total = self._source.total
        self.manifest: RunManifest = live.manifest(self._source, texts.fingerprint())

    @property
    def width(self) -> int:
        return sum(layer.width for layer in self._live.read)

    @property
    def n_tokens(self) -> int:
        """About how many tokens there will be, outliers included: as many as the limit says, else
        what a sample of the texts promises."""
        most, unit = self._total
        if unit == "token":
            return most
        _, kept, documents = self._source.sample(_SAMPLE_DOCUMENTS)
        return int(sum(kept) / max(len(kept), 1) * documents)

    def parts(self, ranks: Ranks = ALONE) -> Iterator[LivePart]:
        """The parts of this process in order, each made when it is asked for. Raises UserError for
        texts without a token, MiCrowError for an activation that is not finite, CancelledError."""
        plans = self._source.plans(self._source.todo(self.manifest, ranks.world), ranks)
        tokens = 0
        with closing(read_ahead(plans, _PLANS_AHEAD, "index-tokens")) as ready:
            for plan in ready:
                tokens += plan.tokens
                yield self._filled(plan)
        if not tokens and ranks.world == 1:
            raise self.no_tokens()

    def no_tokens(self) -> UserError:
        """What is wrong with texts without a token."""
        return UserError(
            f"dataset {self._live.config.dataset.source!r} gave no tokens",
            hint="its texts contain only special tokens",
        )

    def _filled(self, plan: PartPlan) -> LivePart:
        """Rows of all layers side by side; a token's norm is the largest over layers."""
        device = self._live.lm.device
        rows = torch.empty(plan.tokens, self.width, dtype=self._kind(), device=device)
        norms = torch.zeros(plan.tokens, device=device)
        parts = rows.split([layer.width for layer in self._live.read], dim=1)
        for batch, found in self._live.every(plan):
            raise_if_stopped(self._progress)
            places = torch.from_numpy(batch.part_rows).to(device)
            for part, layer in zip(parts, found, strict=True):
                part[places] = layer.values.to(part.dtype)
            norms[places] = torch.stack([layer.norms for layer in found]).amax(dim=0)
        return LivePart(plan.table, rows, norms, (plan.shard, plan.piece))

    def _kind(self) -> torch.dtype:
        """What holds the values of all layers."""
        kinds = {DTYPES[dtype] for dtype in self._live.dtypes}
        return kinds.pop() if len(kinds) == 1 else torch.float32


def open_live_run(
    lm: "LanguageModel", texts: LiveTexts, sae: SparseAutoencoder, sae_id: str, progress: Progress
) -> LiveRun:
    """Texts as the SAE reads them, through its model `lm`; of two models that is the tuned one.

    Raises UserError where SAE, texts and model do not fit, NotFoundError for an unknown layer.
    """
    from mi_crow.datasets import load_texts
    from mi_crow.language_model.chat import chat_renderer
    from mi_crow.language_model.token_ids import ids_decoder

    spec = texts.model or ModelSpec(lm.model_id)
    names = _names(sae, TUNED)
    config = texts.capture(spec, names)
    config = replace(config, bos=sae.metadata.bos(config.bos))
    for point, width in zip(names, _widths(sae)[-len(names) :], strict=True):
        _check_width(lm, point, sae_id, width)
    live = LiveLayer(lm, config, progress)
    if isinstance(sae, TwoModelCrosscoder):
        base, of_base = _base_model(lm, spec, sae, sae_id), _names(sae, BASE)
        for point, width in zip(of_base, _widths(sae), strict=False):
            _check_width(base, point, sae_id, width)
        live = LivePair(lm, config, progress, base, of_base)
    chat, ids = chat_renderer(lm.tokenizer), ids_decoder(lm.tokenizer)
    found = load_texts(texts.dataset, spec.offline, chat, ids)
    return LiveRun(live, found, progress, sae.metadata.hook_name)


def _names(sae: SparseAutoencoder, role: str) -> tuple[str, ...]:
    """The hook points that the SAE reads, in order; of two models those of one."""
    if isinstance(sae, TwoModelCrosscoder):
        return tuple(sae.points_of(role).values())
    return sae.layers if isinstance(sae, CrossLayerSae) else (sae.metadata.layer_signature,)


def _widths(sae: SparseAutoencoder) -> tuple[int, ...]:
    return sae.widths if isinstance(sae, CrossLayerSae) else (sae.n_inputs,)


def _check_width(lm: "LanguageModel", point: str, sae_id: str, width: int) -> None:
    where, hint = f"layer {point!r} of model {lm.model_id!r}", "give the model it was trained on"
    check_width(f"SAE {sae_id!r}", width, where, lm.layers.width(point), hint)


def _base_model(
    lm: "LanguageModel", spec: ModelSpec, sae: TwoModelCrosscoder, sae_id: str
) -> "LanguageModel":
    """The base model beside the tuned one, `lm`, loaded as that was."""
    from mi_crow.language_model.language_model import LanguageModel

    if sae.role_of(lm.model_id, lm.revision) == BASE:
        raise UserError(
            f"{lm.model_id!r} is the base model of SAE {sae_id!r}, which is read beside the tuned "
            "one",
            hint="leave out --model, or name the tuned model with it",
        )
    base = sae.models[BASE]
    named = replace(spec, model=base.name, revision=base.revision, gguf_file=None)
    return LanguageModel.from_spec(replace(named, device=str(lm.device)))
