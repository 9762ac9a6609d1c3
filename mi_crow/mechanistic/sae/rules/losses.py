"""Loss terms that several architectures share."""

# `backward` names its gradients, where torch declares `*grad_outputs`.
# pyright: reportIncompatibleMethodOverride=false

from typing import Any

import torch
from torch import Tensor

from mi_crow.mechanistic.sae.base import LossContext, SparseAutoencoder
from mi_crow.mechanistic.sae.rules.dead_latents import dead_part


def variance_share(error: Tensor, context: LossContext) -> Tensor:
    """Squared length of error [n, d], pooled, as a share of the variance of n targets."""
    length: Tensor = _SquaredLength.apply(error)
    return length / (context.variance * error.shape[0])


class _SquaredLength(torch.autograd.Function):
    """Sum of the squares of all elements: one pass forward and one back, where autograd's own way
    makes four tensors of the error's size."""

    @staticmethod
    def forward(ctx: Any, error: Tensor) -> Tensor:
        ctx.save_for_backward(error)
        flat = error.reshape(-1)
        return torch.dot(flat, flat)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        (error,) = ctx.saved_tensors
        return error * (2 * grad)


def auxk_loss(
    sae: SparseAutoencoder, encoder_input: Tensor, residual: Tensor, context: LossContext
) -> dict[str, Tensor]:
    """`auxk`: what dead latents make of what the live ones left over; {} without dead latents.

    Gao et al. 2024, "Scaling and evaluating sparse autoencoders", appendix A.2: the k_aux
    strongest dead latents of each token reconstruct the residual [n, d]. Decoded without b_dec,
    against the detached residual and from the detached input, so that nothing but the dead latents
    learns from it. Fewer dead latents than k_aux weigh proportionally less.
    """
    if context.dead is None or context.aux_alpha <= 0:
        return {}
    k = min(context.k_aux, context.dead.numel() if context.n_dead is None else context.n_dead)
    part = dead_part(sae, encoder_input.detach(), context.dead, k)
    error = residual.detach() - sae.sharing.sum_over_latents(part)
    weight = context.aux_alpha * k / context.k_aux
    return {"auxk": weight * variance_share(error, context)}


def fired_or_none(values: Tensor, indices: Tensor, n_latents: int) -> Tensor:
    """Latents whose value is above zero, `n_latents` in place of the others; same shape."""
    return torch.where(values > 0, indices, n_latents)
