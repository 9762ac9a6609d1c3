"""TopK SAE: the k largest pre-activations of a token, after a ReLU, and nothing else.

Gao et al. 2024, "Scaling and evaluating sparse autoencoders", equations 4 (activation) and
A.2 (AuxK).
"""

from typing import Any, ClassVar

import torch
from torch import Tensor

from mi_crow.errors import UserError
from mi_crow.mechanistic.sae.base import LossContext, SaeOutput, SparseAutoencoder, SparseLatents
from mi_crow.mechanistic.sae.kernels import sparse_decode, topk_encode


class TopKSae(SparseAutoencoder):
    """z = ReLU(TopK((x - b_dec) W_enc + b_enc)); the ReLU comes after the choice, as in SAELens."""

    architecture: ClassVar[str] = "topk"

    def __init__(
        self,
        n_latents: int,
        n_inputs: int,
        k: int,
        device: str | torch.device = "cpu",
        dtype: torch.dtype = torch.float32,
        seed: int = 0,
    ) -> None:
        if not 1 <= k <= n_latents:
            raise UserError(
                f"k = {k} does not fit {n_latents} latents", hint=f"use 1 <= k <= {n_latents}"
            )
        super().__init__(n_latents, n_inputs, device=device, dtype=dtype, seed=seed)
        self.k = k

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

    def _encode_rows(self, x: Tensor) -> SparseLatents:
        values, indices = topk_encode(self.encoder_input(x), self.encoder_rows, self.b_enc, self.k)
        return SparseLatents(values, indices)

    def training_output(self, x: Tensor, context: LossContext) -> SaeOutput:
        """Losses `reconstruction` (the batch's FVU) and, with dead latents, `auxk`."""
        centred = self.encoder_input(x)
        values, indices = topk_encode(centred, self.encoder_rows, self.b_enc, self.k)
        reconstruction = sparse_decode(values, indices, self.W_dec) + self.b_dec
        residual = x - reconstruction
        total = context.variance * x.shape[0]
        losses = {"reconstruction": residual.square().sum() / total}
        if context.dead is not None and context.aux_alpha > 0:
            auxk = self._auxk(centred.detach(), residual.detach(), context)
            losses["auxk"] = context.aux_alpha * auxk / total
        return SaeOutput(reconstruction, SparseLatents(values, indices), losses)

    def _auxk(self, centred: Tensor, residual: Tensor, context: LossContext) -> Tensor:
        """Squared error of the dead latents' attempt at what the live ones left over.

        Decoded without b_dec and against the detached residual, so that nothing but the dead
        latents learns from it. Fewer dead latents than k_aux weigh proportionally less.
        """
        assert context.dead is not None
        encoder, bias, decoder = (
            parameter.index_select(0, context.dead)
            for parameter in (self.encoder_rows, self.b_enc, self.W_dec)
        )
        k = min(context.k_aux, context.dead.numel())
        values, indices = topk_encode(centred, encoder, bias, k)
        error = residual - sparse_decode(values, indices, decoder)
        return error.square().sum() * (k / context.k_aux)
