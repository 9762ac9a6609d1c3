"""TopK SAE: the k largest pre-activations of a token, after a ReLU, and nothing else.

Gao et al. 2024, "Scaling and evaluating sparse autoencoders", section 2.3 (equations 2 and 3).
"""

from typing import Any, ClassVar, Unpack

import torch
from torch import Tensor

from mi_crow.errors import UserError
from mi_crow.mechanistic.sae.base import (
    LossContext,
    OutputOptions,
    SparseAutoencoder,
    SparseLatents,
    TrainingOutput,
)
from mi_crow.mechanistic.sae.kernels.entries import Entries, decode_entries, encode_topk
from mi_crow.mechanistic.sae.kernels.product import rounded_topk_activations, topk_activations
from mi_crow.mechanistic.sae.rules.losses import auxk_loss, fired_or_none, variance_share


class TopKSae(SparseAutoencoder):
    """z = ReLU(TopK((x - b_dec) W_enc + b_enc)); the ReLU comes after the choice, as in SAELens."""

    architecture: ClassVar[str] = "topk"

    def __init__(
        self, n_latents: int, n_inputs: int, k: int, **options: Unpack[OutputOptions]
    ) -> None:
        check_k(k, n_latents)
        super().__init__(n_latents, n_inputs, **options)
        self.k = k
        # What the encoder's product is rounded to in inference, see `rounded_topk_activations`.
        self.rounded_to: torch.dtype | None = None

    @classmethod
    def random(
        cls,
        n_latents: int,
        n_inputs: int,
        k: int,
        *,
        b_dec: Tensor | None = None,
        device: str | torch.device = "cpu",
        seed: int = 0,
    ) -> "TopKSae":
        """An untrained SAE, the control that any score of a trained one is to be read beside.

        Random unit decoder rows, the encoder their transpose; `b_dec` [d] centres the input (give
        the trained SAE's, so that the control sees the same centred activations).
        """
        sae = cls(n_latents, n_inputs, k, device=device, seed=seed)
        if b_dec is not None:
            with torch.no_grad():
                sae.b_dec.copy_(b_dec)
        return sae

    def config(self) -> dict[str, Any]:
        return {"k": self.k, "rescale_acts_by_decoder_norm": False}

    def _choose(self, inputs: Tensor) -> tuple[Tensor, Entries]:
        """The k latents of each row of the encoder's input: [n, k], and where they are."""
        k = min(self.k, self.n_latents)  # a process that shares latents may have less than k
        z, entries = encode_topk(inputs, self.encoder_rows, self.b_enc, k)
        return self.sharing.keep_top_k(z, self.k), entries

    def _encode_rows(self, x: Tensor) -> SparseLatents:
        if not torch.is_inference_mode_enabled() or not self.sharing.single_process:
            return self._chosen_rows(x)
        # The same, but that the input is never held centred as a whole.
        centre = self.b_dec if self.apply_b_dec_to_input else None
        own = x, self.encoder_rows, self.b_enc, self.k
        if self.rounded_to is not None:
            return SparseLatents(*rounded_topk_activations(*own, self.rounded_to, centre))
        return SparseLatents(*topk_activations(*own, centre))

    def _chosen_rows(self, x: Tensor) -> SparseLatents:
        """The latents of each row of x [n, d] by `_choose`."""
        z, entries = self._choose(self.encoder_input(x))
        return SparseLatents(z, entries.columns.view(z.shape))

    def training_output(self, x: Tensor, target: Tensor, context: LossContext) -> TrainingOutput:
        """Losses `reconstruction` (the batch's FVU) and, with dead latents, `auxk`."""
        inputs = self.encoder_input(x)
        z, entries = self._choose(inputs)
        z = z.reshape(-1)
        residual = target - self.completed(decode_entries(z, entries, self.W_dec), x)
        fvu = variance_share(residual, context)
        losses = {"reconstruction": fvu, **auxk_loss(self, inputs, residual, context)}
        fired = fired_or_none(z.detach(), entries.columns, self.n_latents)
        return TrainingOutput(losses, fvu.detach(), fired)


def check_k(k: int, n_latents: int) -> None:
    """Raises UserError unless k latents can be chosen among `n_latents`."""
    if not 1 <= k <= n_latents:
        raise UserError(
            f"k = {k} does not fit {n_latents} latents", hint=f"use 1 <= k <= {n_latents}"
        )
