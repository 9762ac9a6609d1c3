"""One step of a finetune: the squared error of a training, and the KL of the model's predictions
with and without the SAE in it."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from mi_crow.mechanistic.sae.base import SparseAutoencoder
from mi_crow.mechanistic.sae.evaluation.model_loss import (
    TokenDocument,
    log_probabilities,
    model_loss,
    padded,
)
from mi_crow.mechanistic.sae.finetune.documents import DocumentBatches
from mi_crow.mechanistic.sae.kernels.entries import decode_entries
from mi_crow.mechanistic.sae.substitute import Substitution, replaceable
from mi_crow.mechanistic.sae.train.loop import (
    add_firings,
    complete_step,
    no_firings,
    training_output,
)
from mi_crow.mechanistic.sae.train.state import TrainState
from mi_crow.mechanistic.sae.train.step_metrics import StepMetrics
from mi_crow.progress import Progress

# Elements of one pass's logits [documents, length, vocabulary]; five tensors of that size are held.
_HELD = 1 << 24


@dataclass(frozen=True)
class Pass:
    """Some documents of a batch and what the plain model makes of them."""

    input_ids: Tensor  # [documents, length]
    mask: Tensor
    kept: Tensor  # bool
    plain: Tensor  # [documents, length - 1, vocabulary] log probabilities
    tokens: Tensor  # [n, training_width] unscaled: what the SAE reads (and predicts) there


class KlFeed:
    """Whole documents of a run, run through the model with and without the SAE.

    Karvonen 2025, "Revisiting end-to-end sparse autoencoder training: A short finetune is all you
    need": the loss is (MSE + w KL(original || with the SAE)) / 2 beside the other losses, where
    w = MSE / KL of the same tokens, without gradient, so that both weigh the same and the penalty
    of a sparsity loss keeps its weight. The SAE stands in the model by its rule of inference; the
    squared error is that of a training, on the same tokens. The metrics have both as they are.
    """

    def __init__(
        self,
        substitution: Substitution,
        documents: DocumentBatches,
        heldout: Sequence[TokenDocument],
        progress: Progress,
    ) -> None:
        self._substitution, self._documents = substitution, documents
        self._heldout, self._progress = heldout, progress
        self._before = self._ce_added(substitution.sae)

    def batches(self, state: TrainState, first: int) -> Iterator[Sequence[TokenDocument]]:
        return self._documents.batches(first, state.plan.steps)

    def learn(
        self, state: TrainState, batch: Sequence[TokenDocument], metrics: StepMetrics
    ) -> None:
        """One optimizer step on whole documents, some at a time."""
        metrics.begin_step()
        firings = no_firings(state)
        predicted = sum(len(document.token_ids) - 1 for document in batch)
        vocabulary = self._substitution.lm.model.get_output_embeddings().weight.shape[0]
        ordered = sorted(batch, key=lambda document: len(document.token_ids))
        for piece in _pieces(ordered, max(1, _HELD // vocabulary)):
            one = self._plain(state, piece)
            if not len(one.tokens):
                continue
            share = len(one.tokens) / state.plan.batch_size
            output = training_output(state, one.tokens)
            mse = output.losses["reconstruction"]
            losses = {**output.losses, "reconstruction": mse / 2}
            (torch.stack(list(losses.values())).sum() * share).backward()
            kl = self._divergence(state, one)
            mean = kl / one.mask[:, 1:].sum()
            weight = mse.detach() / mean.detach().clamp_min(torch.finfo(mean.dtype).tiny) / 2
            (weight * mean * share).backward()
            add_firings(firings, output)
            metrics.add_output(output, share)
            metrics.add_loss("kl", kl.detach() / predicted)
        complete_step(state, firings, metrics)

    def figures(self, sae: SparseAutoencoder) -> dict[str, float]:
        after = self._ce_added(sae)
        self._progress.log(
            f"CE added on {len(self._heldout)} held-out documents: {self._before:.4f} before, "
            f"{after:.4f} after"
        )
        return {"ce_added": after, "ce_added_before": self._before}

    def _ce_added(self, sae: SparseAutoencoder) -> float:
        there = replace(self._substitution, sae=sae)
        loss = model_loss(there, None, self._heldout, self._progress)
        return loss.reconstructed - loss.original

    @torch.no_grad()
    def _plain(self, state: TrainState, documents: Sequence[TokenDocument]) -> Pass:
        """The model as it is, and the activations that the SAE reads in it."""
        lm, limit = self._substitution.lm, state.plan.outlier_norm
        input_ids, mask, kept = padded(documents, lm.device)
        found: list[Tensor] = []

        def keep(x: Tensor, y: Tensor) -> Tensor:
            where = replaceable(x, kept, limit)
            rows = [x[where], y[where]] if state.sae.transcodes else [x[where]]
            found.append(torch.cat(rows, dim=-1).float())
            return y

        with self._in_place(state).replaced(kept, keep):
            plain = log_probabilities(lm, input_ids, mask)
        return Pass(input_ids, mask, kept, plain, found[0])

    def _divergence(self, state: TrainState, one: Pass) -> Tensor:
        """KL(original || with the SAE), summed over the predicted tokens; differentiable."""
        limit = state.plan.outlier_norm

        def rebuilt(x: Tensor, y: Tensor) -> Tensor:
            where = replaceable(x, one.kept, limit)[..., None].expand_as(y)
            rows = _reconstructed(state, x[where[..., 0]])
            return y.masked_scatter(where, rows.to(y.dtype))

        with torch.enable_grad(), self._in_place(state).replaced(one.kept, rebuilt):
            changed = log_probabilities(self._substitution.lm, one.input_ids, one.mask)
        kl = (one.plain.exp() * (one.plain - changed)).sum(-1)
        return (kl * one.mask[:, 1:]).sum()

    def _in_place(self, state: TrainState) -> Substitution:
        """The SAE in training in the model, which replaces the tokens that the plan trains on."""
        state.sae.metadata = replace(state.sae.metadata, outlier_norm=state.plan.outlier_norm)
        return replace(self._substitution, sae=state.sae)


def _reconstructed(state: TrainState, x: Tensor) -> Tensor:
    """What the SAE in training makes of activations x [n, n_inputs], by its rule of inference:
    differentiable, in plain units."""
    sae = state.sae
    scaled = x.float() * state.scale
    values, entries = sae.encode_entries(scaled)
    rows = decode_entries(values, entries, sae.W_dec)
    return sae.completed(rows, scaled) / state.target_scale


def _pieces(
    documents: Sequence[TokenDocument], positions: int
) -> Iterator[Sequence[TokenDocument]]:
    """Documents in ascending length, as many at a time as come to so many positions with their
    padding, and at least one."""
    piece: list[TokenDocument] = []
    for document in documents:
        if piece and (len(piece) + 1) * len(document.token_ids) > positions:
            yield piece
            piece = []
        piece.append(document)
    if piece:
        yield piece
