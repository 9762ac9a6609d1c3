"""Crosscoders whose latents read all layers at once.

z = act(sum over layers of x_l W_enc,l^T + b_enc,l), x_hat_l = z W_dec,l + b_dec,l, where act keeps
what is above a threshold, or the k largest (Lindsey et al. 2024, "Sparse crosscoders for
cross-layer features and model diffing"). Our files have the units in which the norms of a latent's
decoder rows add up to one over the layers, so that both rules compare what latents contribute.
"""

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import ClassVar

import torch
from torch import Tensor

from mi_crow.errors import UserError
from mi_crow.mechanistic.sae.cross_layer.norms import decoder_norms, own_places
from mi_crow.mechanistic.sae.cross_layer.record import CROSSCODER
from mi_crow.mechanistic.sae.cross_layer.refs import TensorRef, check_finite
from mi_crow.mechanistic.sae.cross_layer.sae import CrossLayerSae, Layers, _Encoder
from mi_crow.mechanistic.sae.kernels.entries import (
    Entries,
    decode_entries,
    encode_above,
    encode_topk,
)
from mi_crow.mechanistic.sae.outputs import SparseLatents


class SharedCrosscoder(CrossLayerSae):
    """Reconstructs the activations of the layers that it reads, each latent from all of them.

    Its latents read no layer of their own: `encode` gives the same ones for every layer and needs
    the activations of all. For reading and steering they are of the last layer, where a model that
    runs knows them; they are shown as of the layer that they write to most (`strongest`).
    """

    architecture: ClassVar[str] = CROSSCODER

    @property
    def last(self) -> int:
        """The number of the last layer."""
        return self.layer_numbers[-1]

    def latents_at(self, number: int) -> range:
        return range(self.n_latents if number == self.last else 0)

    @cached_property
    def first_latents(self) -> dict[int, int]:
        return dict.fromkeys(self.layer_numbers, 0)

    def layer_of(self, latent: int) -> tuple[int, int]:
        if not 0 <= latent < self.n_latents:
            return super().layer_of(latent)
        return self.last, latent

    def encode_layers(self, x: Layers) -> dict[int, SparseLatents]:
        """The latents of the layers together, under the number of each that was asked for. Raises
        UserError where the activations of a layer are missing."""
        for number in x:
            self._known(number)
        if missing := [number for number in self.layer_numbers if number not in x]:
            raise UserError(
                f"every latent also reads layer {', '.join(map(str, missing))}",
                hint="give the activations of all layers",
            )
        for number, rows in x.items():
            self._check_width(number, rows)
        together = torch.cat([x[number] for number in self.layer_numbers], dim=-1)
        return dict.fromkeys(x, self.encode_sparse(together))

    def written_by(self, number: int) -> tuple[int, ...]:
        return self.layer_numbers

    def sources(self, to: int) -> tuple[int, ...]:
        return (self._known(to).number,)

    def writes(self, latents: Sequence[int]) -> dict[int, Tensor]:
        return {to: self.rows_into(latents, self.last, to) for to in self.layer_numbers}

    def rows_into(self, latents: Sequence[int], number: int, to: int) -> Tensor:
        for latent in latents:
            self.layer_of(latent)
        rows = self._known(to).decoders[to].rows(list(latents))
        return rows.to(self.device, torch.float32)

    @cached_property
    def strongest(self) -> tuple[int, ...]:
        """The place in `layers` of the layer that each latent writes to most. Reads all decoders
        when it is first asked for."""
        return tuple(own_places(self, decoder_norms(self)).tolist())

    # Side by side.

    def _encode_entries(self, x: Tensor) -> tuple[Tensor, Entries]:
        x = x.to(self.dtype)
        encoder = self._encoder(self.last)
        if self.record.k is None:
            return encode_above(x, encoder.rows, encoder.bias, encoder.floor)
        values, entries = encode_topk(x, encoder.rows, encoder.bias, self.record.k)
        return values.reshape(-1), entries

    def decode(self, z: Tensor, x: Tensor | None = None) -> Tensor:
        inputs, z = self._by_layer(x), z.to(self.dtype)
        rows = {to: z @ self._decoder(to, to) for to in self.layer_numbers}
        return torch.cat(
            [self.completed_at(to, rows[to], inputs) for to in self.layer_numbers], dim=-1
        )

    def decode_sparse(self, latents: SparseLatents, x: Tensor | None = None) -> Tensor:
        by_layer = dict.fromkeys(self.layer_numbers, latents)
        inputs = self._by_layer(x)
        return torch.cat([self.rebuilt(to, by_layer, inputs) for to in by_layer], dim=-1)

    @cached_property
    def _directions(self) -> Tensor:
        """What each means at the last layer."""
        return self._decoder(self.last, self.last).float()

    # One layer.

    def _encoder(self, number: int) -> _Encoder:
        """That of all layers, whose inputs are side by side."""
        layers = self.record.layers
        rows = self._put_together("encoder_rows", [layer.encoder_rows for layer in layers])
        bias = self._put_together("b_enc", [layer.b_enc for layer in layers])
        threshold = layers[-1].threshold
        if threshold is None:
            return _Encoder(rows, bias, 0.0)
        floor = self._tensor(self.last, f"threshold.{self.last}", threshold)
        return _Encoder(rows, bias, floor.clamp_min(0))

    def _put_together(self, name: str, refs: Sequence[TensorRef]) -> Tensor:
        """Matrices side by side, vectors added up; made once."""
        key = self.last, name
        if key not in self._read:
            with torch.inference_mode(False):  # kept also for those who want gradients
                parts = [ref.read().to(self.device, torch.float32) for ref in refs]
                for ref, part in zip(refs, parts, strict=True):
                    check_finite(part, name, ref.source or self._place)
                side_by_side = parts[0].ndim == 2
                whole = torch.cat(parts, dim=1) if side_by_side else torch.stack(parts).sum(0)
                self._read[key] = whole.to(self.dtype)
        return self._read[key]

    def rebuilt(self, to: int, latents: Mapping[int, SparseLatents], x: Layers | None) -> Tensor:
        values, indices = latents[to]
        flat = values.reshape(-1, values.shape[-1])
        entries = Entries.of_topk(indices.reshape(flat.shape), self.n_latents)
        rows = decode_entries(flat.reshape(-1), entries, self._decoder(to, to))
        return self.completed_at(to, rows.view(*values.shape[:-1], rows.shape[-1]), x)
