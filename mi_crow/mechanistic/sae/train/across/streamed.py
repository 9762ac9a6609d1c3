"""Several layers of the running model, side by side: for SAEs over several layers without a run."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from mi_crow.errors import UserError
from mi_crow.language_model.capture.live_layer import LiveLayer
from mi_crow.language_model.capture.live_pair import LivePair
from mi_crow.language_model.capture.plan import PartPlan
from mi_crow.language_model.config import CaptureConfig
from mi_crow.mechanistic.sae.config import CLT, TrainConfig
from mi_crow.mechanistic.sae.cross_layer.tuned_model import tuned_spec
from mi_crow.mechanistic.sae.stored_layers import layers_together
from mi_crow.mechanistic.sae.train.across.tokens import LayersOfRun, check_same_widths
from mi_crow.mechanistic.sae.train.live import LiveSource, LiveTokens, length_of, model_and_texts
from mi_crow.progress import Progress
from mi_crow.ranks import ALONE, Ranks
from mi_crow.store.runs.manifest import LayerSpec

if TYPE_CHECKING:
    from mi_crow.language_model.language_model import LanguageModel

_READ, _WRITTEN = "mlp_in.", "mlp_out."


def streamed_layers(
    config: TrainConfig, stream: CaptureConfig, progress: Progress, ranks: Ranks = ALONE
) -> LayersOfRun:
    """The layers of `stream`, ascending by their blocks; of a cross-layer transcoder the outputs of
    the MLPs too, of two models those of both. Raises UserError or NotFoundError in one sentence."""
    if config.tuned_model is not None:
        return _of_two_models(config, stream, progress, ranks)
    lm, texts = model_and_texts(config, stream)
    transcodes = config.family == CLT
    names = (*stream.layers, *(_outputs(lm, stream.layers) if transcodes else ()))
    stream = replace(stream, layers=names, seed=config.training.seed)
    source = LiveLayers(LiveLayer(lm, stream, progress), texts, length_of(config), ranks)
    reads, writes = layers_together(source.manifest, config.layers, transcodes=transcodes)
    every = source.manifest.layers
    source.read_in_order(
        [every.index(layer) for layer in (*reads, *(writes if transcodes else ()))],
        len(writes) if transcodes else 0,
    )
    return LayersOfRun(source.manifest, reads, writes, source)


def _of_two_models(
    config: TrainConfig, stream: CaptureConfig, progress: Progress, ranks: Ranks
) -> LayersOfRun:
    """The same layers of the model of `stream` and of the tuned one, of the same tokens."""
    from mi_crow.language_model.language_model import LanguageModel

    base = LanguageModel.from_spec(replace(stream.model, device=config.device))
    named = replace(stream, model=tuned_spec(config), seed=config.training.seed)
    lm, texts = model_and_texts(config, named)
    live = LivePair(lm, named, progress, base, stream.layers)
    source = LiveLayers(live, texts, length_of(config), ranks)
    manifests = live.base.manifest(live.source(texts)), source.manifest
    reads = [layers_together(one, config.layers, transcodes=False)[0] for one in manifests]
    check_same_widths(manifests, reads)
    first = len(manifests[0].layers)
    source.read_in_order(
        [
            begin + manifest.layers.index(layer)
            for begin, manifest, own in zip((0, first), manifests, reads, strict=True)
            for layer in own
        ]
    )
    both = (*reads[0], *reads[1])
    return LayersOfRun(source.manifest, both, both, source, manifests[0])


def _outputs(lm: "LanguageModel", layers: Sequence[str]) -> tuple[str, ...]:
    """The outputs of the MLPs whose inputs are among `layers`."""
    points = (lm.layers.resolve(name).point for name in layers)
    return tuple(_WRITTEN + one.removeprefix(_READ) for one in points if one.startswith(_READ))


@dataclass(frozen=True)
class _Opened:
    """The first tokens, and what they say of each layer."""

    tokens: dict[str, LiveTokens]
    scales: tuple[float, ...]
    largest_norm: float  # the median of a token's largest norm over the layers read


class LiveLayers(LiveSource):
    """As `JoinedTokens`, of the running model: the first block decides the units of each layer."""

    _order: tuple[int, ...] = ()  # places in what the model gives; empty: as it gives them
    _n_written = 0  # of them the last, which are predicted and not read

    def read_in_order(self, places: Sequence[int], n_written: int = 0) -> None:
        """Rows hold the layers at these places in what the model gives; the last `n_written` are
        predicted and not read. To be said before any token is read."""
        self._order, self._n_written = tuple(places), n_written

    @property
    def _places(self) -> tuple[int, ...]:
        return self._order or tuple(range(len(self._live.read)))

    @property
    def _layers(self) -> tuple[LayerSpec, ...]:
        return tuple(self._live.read[place] for place in self._places)

    @property
    def _n_read(self) -> int:
        return len(self._layers) - self._n_written

    @property
    def widths(self) -> tuple[int, ...]:
        return tuple(layer.width for layer in self._layers)

    @property
    def width(self) -> int:
        return sum(layer.width for layer in self._live.read)

    @property
    def scales(self) -> tuple[float, ...]:
        """What each layer is multiplied by. Raises UserError for one whose median norm is 0."""
        return self._opened.scales

    def median_largest_norm(self) -> float:
        """As `JoinedTokens`, of the first block."""
        return self._opened.largest_norm

    def _row_bytes(self) -> int:
        return self.width * torch.float32.itemsize

    @cached_property
    def _opening(self) -> dict[str, LiveTokens]:
        return self._opened.tokens

    @cached_property
    def _opened(self) -> _Opened:
        found = {split: self._read(plan) for split, plan in self._opening_plans().items()}
        norms = torch.cat([of_layers for _, of_layers in found.values()])
        scales = tuple(
            _scale(layer, float(own.median()))
            for layer, own in zip(self._layers, norms.unbind(1), strict=True)
        )
        largest = float(norms[:, : self._n_read].amax(1).median())
        tokens = {split: self._scaled(*rows, scales) for split, rows in found.items()}
        return _Opened(tokens, scales, largest)

    def _captured(self, plan: PartPlan) -> LiveTokens:
        return self._scaled(*self._read(plan), self.scales)

    def _read(self, plan: PartPlan) -> tuple[Tensor, Tensor]:
        """Rows [n, sum of the widths] as the model gives them, and the norm at each layer."""
        device, places = self._live.lm.device, self._places
        x = [torch.empty(0, self.width, device=device)]
        norms = [torch.empty(0, len(places), device=device)]
        for _, found in self._live.every(plan):
            rows = [found[place] for place in places]
            x.append(torch.cat([one.values.float() for one in rows], dim=1))
            norms.append(torch.stack([one.norms.float() for one in rows], dim=1))
        # Cloned out of inference mode, since training saves its inputs for the backward pass.
        return torch.cat(x).clone(), torch.cat(norms).clone()

    def _scaled(self, x: Tensor, norms: Tensor, scales: Sequence[float]) -> LiveTokens:
        """The same in units of each layer; a token's norm is that of all that are read."""
        factors = torch.tensor(scales, device=x.device)
        for part, scale in zip(x.split(list(self.widths), dim=1), scales, strict=True):
            part *= scale
        read = (norms * factors)[:, : self._n_read]
        return LiveTokens(x, torch.linalg.vector_norm(read, dim=1))


def _scale(layer: LayerSpec, median: float) -> float:
    if not 0 < median < float("inf"):
        raise UserError(
            f"the activations of layer {layer.name!r} have a median norm of {median:g}",
            hint="leave the layer out",
        )
    return float(layer.width**0.5 / median)
