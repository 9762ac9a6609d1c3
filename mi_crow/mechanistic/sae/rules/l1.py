"""L1 SAE: ReLU latents, kept few by a penalty on their sum."""

import math
from typing import Any, ClassVar

import torch
from torch import Tensor

from mi_crow.mechanistic.sae.base import LossContext, TrainingOutput
from mi_crow.mechanistic.sae.kernels.entries import (
    Entries,
    decode_entries,
    encode_above,
    threshold_for_l0,
)
from mi_crow.mechanistic.sae.rules.losses import auxk_loss, variance_share
from mi_crow.mechanistic.sae.rules.ragged import RaggedSae


class L1Sae(RaggedSae):
    """z = ReLU((x - b_dec) W_enc + b_enc); loss |x - x_hat|^2 + lambda sum_i z_i |W_dec,i|.

    Bricken et al. 2023, "Towards Monosemanticity", section "Sparse autoencoder setup"; the
    decoder norms in the penalty are from Conerly et al. 2024, "Circuits Updates: April". They are
    one here. All terms are divided by the variance of the inputs.
    """

    architecture: ClassVar[str] = "standard"
    steers_sparsity: ClassVar[bool] = True

    def starting_coefficient(self, variance: float, target_l0: float) -> float:
        # Half of lambda is what the penalty takes off a latent: an eighth of a typical one.
        return math.sqrt(variance / target_l0) / 4

    @torch.no_grad()
    def calibrate(self, x: Tensor, l0: float) -> None:
        """Biases that `l0` latents a token overcome. From zero biases half of all latents would be
        active, and the penalty would first take everything apart."""
        level = threshold_for_l0(self.encoder_input(x), self.encoder_rows, self.b_enc, l0)
        self.b_enc.sub_(level)

    def config(self) -> dict[str, Any]:
        return {}

    def _encode_entries(self, x: Tensor) -> tuple[Tensor, Entries]:
        return encode_above(self.encoder_input(x), self.encoder_rows, self.b_enc)

    def training_output(self, x: Tensor, target: Tensor, context: LossContext) -> TrainingOutput:
        """Losses `reconstruction`, `sparsity` and, with dead latents, `auxk`."""
        inputs = self.encoder_input(x)
        z, entries = encode_above(inputs, self.encoder_rows, self.b_enc)
        residual = target - self.completed(decode_entries(z, entries, self.W_dec), x)
        fvu = variance_share(residual, context)
        l1 = self.sharing.sum_over_latents(z.sum()) / (context.variance * x.shape[0])
        losses = {"reconstruction": fvu, "sparsity": context.sparsity * l1}
        losses |= auxk_loss(self, inputs, residual, context)
        return TrainingOutput(losses, fvu.detach(), entries.columns)
