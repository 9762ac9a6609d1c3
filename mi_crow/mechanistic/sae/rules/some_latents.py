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
_TURNED = 1 << 24  # weights of an encoder that is kept turned as well, at most
_FEW = 256  # pre-activations that are looked at one by one
_SINCE = 3  # comparisons of few tokens after which that pays


class SomeLatents:
    """What `encode_sparse` gives some latents, up to rounding: called with x [..., d], it returns
    [..., f] fp32.

    Where each latent has a threshold of its own (L1, JumpReLU, BatchTopK) only their rows of the
    encoder are multiplied. TopK compares them with all pre-activations, without sorting these; on
    a CPU, where looking at a value costs nothing, only in tokens where one of the few is positive.
    Of equal pre-activations at the k-th place all count. Other rules encode everything.
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
        self._centred = self._centre is not None
        self._width, self._dtype = sae.n_inputs, sae.dtype
        self._compared, self._turned = 0, sae.encoder_rows.detach().t()  # [d, M]
        if self._floor is not None or self._k is not None:
            self._rows = sae.encoder_rows.detach()[self._latents].t().contiguous()  # [d, f]
            self._bias = sae.b_enc.detach()[self._latents]
            if self._centre is not None and self._dtype == torch.float32:
                self._bias = self._bias - self._centre @ self._rows  # x needs no centring then
                self._centred = False

    def __call__(self, x: Tensor) -> Tensor:
        if (self._floor is None and self._k is None) or not self._count:
            return self._from_all(x)
        tokens = self._tokens(x)
        own = torch.addmm(self._bias, self._inputs(tokens, self._centred), self._rows)
        if own.requires_grad:
            own = own.detach()
        shape = (*x.shape[:-1], self._count)
        if self._floor is not None:
            found = own * (own > self._floor)
        elif own.device.type == "cpu" and own.numel() <= _FEW:
            found = self._looked_up(tokens, own)
        elif own.numel() * self._sae.n_latents > _COMPARED:
            return self._from_all(x)
        else:
            largest, above = self._among_all(tokens)
            found = largest.relu() * (above < (self._k or 0))
        return found.view(shape).float()

    def are_fixed(self, tokens: int) -> bool:
        """Whether so many tokens take the same operations whatever their values, but on a CPU."""
        if not self._count:
            return False
        fits = tokens * self._count * self._sae.n_latents <= _COMPARED
        return self._floor is not None or (self._k is not None and fits)

    def _looked_up(self, tokens: Tensor, own: Tensor) -> Tensor:
        """The activations [n, f] after pre-activations `own`, only tokens with a positive one being
        compared. In numbers of Python: a small tensor's operation costs as much as a product."""
        values: list[list[float]] = own.tolist()
        rows = [row for row, few in enumerate(values) if max(few) > 0]
        if not rows:
            return torch.zeros_like(own)
        if len(rows) < len(values):
            tokens = tokens.index_select(0, torch.tensor(rows))
        found, k = [[0.0] * self._count] * len(values), self._k or 0
        largest, above = self._among_all(tokens)
        for row, few, ranks in zip(rows, largest.tolist(), above.tolist(), strict=True):
            found[row] = [
                z if z > 0 and rank < k else 0.0 for z, rank in zip(few, ranks, strict=True)
            ]
        return torch.tensor(found, dtype=own.dtype)

    def _tokens(self, x: Tensor) -> Tensor:
        """What is encoded, in the SAE's dtype: [n, d]. Raises UserError for another width."""
        wide = self._plain and x.shape[-1] == self._width
        rows = x.reshape(-1, self._width) if wide else self._sae._rows_to_encode(x)
        return rows if rows.dtype == self._dtype else rows.to(self._dtype)

    def _inputs(self, tokens: Tensor, centred: bool = True) -> Tensor:
        """What the encoder multiplies."""
        return tokens if self._centre is None or not centred else tokens - self._centre

    def _among_all(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """The pre-activations of the few, and of how many others each is exceeded: [n, f]."""
        pre = torch.addmm(self._sae.b_enc, self._inputs(tokens), self._columns(len(tokens)))
        pre = pre.detach() if pre.requires_grad else pre
        own = pre.index_select(1, self._latents)
        if self._count == 1:
            return own, (pre > own).sum(dim=1, keepdim=True)
        return own, (pre.unsqueeze(1) > own.unsqueeze(2)).sum(dim=-1)

    def _columns(self, tokens: int) -> Tensor:
        """The encoder [d, M]. Turned in memory a product with one token costs half on a CPU."""
        if self._compared < _SINCE and tokens <= 8 and self._turned.device.type == "cpu":
            self._compared += 1
            if self._compared == _SINCE and self._turned.numel() <= _TURNED:
                self._turned = self._turned.contiguous()
        return self._turned

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
