"""The pre-activation loss: dead latents are moved towards their threshold."""

# `backward` names its gradients, where torch declares `*grad_outputs`.
# pyright: reportIncompatibleMethodOverride=false

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from mi_crow.mechanistic.sae.base import LossContext, SparseAutoencoder

COEFFICIENT = 3e-6  # of the squared error, inputs of mean norm sqrt(n_inputs)
_HELD = 1 << 24  # elements of the pre-activations [n, m] that are held at once


def pre_act_loss(
    sae: SparseAutoencoder, inputs: Tensor, threshold: Tensor, context: LossContext
) -> dict[str, Tensor]:
    """`pre_act`: how far dead latents stay below their `threshold` [M] on inputs [n, d]; {} without
    dead latents.

    lambda sum_i ReLU(threshold_i - pre_i) |W_dec,i|, lambda = 3e-6: Conerly et al. 2025, "Circuits
    Updates: January". There it is of all latents; the others have gradients of their own, and of
    the dead ones alone it costs a product with few rows. The inputs learn nothing from it.
    """
    if context.dead is None:
        return {}
    encoder, bias, level = (
        tensor.index_select(0, context.dead)
        for tensor in (sae.encoder_rows, sae.encoder_bias, threshold)
    )
    below: Tensor = _Below.apply(inputs.detach(), encoder, bias, level)
    total = sae.sharing.sum_over_latents(below)
    return {"pre_act": COEFFICIENT * total / (context.variance * inputs.shape[0])}


class _Below(torch.autograd.Function):
    """sum of ReLU(level - x E^T - b), with its gradients for E, b and level made in the same pass:
    x [n, d], E [m, d], b [m], level [m] -> a scalar. No [n, m] is kept."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, encoder: Tensor, bias: Tensor, level: Tensor) -> Tensor:
        total = x.new_zeros(())
        counts, sums = torch.zeros_like(bias), torch.zeros_like(encoder)
        some = max(1, _HELD // max(len(x), 1))
        with torch.autocast(x.device.type, enabled=False):
            for start in range(0, len(encoder), some):
                part = slice(start, start + some)
                gap = level[part] - functional.linear(x, encoder[part], bias[part])
                below = (gap > 0).to(x.dtype)
                total += (gap * below).sum()
                counts[part] = below.sum(0)
                sums[part] = below.T @ x
        ctx.save_for_backward(counts, sums)
        return total

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        counts, sums = ctx.saved_tensors
        return None, -grad * sums, -grad * counts, grad * counts
