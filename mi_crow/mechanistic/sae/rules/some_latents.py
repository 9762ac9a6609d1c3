"""The activations of a few latents, without encoding the others where the rule allows that."""

from collections.abc import Sequence

import torch
from torch import Tensor

from mi_crow.errors import UserError
from mi_crow.mechanistic.sae.base import SparseAutoencoder
from mi_crow.mechanistic.sae.outputs import activations_of
from mi_crow.mechanistic.sae.rules.batchtopk import BatchTopKSae
from mi_crow.mechanistic.sae.rules.jumprelu import JumpReluSae
from mi_crow.mechanistic.sae.rules.l1 import L1Sae
from mi_crow.mechanistic.sae.rules.topk import TopKSae

_COMPARED = 1 << 22  # pre-activations that are compared with those of the few in one pass


class SomeLatents:
    """What `encode_sparse` gives some latents, up to rounding: called with x [..., d], it returns
    [..., f] fp32.

    Where each latent has a threshold of its own (L1, JumpReLU, BatchTopK) only their rows of the
    encoder are multiplied. TopK compares them with all pre-activations, without sorting these; on
    a CPU, where looking at a value costs nothing, only if one of the few is positive. Of equal
    pre-activations at the k-th place all count. Other rules encode everything.
    """

    def __init__(self, sae: SparseAutoencoder, latents: Sequence[int]) -> None:
        """Raises UserError for a latent that the SAE does not have."""
        wrong = next((one for one in latents if not 0 <= one < sae.n_latents), None)
        if wrong is not None:
            raise UserError(
                f"feature {wrong} is not a feature of this SAE",
                hint=f"it has features 0 to {sae.n_latents - 1}",
            )
        self._sae, self._count = sae, len(latents)
        self._latents = torch.tensor(latents, dtype=torch.int64, device=sae.device)
        self._floor = _thresholds(sae, self._latents)
        self._k: int | None = None
        if isinstance(sae, TopKSae) and type(sae)._encode_rows is TopKSae._encode_rows:
            self._k = sae.k
        # An SAE that takes tokens as they are is asked nothing in every pass: that costs as much as
        # the product.
        self._plain = sae.input_norm == "none" and not sae.centred
        self._centre = sae.b_dec.detach() if sae.apply_b_dec_to_input else None
        self._width, self._dtype = sae.n_inputs, sae.dtype
        if self._floor is not None or self._k is not None:
            self._rows = sae.encoder_rows.detach()[self._latents].t().contiguous()  # [d, f]
            self._bias = sae.b_enc.detach()[self._latents]

    def __call__(self, x: Tensor) -> Tensor:
        if (self._floor is None and self._k is None) or not self._count:
            return self._from_all(x)
        inputs = self._inputs(x)
        own = torch.addmm(self._bias, inputs, self._rows).detach()
        if self._floor is not None:
            found = own * (own > self._floor)
        elif own.device.type == "cpu" and not float(own.max()) > 0:
            found = torch.zeros_like(own)
        elif own.numel() * self._sae.n_latents > _COMPARED:
            return self._from_all(x)
        else:
            found = self._among_largest(inputs)
        return found.view(*x.shape[:-1], found.shape[-1]).float()

    def _inputs(self, x: Tensor) -> Tensor:
        """What the encoder multiplies: [n, d]. Raises UserError for another width."""
        if not self._plain or x.shape[-1] != self._width:
            return self._sae.encoder_input(self._sae._rows_to_encode(x))
        rows = x.reshape(-1, self._width).to(self._dtype)
        return rows if self._centre is None else rows - self._centre

    def _among_largest(self, inputs: Tensor) -> Tensor:
        """Of the few [n, f] those that are among the k largest of their token, after a ReLU."""
        pre = torch.addmm(self._sae.b_enc, inputs, self._sae.encoder_rows.t())
        own = pre.index_select(1, self._latents)
        above = (pre.unsqueeze(1) > own.unsqueeze(2)).sum(dim=-1)
        return own.relu() * (above < (self._k or 0))

    def _from_all(self, x: Tensor) -> Tensor:
        return activations_of(self._sae.encode_sparse(x), self._latents).float()


def _thresholds(sae: SparseAutoencoder, latents: Tensor) -> Tensor | None:
    """What the pre-activation of each must exceed to be its activation, [f] or [1]; None where that
    depends on other latents, or the activation is another one."""
    rule = type(sae)._encode_entries
    if rule is L1Sae._encode_entries:
        return sae.b_dec.new_zeros(1)
    if rule is BatchTopKSae._encode_entries and isinstance(sae, BatchTopKSae):
        return sae.threshold.detach()[latents]
    if rule is JumpReluSae._encode_entries and isinstance(sae, JumpReluSae):
        return sae.threshold.detach()[latents].clamp_min(0)
    return None
