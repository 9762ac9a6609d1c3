"""What an SAE costs its model: cross-entropy and KL with the layer's activations replaced."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from mi_crow.language_model.placement.batch_size import BatchSize
from mi_crow.mechanistic.sae.substitute import Substitution, Value, zeros
from mi_crow.progress import Progress, raise_if_stopped
from mi_crow.share import WHOLE, Share

if TYPE_CHECKING:
    from mi_crow.language_model.language_model import LanguageModel

_FIGURES = 5  # of each token
# Documents at once.
_DOCUMENTS = 8
_CUDA_DOCUMENTS = 64
_LESS_MEMORY = "use another --device, or capture with a lower --context-length"


@dataclass(frozen=True)
class TokenDocument:
    """One captured document: its token ids, and the positions that are not special."""

    token_ids: list[int]
    kept: list[int]


class Batch(NamedTuple):
    """Documents, padded on the right."""

    input_ids: Tensor  # [batch, length]
    mask: Tensor  # [batch, length]: what is no padding
    kept: Tensor  # [batch, length] bool: what is neither padding nor special


@dataclass(frozen=True)
class ModelLoss:
    """Mean loss in nats per predicted token of the documents, without padding."""

    original: float
    reconstructed: float
    zero: float
    mean: float
    kl: float  # KL(original || reconstructed)
    tokens: int

    @property
    def loss_recovered(self) -> float | None:
        """(zero - reconstructed) / (zero - original): 1 is lossless, 0 no better than zeros. None
        where zeroing the layer costs nothing, so that there is nothing to recover."""
        return self._recovered(self.zero)

    @property
    def loss_recovered_mean(self) -> float | None:
        """The same with mean activations in place of zeros."""
        return self._recovered(self.mean)

    def _recovered(self, ablated: float) -> float | None:
        cost = ablated - self.original
        return (ablated - self.reconstructed) / cost if cost > 0 else None


@torch.inference_mode()
def model_loss(
    substitution: Substitution,
    mean: Tensor | None,
    documents: Sequence[TokenDocument],
    progress: Progress,
    size: BatchSize | None = None,
    share: Share = WHOLE,
) -> ModelLoss:
    """Runs the documents four times in batches: unchanged, and with the layer reconstructed, zeroed
    and replaced by its `mean` [n_outputs]; without a mean the last two are left out, as NaN. `size`
    is halved when memory runs out."""
    values: list[Value] = [substitution.reconstruction]
    if mean is not None:
        values += [zeros, lambda x, y: mean.to(y.device).expand_as(y)]

    def ways(batch: Batch) -> list[AbstractContextManager[None]]:
        return [substitution.replaced(batch.kept, value) for value in values]

    return losses_under(substitution.lm, ways, documents, progress, size, share)


@torch.inference_mode()
def losses_under(
    lm: "LanguageModel",
    ways: Callable[[Batch], Sequence[AbstractContextManager[None]]],
    documents: Sequence[TokenDocument],
    progress: Progress,
    size: BatchSize | None = None,
    share: Share = WHOLE,
) -> ModelLoss:
    """The same under any three changes of the model, for each batch those of `ways`: activations
    reconstructed, zeroed, and replaced by their mean; what there are fewer of is NaN.
    Several processes share the batches."""
    size = size or loss_batches(None, lm.device, progress)
    rows: dict[int, np.ndarray] = {}
    done = 0
    for number, batch in share.own(_batches(documents, size.first, lm.device)):
        raise_if_stopped(progress, resumable=False)
        run = partial(_figures, lm, ways, batch)
        rows[number] = np.sum(list(size.pieces(len(batch.mask), run)), axis=0)
        done += len(batch.mask) * share.ranks.world  # the others do as much
        progress.update(min(done, len(documents)), len(documents), "document")
    tokens, *sums = share.sum_in_order(rows, _FIGURES + 1).tolist()
    original, rebuilt, kl, zero, average = (one / max(tokens, 1) for one in sums)
    return ModelLoss(original, rebuilt, zero, average, kl, int(tokens))


def loss_batches(asked: int | None, device: torch.device, progress: Progress) -> BatchSize:
    """How many documents the loss is measured on at once: the predictions of all their tokens, as
    wide as the vocabulary, are in memory together."""
    suits = _CUDA_DOCUMENTS if device.type == "cuda" else _DOCUMENTS
    return BatchSize(asked or suits, progress.log, hint=_LESS_MEMORY)


def _figures(
    lm: "LanguageModel",
    ways: Callable[[Batch], Sequence[AbstractContextManager[None]]],
    batch: Batch,
    rows: slice,
) -> np.ndarray:
    """Of some rows of a batch the number of predicted tokens, and the losses summed over them:
    NaN for each way that there is not."""
    batch = Batch(*(tensor[rows] for tensor in batch))
    targets, real = batch.input_ids[:, 1:], batch.mask[:, 1:].bool()
    plain = log_probabilities(lm, batch.input_ids, batch.mask)
    figures = [float(real.sum()), _loss(plain, targets, real)]
    for place, way in enumerate(ways(batch)):
        with way:
            changed = log_probabilities(lm, batch.input_ids, batch.mask)
        figures.append(_loss(changed, targets, real))
        if not place:
            figures.append(_divergence(plain, changed, real))
    return np.array(figures + [np.nan] * (_FIGURES + 1 - len(figures)))


def _batches(
    documents: Sequence[TokenDocument], size: int, device: torch.device
) -> Iterator[Batch]:
    """Documents of similar length share a batch."""
    ordered = sorted(documents, key=lambda document: len(document.token_ids))
    for start in range(0, len(ordered), size):
        yield padded(ordered[start : start + size], device)


def padded(documents: Sequence[TokenDocument], device: torch.device) -> Batch:
    """Documents side by side."""
    length = max(len(document.token_ids) for document in documents)
    input_ids = torch.zeros(len(documents), length, dtype=torch.int64)
    mask = torch.zeros(len(documents), length, dtype=torch.int64)
    kept = torch.zeros(len(documents), length, dtype=torch.bool)
    for row, document in enumerate(documents):
        input_ids[row, : len(document.token_ids)] = torch.tensor(document.token_ids)
        mask[row, : len(document.token_ids)] = 1
        kept[row, document.kept] = True
    return Batch(input_ids.to(device), mask.to(device), kept.to(device))


def log_probabilities(lm: "LanguageModel", input_ids: Tensor, mask: Tensor) -> Tensor:
    """[batch, length - 1, vocabulary]: the prediction of the next token at each position."""
    output: Any = lm.model(input_ids=input_ids, attention_mask=mask, use_cache=False)
    return functional.log_softmax(output.logits[:, :-1].float(), dim=-1)


def _loss(log_p: Tensor, targets: Tensor, real: Tensor) -> float:
    chosen = log_p.gather(-1, targets[..., None])[..., 0]
    return float(-(chosen * real).sum(dtype=torch.float64))


def _divergence(plain: Tensor, rebuilt: Tensor, real: Tensor) -> float:
    """KL summed over the real positions, document by document to save memory."""
    total = 0.0
    for p, q, keep in zip(plain, rebuilt, real, strict=True):
        kl = (p.exp() * (p - q)).sum(-1)
        total += float((kl * keep).sum(dtype=torch.float64))
    return total
