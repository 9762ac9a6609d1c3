"""What dead latents make of a batch, for AuxK: by dense products or entry by entry, as costs less.

AuxK has up to d / 2 active dead latents a token. Of 200 dead latents that may be all of them, and a
product over all is then several times as fast as as many gathered rows; of 20,000 it is not.
"""

# `backward` names its gradients, where torch declares `*grad_outputs`.
# pyright: reportIncompatibleMethodOverride=false

from typing import Any, NamedTuple

import torch
from torch import Tensor

from mi_crow.mechanistic.sae.base import SparseAutoencoder
from mi_crow.mechanistic.sae.kernels.bags import decode_rows, dense_latents, sparse_path
from mi_crow.mechanistic.sae.kernels.entries import Entries, decode_entries, pre_activations
from mi_crow.mechanistic.sae.kernels.product import topk_activations
from mi_crow.mechanistic.sae.sharing import Sharing


class _EntryCosts(NamedTuple):
    """What active entries cost, in multiplications of a dense product."""

    decoding: float  # an entry's element of the decoded row
    gradients: float  # an entry's elements of the three gradients
    grouping: float  # an entry, to be put beside the others of its latent


_COSTS = {
    # Measured with n = 2,048, d = 576, k = 32 to 288 of 50 to 1,000 dead latents.
    "cpu": _EntryCosts(decoding=1.9, gradients=8.8, grouping=500),
    # Not measured but derived: an entry reads its element from the L2 cache, which gives a GPU one
    # in the time of 8 (A100) to 18 (H100) multiplications; two sums and one product are taken.
    "cuda": _EntryCosts(decoding=8, gradients=24, grouping=8000),
}
# Elements of the dense latents [n, m] that may be held.
_HELD = {"cpu": 1 << 24, "cuda": 1 << 28}


def dead_part(sae: SparseAutoencoder, inputs: Tensor, dead: Tensor, k: int) -> Tensor:
    """What the latents `dead`, as far as among the k strongest dead ones of a token, decode to.

    inputs [n, d] without gradient, dead int64 [m] -> [n, n_outputs] over the latents at hand.
    """
    if not dead.numel():  # where latents are shared, all at hand may be alive
        sae.sharing.keep_top_k(inputs.new_zeros(inputs.shape[0], 0), k)
        return inputs.new_zeros(inputs.shape[0], sae.n_outputs)
    encoder, bias, decoder = (
        parameter.index_select(0, dead)
        for parameter in (sae.encoder_rows, sae.encoder_bias, sae.W_dec)
    )
    return part_of_dead(inputs, encoder, bias, decoder, k, sae.sharing)


def part_of_dead(
    inputs: Tensor, encoder: Tensor, bias: Tensor, decoder: Tensor, k: int, sharing: Sharing
) -> Tensor:
    """The same for the rows of the dead latents [m, d], [m] and [m, n_outputs]."""
    with torch.no_grad():
        values, indices = topk_activations(inputs, encoder, bias, min(k, len(bias)))
        # Zero where other shares of the latents have stronger ones.
        values = sharing.keep_top_k(values, k)
    if dense_costs_less(len(inputs), decoder.shape, values.shape[1], inputs.device):
        part: Tensor = _DensePart.apply(inputs, encoder, bias, decoder, values, indices)
        return part
    entries = Entries.of_topk(indices, len(decoder))
    pre = pre_activations(inputs, encoder, bias, values.view(-1), entries)
    return decode_entries(pre.relu(), entries, decoder)


def dense_costs_less(n: int, decoder: tuple[int, ...], active: int, device: torch.device) -> bool:
    """Whether products over all of the m latents of a decoder [m, d] cost less than going through
    the `active` ones of each of n tokens.

    It depends on sizes alone, so that a seed gives the same SAE however busy the machine is.
    """
    if not sparse_path(device):
        return True
    (m, d), costs = decoder, _COSTS[device.type]
    decoding = costs.decoding * active
    entries = decoding + (costs.gradients + costs.grouping / d) * active
    return n * m <= _HELD[device.type] and min(m, decoding) + 3 * m <= entries


class _DensePart(torch.autograd.Function):
    """z D for z = relu(x E^T + b) where `values` are positive; gradients for E, b and D."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        encoder: Tensor,
        bias: Tensor,
        decoder: Tensor,
        values: Tensor,
        indices: Tensor,
    ) -> Tensor:
        """x [n, d], encoder [m, d], bias [m], decoder [m, d], values, indices [n, k] -> [n, d]."""
        z = dense_latents(values, indices, len(decoder))
        ctx.save_for_backward(x, decoder, z)
        costs = _COSTS.get(x.device.type)
        if costs is not None and costs.decoding * values.shape[1] < len(decoder):
            return decode_rows(values, indices, decoder)
        with torch.autocast(x.device.type, enabled=False):  # sums of entries are never rounded
            return z @ decoder

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, decoder, z = ctx.saved_tensors
        grad = grad.contiguous()
        with torch.autocast(grad.device.type, enabled=False):
            # Nothing flows through a latent that is not active: the gradient of a ReLU.
            grad_z = torch.ops.aten.threshold_backward(grad @ decoder.T, z, 0)
            return None, grad_z.T @ x, grad_z.sum(0), z.T @ grad, None, None
