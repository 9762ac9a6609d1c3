"""What an SAE over several layers costs its model, with all layers that it predicts replaced."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from mi_crow.language_model.capture_pass import run_to
from mi_crow.language_model.placement.batch_size import BatchSize
from mi_crow.mechanistic.sae.cross_layer.other_model import OtherModel
from mi_crow.mechanistic.sae.cross_layer.record import ROLES
from mi_crow.mechanistic.sae.cross_layer.sae import CrossLayerSae
from mi_crow.mechanistic.sae.cross_layer.shared import SharedCrosscoder
from mi_crow.mechanistic.sae.cross_layer.two_models import TwoModelCrosscoder
from mi_crow.mechanistic.sae.evaluation.measures import loss_figures
from mi_crow.mechanistic.sae.evaluation.model_loss import (
    Batch,
    ModelLoss,
    TokenDocument,
    losses_under,
)
from mi_crow.mechanistic.sae.outputs import SparseLatents
from mi_crow.mechanistic.sae.substitute import replaceable, substitute
from mi_crow.progress import Progress
from mi_crow.share import WHOLE, Share

if TYPE_CHECKING:
    from mi_crow.language_model import HookPoint
    from mi_crow.language_model.language_model import LanguageModel


def layers_loss(
    lm: "LanguageModel",
    sae: CrossLayerSae,
    means: Tensor,
    documents: Sequence[TokenDocument],
    progress: Progress,
    size: BatchSize,
    share: Share = WHOLE,
) -> dict[str, Any]:
    """Cross-entropy and KL with every layer that the SAE predicts replaced at once by its
    reconstruction, zeros and its mean (`means` [n_outputs]), on tokens that are no outliers.

    Latents of single layers are computed from what the changed model reads, layer after layer, as
    in a replacement model; those of all layers, and of two models, from the plain model's
    activations. Of two models the figures are those of `lm`, and `models` has those of both.
    """
    if not isinstance(sae, TwoModelCrosscoder):
        return loss_figures(_loss(lm, sae, means, documents, progress, size, share, None))
    own, other = sae.role_of(lm.model_id, lm.revision), OtherModel(sae, lm)
    found: dict[str, dict[str, Any]] = {}
    for role in ROLES:
        here = lm if role == own else other.lm
        beside = other if role == own else OtherModel(sae, here, loaded=lm)
        losses = _loss(here, sae, means, documents, progress, size, share, beside)
        found[role] = loss_figures(losses)
    return {**found[own], "models": [{"model": role, **found[role]} for role in ROLES]}


def _loss(
    lm: "LanguageModel",
    sae: CrossLayerSae,
    means: Tensor,
    documents: Sequence[TokenDocument],
    progress: Progress,
    size: BatchSize,
    share: Share,
    other: OtherModel | None,
) -> ModelLoss:
    layers = _Layers(lm, sae, means, other)
    return losses_under(lm, layers.ways, documents, progress, size, share)


class _Layers:
    """The layers of an SAE in its model."""

    def __init__(
        self, lm: "LanguageModel", sae: CrossLayerSae, means: Tensor, other: OtherModel | None
    ) -> None:
        self._lm, self._sae, self._other = lm, sae, other
        resolve = lm.layers.resolve
        numbers: Sequence[int] = sae.layer_numbers
        reads: Sequence[str] = sae.layers
        writes: Sequence[str] = sae.target_layers
        if isinstance(sae, TwoModelCrosscoder):
            own = sae.points_of(sae.role_of(lm.model_id, lm.revision))
            numbers, reads, writes = [*own], [*own.values()], [*own.values()]
        self._reads = {number: resolve(name) for number, name in zip(numbers, reads, strict=True)}
        self._writes = {number: resolve(name) for number, name in zip(numbers, writes, strict=True)}
        parts = means.to(lm.device).split(list(sae.output_widths))
        self._means = dict(zip(sae.layer_numbers, parts, strict=True))

    @torch.inference_mode()
    def ways(self, batch: Batch) -> "list[AbstractContextManager[None]]":
        """Reconstructed, zeroed, replaced by the mean, on the same tokens of the batch."""
        points = [*dict.fromkeys(self._reads.values())]
        seen = run_to(self._lm, points, batch.input_ids, batch.mask)
        inputs = [seen[point] for point in self._reads.values()]
        if self._other is not None:
            inputs = self._other.beside(inputs, batch.input_ids, batch.mask)
        limit = self._sae.metadata.outlier_norm
        every = [replaceable(x, batch.kept, limit) for x in inputs]
        where = torch.stack(every).all(dim=0)[..., None]
        zeros = {number: torch.zeros_like(mean) for number, mean in self._means.items()}
        if isinstance(self._sae, SharedCrosscoder):
            x = torch.cat([one.float() for one in inputs], dim=-1)
            parts = self._sae(x).reconstruction.split(list(self._sae.output_widths), dim=-1)
            rebuilt = dict(zip(self._sae.layer_numbers, parts, strict=True))
            first = self._replaced(where, rebuilt)
        else:
            first = self._live(where)
        return [first, self._replaced(where, zeros), self._replaced(where, self._means)]

    @contextmanager
    def _replaced(self, where: Tensor, values: Mapping[int, Tensor]) -> Iterator[None]:
        with ExitStack() as stack:
            for number, point in self._writes.items():
                stack.enter_context(self._changing(point, where, lambda _, v=values[number]: v))
            yield

    def _changing(
        self, point: "HookPoint", where: Tensor, value: Callable[[Tensor], Tensor]
    ) -> AbstractContextManager[None]:
        def change(y: Tensor) -> Tensor:
            return torch.where(where, value(y).to(y.dtype), y)

        return substitute(self._lm, point, change)

    @contextmanager
    def _live(self, where: Tensor) -> Iterator[None]:
        """Each layer's latents from what the model reads there now, each layer's reconstruction
        from those so far."""
        latents: dict[int, SparseLatents] = {}
        inputs: dict[int, Tensor] = {}

        def read(number: int, x: Tensor) -> Tensor:
            inputs[number] = x.float()
            latents[number] = self._sae.encode_layers({number: inputs[number]})[number]
            return x

        def written(number: int, y: Tensor) -> Tensor:
            if self._reads[number] == self._writes[number]:
                read(number, y)
            return self._sae.rebuilt(number, latents, inputs)

        with ExitStack() as stack:
            for number, point in self._reads.items():
                if point != self._writes[number]:
                    stack.enter_context(substitute(self._lm, point, lambda x, n=number: read(n, x)))
            for number, point in self._writes.items():
                stack.enter_context(self._changing(point, where, lambda y, n=number: written(n, y)))
            yield
