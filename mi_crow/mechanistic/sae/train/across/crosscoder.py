"""Crosscoders in training: one set of latents that reads and reconstructs several layers.

Lindsey et al. 2024, "Sparse crosscoders for cross-layer features and model diffing": the loss is
the squared error summed over layers, and what sparsity weighs of a latent is its activation times
the sum over layers of the norms of its decoder rows. The layers are side by side, each in units
of its own (`JoinedTokens`), and the rows of all layers together have length one, so that this sum
is 1 for a latent of one layer and the square root of their number for one of all layers alike.
"""

from collections.abc import Sequence
from typing import Any, ClassVar, Unpack

import torch
from torch import Tensor

from mi_crow.mechanistic.sae.base import SaeOptions, SparseAutoencoder, SparseLatents
from mi_crow.mechanistic.sae.cross_layer.record import (
    CROSSCODER,
    CrossLayerRecord,
    LayerRecord,
    ModelRead,
)
from mi_crow.mechanistic.sae.cross_layer.refs import TensorRef
from mi_crow.mechanistic.sae.kernels.entries import (
    Entries,
    encode_above,
    encode_topk,
    pre_activations,
    strongest_entries,
)
from mi_crow.mechanistic.sae.metadata import SaeMetadata
from mi_crow.mechanistic.sae.rules.batchtopk import SAFE, BatchTopKSae
from mi_crow.mechanistic.sae.rules.topk import TopKSae


class TopKCrosscoder(TopKSae):
    """Keeps the k latents of a token that contribute most."""

    architecture: ClassVar[str] = CROSSCODER

    def __init__(
        self, n_latents: int, widths: Sequence[int], k: int, **options: Unpack[SaeOptions]
    ) -> None:
        """`widths`: of the layers that are side by side."""
        super().__init__(n_latents, sum(widths), k, **options)
        self.widths: tuple[int, ...] = tuple(widths)

    def config(self) -> dict[str, Any]:
        return {"k": self.k, "rule": "topk", "widths": list(self.widths)}

    def _choose(self, inputs: Tensor) -> tuple[Tensor, Entries]:
        k, sizes = min(self.k, self.n_latents), contributions(self.W_dec, self.widths)
        weighed = self.encoder_rows * sizes[:, None], self.b_enc * sizes
        z, entries = encode_topk(inputs, *weighed, k)
        z = self.sharing.keep_top_k(z, self.k)
        return z / sizes[entries.columns].view(z.shape), entries

    def _encode_rows(self, x: Tensor) -> SparseLatents:
        return self._chosen_rows(x)


class BatchTopKCrosscoder(BatchTopKSae):
    """Keeps the k latents a token, on average over the batch, that contribute most; at inference
    those whose contribution is above a threshold."""

    architecture: ClassVar[str] = CROSSCODER
    stored_as: ClassVar[str | None] = None

    def __init__(
        self, n_latents: int, widths: Sequence[int], k: int, **options: Unpack[SaeOptions]
    ) -> None:
        """`widths`: of the layers that are side by side."""
        super().__init__(n_latents, sum(widths), k, **options)
        self.widths: tuple[int, ...] = tuple(widths)

    def config(self) -> dict[str, Any]:
        return {"k": self.k, "rule": "batchtopk", "widths": list(self.widths)}

    def _weighed(self) -> tuple[Tensor, Tensor, Tensor]:
        """Encoder and biases in units of the contribution, and what these are: [M]."""
        sizes = contributions(self.W_dec, self.widths)
        rows, bias = self.encoder_rows.detach(), self.b_enc.detach()
        return rows * sizes[:, None], bias * sizes, sizes

    def _encode_entries(self, x: Tensor) -> tuple[Tensor, Entries]:
        rows, bias, sizes = self._weighed()
        values, entries = encode_above(self.encoder_input(x), rows, bias, self.threshold)
        return values / sizes[entries.columns], entries

    def _strongest(self, inputs: Tensor) -> tuple[Tensor, Entries]:
        rows, bias, sizes = self._weighed()
        guess = SAFE * float(self.threshold[0])
        if self.sharing.single_process:
            values, entries = strongest_entries(inputs.detach(), rows, bias, self.k, guess)
        else:
            values, entries = self._strongest_of_all(inputs.detach(), rows, bias, guess)
        self._follow(values)
        own = values / sizes[entries.columns]
        return pre_activations(inputs, self.encoder_rows, self.b_enc, own, entries), entries


@torch.no_grad()
def contributions(decoder: Tensor, widths: Sequence[int]) -> Tensor:
    """What one unit of each latent contributes: the norms of its rows [M, sum of widths], added up
    over the layers: [M], never 0."""
    norms = [torch.linalg.vector_norm(rows, dim=1) for rows in decoder.split(list(widths), dim=1)]
    return torch.stack(norms).sum(0).clamp_min(torch.finfo(decoder.dtype).tiny)


@torch.no_grad()
def crosscoder_record(
    sae: SparseAutoencoder,
    layers: Sequence[tuple[int, str]],
    scales: Sequence[float],
    metadata: SaeMetadata,
    roles: Sequence[str] = (),
    models: tuple[ModelRead, ...] = (),
) -> CrossLayerRecord:
    """The trained crosscoder, which takes each layer times its scale, as one of plain activations.
    `layers`: the number and hook point of each; where two `models` are read, `roles` says which is
    whose."""
    assert isinstance(sae, TopKCrosscoder | BatchTopKCrosscoder)
    widths, sizes = list(sae.widths), contributions(sae.W_dec, sae.widths).double()
    encoder = sae.encoder_rows.double() * sizes[:, None]
    decoder, last = sae.W_dec.double() / sizes[:, None], len(layers) - 1
    parts = (one.split(widths, dim=-1) for one in (encoder, decoder, sae.b_dec.double()))
    threshold = sae.threshold if isinstance(sae, BatchTopKCrosscoder) else None
    records = []
    for place, (rows, columns, centre) in enumerate(zip(*parts, strict=True)):
        (number, name), scale = layers[place], scales[place]
        bias = -(rows @ centre)
        if place == last:
            bias += sae.b_enc.double() * sizes
        records.append(
            LayerRecord(
                number,
                name,
                name,
                _held(rows * scale),
                _held(bias),
                {number: _held(columns / scale)},
                _held(centre / scale),
                None if threshold is None or place < last else _held(threshold),
                model=roles[place] if models else "",
            )
        )
    k = sae.k if threshold is None else None
    return CrossLayerRecord(
        CROSSCODER, tuple(records), metadata, torch.float32, shared=True, k=k, models=models
    ).checked("the trained crosscoder")


def _held(tensor: Tensor) -> TensorRef:
    return TensorRef.of(tensor.detach().float().contiguous())
