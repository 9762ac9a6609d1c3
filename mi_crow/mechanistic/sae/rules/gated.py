"""Gated SAE: one half of the encoder says whether a latent is on, the other how much."""

import math
from typing import Any, ClassVar, Unpack

import torch
from torch import Tensor, nn

from mi_crow.mechanistic.sae.base import LossContext, SaeOptions, TrainingOutput
from mi_crow.mechanistic.sae.kernels.entries import (
    Entries,
    decode_entries,
    encode_above,
    gather,
    threshold_for_l0,
)
from mi_crow.mechanistic.sae.rules.losses import auxk_loss, fired_or_none, variance_share
from mi_crow.mechanistic.sae.rules.ragged import RaggedSae


class GatedSae(RaggedSae):
    """z = [gate > 0] ReLU(e^r_mag (x - b_dec) W_enc + b_mag), gate = (x - b_dec) W_enc + b_gate.

    Rajamanoharan et al. 2024, "Improving dictionary learning with gated sparse autoencoders":
    encoder of equations 6 and 7, loss of equation 8:
    |x - x_hat(z)|^2 + lambda sum ReLU(gate) + |x - x_hat_frozen(ReLU(gate))|^2,
    where the frozen decoder learns nothing from its term. All terms are divided by the variance of
    the inputs.
    """

    architecture: ClassVar[str] = "gated"
    steers_sparsity: ClassVar[bool] = True
    encoder_tensors: ClassVar[tuple[str, ...]] = ("b_gate", "b_mag", "r_mag")

    def __init__(self, n_latents: int, n_inputs: int, **options: Unpack[SaeOptions]) -> None:
        super().__init__(n_latents, n_inputs, **options)
        zeros = self.b_enc.detach()
        del self.b_enc
        for name in self.encoder_tensors:
            self.register_parameter(name, nn.Parameter(zeros.clone()))

    b_gate: nn.Parameter
    b_mag: nn.Parameter
    r_mag: nn.Parameter

    @property
    def encoder_bias(self) -> nn.Parameter:
        return self.b_gate

    def starting_coefficient(self, variance: float, target_l0: float) -> float:
        return math.sqrt(variance / target_l0) / 4

    @torch.no_grad()
    def calibrate(self, x: Tensor, l0: float) -> None:
        """Gates that `l0` latents a token open; their magnitudes stay whole."""
        level = threshold_for_l0(self.encoder_input(x), self.encoder_rows, self.b_gate, l0)
        self.b_gate.sub_(level)

    def config(self) -> dict[str, Any]:
        return {}

    def _scaled_tensors(self) -> list[Tensor]:
        return [self.b_gate, self.b_mag]

    def _magnitudes(self, gate: Tensor, entries: Entries) -> Tensor:
        """Latents [e] of open gates [e]: both halves share the product."""
        product = gate - gather(self.b_gate, entries)
        scaled = product * gather(self.r_mag, entries).exp()
        return (scaled + gather(self.b_mag, entries)).relu()

    def _encode_entries(self, x: Tensor) -> tuple[Tensor, Entries]:
        gate, entries = encode_above(self.encoder_input(x), self.encoder_rows, self.b_gate)
        return self._magnitudes(gate, entries), entries

    def training_output(self, x: Tensor, target: Tensor, context: LossContext) -> TrainingOutput:
        """Losses `reconstruction`, `via_gate`, `sparsity` and, with dead latents, `auxk`."""
        inputs = self.encoder_input(x)
        gate, entries = encode_above(inputs, self.encoder_rows, self.b_gate)
        z = self._magnitudes(gate, entries)
        residual = target - self.completed(decode_entries(z, entries, self.W_dec), x)
        frozen = self.sharing.sum_over_latents(decode_entries(gate, entries, self.W_dec.detach()))
        penalty = self.sharing.sum_over_latents(gate.sum())
        fvu = variance_share(residual, context)
        losses = {
            "reconstruction": fvu,
            "via_gate": variance_share(target - frozen - self.b_dec.detach(), context),
            "sparsity": context.sparsity * penalty / (context.variance * x.shape[0]),
        }
        losses |= auxk_loss(self, inputs, residual, context)
        fired = fired_or_none(z.detach(), entries.columns, self.n_latents)
        return TrainingOutput(losses, fvu.detach(), fired)
