"""Sums over bags: weighted rows added up for each token or latent, and their gradients.

A token has k active latents of M, so after the encoder's product everything runs over the active
entries alone: by `embedding_bag` in both directions, or on CUDA by the kernels of
`triton_kernels.py`. No [tokens, M, d] tensor is ever built.
"""

import torch
from torch import Tensor
from torch.nn import functional

from mi_crow.mechanistic.sae.kernels.compiled import gpu_kernels


def sparse_path(device: torch.device) -> bool:
    """Whether `embedding_bag` with weights exists on `device`; elsewhere products are dense."""
    return device.type in ("cpu", "cuda")


def sum_bags(
    columns: Tensor, weights: Tensor, starts: Tensor, rows: Tensor, *, long_bags: bool = False
) -> Tensor:
    """sum of weights[e] * rows[columns[e]] over the entries e of each bag: [n, d].

    columns int64 [e] and weights [e], bag after bag; starts int64 [n], where each bag begins; rows
    [m, d]. `long_bags` where a few may hold many times more entries than the others.
    """
    triton = gpu_kernels(rows.device)
    if triton is not None:
        return triton.bag_sums(columns, weights, starts, rows, long_bags=long_bags)
    return functional.embedding_bag(
        columns, rows, offsets=starts, per_sample_weights=weights, mode="sum"
    )


def bag_products(
    grad: Tensor, columns: Tensor, starts: Tensor, owners: Tensor, rows: Tensor
) -> Tensor:
    """<grad[owners[e]], rows[columns[e]]> of each entry e: [e].

    The gradient of `sum_bags` by its weights; without Triton from the operator that PyTorch itself
    uses for `per_sample_weights`. grad [n, d], owners int64 [e]: the bag of each entry.
    """
    triton = gpu_kernels(rows.device)
    if triton is not None:
        return triton.bag_products(grad, columns, starts, rows)
    return torch.ops.aten._embedding_bag_per_sample_weights_backward(
        grad.contiguous(), rows, columns, starts, owners, 0
    )


def decode_rows(values: Tensor, indices: Tensor, rows: Tensor) -> Tensor:
    """sum_j values[n, j] * rows[indices[n, j]]: [n, k], [n, k], [M, d] -> [n, d]."""
    if not sparse_path(rows.device):
        return dense_latents(values, indices, rows.shape[0]) @ rows
    return sum_bags(indices.reshape(-1), values.reshape(-1), even_starts(indices), rows)


def even_starts(indices: Tensor) -> Tensor:
    """Where each token's entries begin when every token has as many: int64 [n]."""
    return torch.arange(0, indices.numel(), indices.shape[1], device=indices.device)


def dense_latents(values: Tensor, indices: Tensor, n_latents: int) -> Tensor:
    """[n, k] values at [n, k] indices as [n, M] with zeros elsewhere."""
    dense = values.new_zeros(values.shape[0], n_latents)
    return dense.scatter_add(1, indices, values)
