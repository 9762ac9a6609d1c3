"""JumpReLU SAE: a latent counts once it is above its own learned threshold."""

# `backward` names its gradients, where torch declares `*grad_outputs`.
# pyright: reportIncompatibleMethodOverride=false

import math
from typing import Any, ClassVar, Unpack

import torch
from torch import Tensor, nn

from mi_crow.errors import UserError
from mi_crow.mechanistic.sae.architectures import PENALTIES, STEP, TANH
from mi_crow.mechanistic.sae.base import LossContext, OutputOptions, TrainingOutput
from mi_crow.mechanistic.sae.kernels.entries import (
    Entries,
    decode_entries,
    encode_above,
    gather,
    threshold_for_l0,
)
from mi_crow.mechanistic.sae.rules.losses import auxk_loss, fired_or_none, variance_share
from mi_crow.mechanistic.sae.rules.pre_act import pre_act_loss
from mi_crow.mechanistic.sae.rules.ragged import RaggedSae

TANH_SCALE = 4.0  # c, for inputs of mean norm sqrt(n_inputs)
TANH_THRESHOLD = 0.1  # where thresholds start with the penalty `tanh`, in the same units


class JumpReluSae(RaggedSae):
    """z = pre * [pre > threshold], pre = (x - b_dec) W_enc + b_enc.

    Rajamanoharan et al. 2024, "Jumping ahead: Improving reconstruction fidelity with JumpReLU
    sparse autoencoders": loss |x - x_hat|^2 + lambda L0 (equation 9), or with a target
    (L0 / target - 1)^2 in place of L0 (appendix). The threshold learns by the pseudo-derivatives
    of equations 11 and 12, with K the rectangle of width one:
    d JumpReLU / d threshold = -(threshold / epsilon) K((pre - threshold) / epsilon) and
    d [pre > threshold] / d threshold = -(1 / epsilon) K((pre - threshold) / epsilon).

    `bandwidth` is epsilon for inputs of mean squared norm one, as there; the trainer's inputs are
    sqrt(n_inputs) times as long, and epsilon with them.

    With the penalty `tanh` the loss is |x - x_hat|^2 + lambda sum_i tanh(c z_i |W_dec,i|), c = 4,
    and lambda is steered to the target; decoder norms are one here. Conerly et al. 2025, "Circuits
    Updates: January", "Dictionary learning optimization techniques". From there too: all thresholds
    start at 0.1 and the biases where the wanted number of latents fires, and a small penalty moves
    latents towards their threshold, here those that are dead (see `pre_act.py`). The
    pseudo-derivatives stay those above.
    """

    architecture: ClassVar[str] = "jumprelu"
    steers_sparsity: ClassVar[bool] = True
    encoder_tensors: ClassVar[tuple[str, ...]] = ("b_enc", "threshold")
    penalties: ClassVar[tuple[str, ...]] = PENALTIES
    learning_rates: ClassVar[dict[str, float]] = {"threshold": 10.0}

    def __init__(
        self,
        n_latents: int,
        n_inputs: int,
        *,
        bandwidth: float = 1e-3,
        **options: Unpack[OutputOptions],
    ) -> None:
        if not bandwidth > 0:
            raise UserError(f"the bandwidth must be above 0, not {bandwidth}")
        super().__init__(n_latents, n_inputs, **options)
        self.bandwidth = bandwidth
        self.threshold: nn.Parameter = nn.Parameter(torch.zeros_like(self.b_enc))

    @property
    def target_in_loss(self) -> bool:
        return self.penalty == STEP

    def starting_coefficient(self, variance: float, target_l0: float) -> float:
        # A latent is worth its place from the square root of lambda: half of a typical one.
        return 1.0 if self.penalty == STEP else variance / target_l0 / 4

    @torch.no_grad()
    def calibrate(self, x: Tensor, l0: float) -> None:
        """One threshold for all latents, which `l0` latents a token are above: a BatchTopK SAE's
        start. From zero thresholds, half of all latents would be active for long. For the penalty
        `tanh`, which is flat for strong latents, the biases take the rest of it."""
        level = threshold_for_l0(self.encoder_input(x), self.encoder_rows, self.b_enc, l0)
        threshold = level
        if self.penalty == TANH:
            threshold = torch.full_like(level, TANH_THRESHOLD)
            self.b_enc.sub_(level - threshold)
        self.threshold.copy_(threshold.expand_as(self.threshold))

    def config(self) -> dict[str, Any]:
        return {}

    def _scaled_tensors(self) -> list[Tensor]:
        return [*super()._scaled_tensors(), self.threshold]

    def _encode_entries(self, x: Tensor) -> tuple[Tensor, Entries]:
        # A negative threshold of another tool lets nothing negative through.
        floor = self.threshold.clamp_min(0)
        return encode_above(self.encoder_input(x), self.encoder_rows, self.b_enc, floor)

    def training_output(self, x: Tensor, target: Tensor, context: LossContext) -> TrainingOutput:
        """Losses `reconstruction`, `sparsity` and, with dead latents, `auxk`; with the penalty
        `tanh` then also `pre_act`."""
        epsilon = self.bandwidth * math.sqrt(self.n_inputs)
        inputs = self.encoder_input(x)
        # Entries half a bandwidth below the threshold are silent, but move it.
        floor = self.threshold.detach() - epsilon / 2
        pre, entries = encode_above(inputs, self.encoder_rows, self.b_enc, floor)
        z, step = jump_relu(pre, gather(self.threshold, entries), epsilon)
        residual = target - self.completed(decode_entries(z, entries, self.W_dec), x)
        fvu = variance_share(residual, context)
        losses = {"reconstruction": fvu}
        losses["sparsity"] = context.sparsity * self._sparsity(z, step, entries, context)
        losses |= auxk_loss(self, inputs, residual, context)
        if self.penalty == TANH:
            losses |= pre_act_loss(self, inputs, self.threshold, context)
        fired = fired_or_none(z.detach(), entries.columns, self.n_latents)
        return TrainingOutput(losses, fvu.detach(), fired)

    def _sparsity(self, z: Tensor, step: Tensor, entries: Entries, context: LossContext) -> Tensor:
        if self.penalty == TANH:
            cost = self.sharing.sum_over_latents((TANH_SCALE * z).tanh().sum())
            return cost / (context.variance * entries.n_tokens)
        active = self.sharing.sum_over_latents(step.sum())
        l0 = self.sharing.batch_mean(active, entries.n_tokens)
        if context.target_l0 is None:
            return l0
        return (l0 / context.target_l0 - 1).square()

    def after_step(self) -> None:
        """Keeps the thresholds from falling below zero."""
        with torch.no_grad():
            self.threshold.clamp_(min=0)


class _JumpRelu(torch.autograd.Function):
    """pre [pre > threshold] and [pre > threshold]: [e], [e] -> [e], [e]."""

    @staticmethod
    def forward(ctx: Any, pre: Tensor, threshold: Tensor, epsilon: float) -> tuple[Tensor, Tensor]:
        open_ = pre > threshold
        ctx.save_for_backward(pre, threshold, open_)
        ctx.epsilon = epsilon
        return pre * open_, open_.to(pre.dtype)

    @staticmethod
    def backward(ctx: Any, grad_z: Tensor, grad_step: Tensor) -> tuple[Tensor | None, ...]:
        pre, threshold, open_ = ctx.saved_tensors
        window = ((pre - threshold).abs() <= ctx.epsilon / 2).to(pre.dtype) / ctx.epsilon
        return grad_z * open_, -window * (threshold * grad_z + grad_step), None


def jump_relu(pre: Tensor, threshold: Tensor, epsilon: float) -> tuple[Tensor, Tensor]:
    """The latent and whether it is on, for pre-activations and thresholds [e], with the
    pseudo-derivatives by the threshold."""
    z, step = _JumpRelu.apply(pre, threshold, epsilon)
    return z, step
