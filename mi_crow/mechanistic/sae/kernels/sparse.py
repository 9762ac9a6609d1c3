"""Sparse arithmetic of an SAE: top-k encoding, sparse decoding, and their gradients.

A token has k active latents of M, so only the encoder's product is dense. Everything after it
runs over k entries a token, by `embedding_bag` in both directions or on CUDA by the kernels of
`triton_kernels.py`, and never builds a [tokens, M, d] or (on the sparse path) a [tokens, M] tensor
twice.
"""

# `backward` names its gradients, where torch declares `*grad_outputs`.
# pyright: reportIncompatibleMethodOverride=false

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from mi_crow.mechanistic.sae.kernels.compiled import gpu_kernels
from mi_crow.mechanistic.sae.kernels.row_topk import padding_to_groups, row_topk
from mi_crow.mechanistic.sae.kernels.scratch import scratch

# Elements of the pre-activation block that is held at once.
_BLOCK_ELEMENTS = {"cpu": 1 << 24, "cuda": 1 << 28}
_BLOCK_ELEMENTS_ELSEWHERE = 1 << 26
# Nor has it more tokens there. With 4,608 latents blocks of 1,024 tokens take 2-6% longer than of
# 2,048 and hold half as much, which counts in training; those of 512 take 5-9% longer.
_BLOCK_TOKENS = {"cpu": 1024}
_BLOCK_TOKENS_INFERENCE = {"cpu": 2048}
# From so many times d tokens on, weights and bias are put into one matrix for them. With 4,608
# latents that saves 4% of the product, and making it takes as long as the biases of 2 d tokens.
_JOINED_ROWS = 4


class LatentOrder(NamedTuple):
    """The active entries of a batch, grouped by latent: the transpose of a CSR pattern."""

    order: Tensor  # int64 [e]: position of each entry in the list token by token
    rows: Tensor  # int64 [e]: the token of each entry
    starts: Tensor  # int64 [M]: where each latent's entries begin


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


def topk_activations(
    x: Tensor, encoder_rows: Tensor, bias: Tensor, k: int, centre: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """The k largest of (x - c) W^T + b of each token after a ReLU, without gradients.

    x [n, d], encoder_rows [M, d], bias [M], centre [d], 0 without one -> values [n, k] (may hold
    zeros), indices [n, k]. Works through the tokens in blocks, so that memory does not grow with
    n x M. Under CUDA autocast the product runs in the autocast dtype; values are returned in the
    bias's dtype.
    """
    n = x.shape[0]
    values = bias.new_empty(n, k)
    indices = torch.empty(n, k, dtype=torch.int64, device=x.device)
    padding = padding_to_groups(encoder_rows.shape[0], k, x.device)
    for start, pre in product_blocks(x, encoder_rows, bias, padding, centre):
        found = slice(start, start + len(pre))
        values[found], indices[found] = row_topk(pre, k)
    if padding:  # a latent at -inf is as good as the padding
        indices.clamp_max_(encoder_rows.shape[0] - 1)
    return values.relu_(), indices


def product_blocks(
    x: Tensor,
    encoder_rows: Tensor,
    bias: Tensor,
    padding: int = 0,
    centre: Tensor | None = None,
) -> Iterator[tuple[int, Tensor]]:
    """(x - c) W^T + b in blocks of tokens: the first token's number and the block [<= n, M], on
    the CPU with `padding` more columns of -inf. Without a `centre` [d] c is 0.

    A block is only valid until the next one is asked for: on the CPU they share memory. Under
    autocast the product runs in the autocast dtype.
    """
    n, n_latents = x.shape[0], encoder_rows.shape[0]
    limit = _BLOCK_ELEMENTS.get(x.device.type, _BLOCK_ELEMENTS_ELSEWHERE)
    tokens = _BLOCK_TOKENS_INFERENCE if torch.is_inference_mode_enabled() else _BLOCK_TOKENS
    most = tokens.get(x.device.type, n)
    block = max(1, min(n, most, limit // (n_latents + padding)))
    columns, shift = _product_operands(encoder_rows, bias)
    joined = _joined(columns, shift) if _worth_joining(x, n_latents) else None
    for start in range(0, n, block):
        rows = x[start : start + block]
        if x.device.type != "cpu":
            yield start, torch.addmm(shift, _centred(rows, centre).to(columns.dtype), columns)
            continue
        held = scratch("product", (rows.shape[0], n_latents + padding), columns.dtype)
        held[:, n_latents:] = -torch.inf
        found = held[:, :n_latents]
        if joined is None:
            torch.addmm(shift, _centred(rows, centre).to(columns.dtype), columns, out=found)
        else:
            torch.mm(_with_ones(rows, centre, columns.dtype), joined, out=found)
        yield start, held


def _centred(rows: Tensor, centre: Tensor | None) -> Tensor:
    """rows - c in the dtype of c."""
    return rows if centre is None else rows.to(centre.dtype) - centre


def _worth_joining(x: Tensor, n_latents: int) -> bool:
    """Whether x [n, d] is multiplied with weights and bias as one matrix: a CPU would write and
    read a whole block for the bias alone, but the matrix has to be made."""
    if x.device.type != "cpu" or not torch.is_inference_mode_enabled():
        return False
    n, d = x.shape
    small = n_latents * (d + 1) <= _BLOCK_ELEMENTS["cpu"]
    return small and n >= _JOINED_ROWS * d and not torch.is_autocast_enabled("cpu")


def _joined(columns: Tensor, shift: Tensor) -> Tensor:
    """[d, M] with [M] below it: [d + 1, M]."""
    d, n_latents = columns.shape
    held = scratch("weights and bias", (n_latents, d + 1), columns.dtype)
    held[:, :d], held[:, d] = columns.t(), shift
    return held.t()


def _with_ones(rows: Tensor, centre: Tensor | None, dtype: torch.dtype) -> Tensor:
    """[n, d], centred, with a column of ones beside it, which adds the bias: [n, d + 1]."""
    n, d = rows.shape
    held = scratch("rows and ones", (n, d + 1), dtype)
    held[:, :d], held[:, d] = rows, 1
    if centre is not None:
        held[:, :d] -= centre
    return held


def _product_operands(encoder_rows: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
    device = encoder_rows.device.type
    if torch.is_autocast_enabled(device):
        dtype = torch.get_autocast_dtype(device)
        return encoder_rows.to(dtype).t(), bias.to(dtype)
    return encoder_rows.t(), bias


def decode_rows(values: Tensor, indices: Tensor, rows: Tensor) -> Tensor:
    """sum_j values[n, j] * rows[indices[n, j]]: [n, k], [n, k], [M, d] -> [n, d]."""
    if not sparse_path(rows.device):
        return dense_latents(values, indices, rows.shape[0]) @ rows
    return sum_bags(indices.reshape(-1), values.reshape(-1), _even_starts(indices), rows)


def _even_starts(indices: Tensor) -> Tensor:
    """Where each token's entries begin when every token has as many: [n]."""
    return torch.arange(0, indices.numel(), indices.shape[1], device=indices.device)


def dense_latents(values: Tensor, indices: Tensor, n_latents: int) -> Tensor:
    """[n, k] values at [n, k] indices as [n, M] with zeros elsewhere."""
    dense = values.new_zeros(values.shape[0], n_latents)
    return dense.scatter_add(1, indices, values)


def by_latent(indices: Tensor, n_latents: int) -> LatentOrder:
    """Groups the entries of indices [n, k] by latent, tokens ascending within each."""
    columns = indices.reshape(-1)
    tokens = torch.arange(indices.shape[0], device=indices.device)
    return group_by_latent(columns, tokens.repeat_interleave(indices.shape[1]), n_latents)


def group_by_latent(columns: Tensor, rows: Tensor, n_latents: int) -> LatentOrder:
    """Groups entries by latent: columns [e] and rows [e] are their latents and tokens."""
    # Sorted by radix, whose time grows with the bytes of a number: of 2 a fifth of what 8 take. And
    # `index_select` takes a quarter of the time of an index in brackets.
    dtype = torch.int16 if n_latents <= 1 << 15 else torch.int32
    ascending, order = columns.to(dtype).sort(stable=True)
    latents = torch.arange(n_latents, device=columns.device, dtype=dtype)
    return LatentOrder(order, rows.index_select(0, order), torch.searchsorted(ascending, latents))


def row_gradient(grad_values: Tensor, grouped: LatentOrder, x: Tensor) -> Tensor:
    """sum over tokens of grad_values[n, j] * x[n] for each latent: [M, d].

    The gradient of a matrix whose row i was multiplied with x[n] wherever indices[n, j] = i.
    """
    weights = grad_values.reshape(-1).index_select(0, grouped.order)
    return sum_bags(grouped.rows, weights, grouped.starts, x, long_bags=True)


def active_products(grad: Tensor, indices: Tensor, rows: Tensor) -> Tensor:
    """<grad[n], rows[indices[n, j]]> for the active entries alone: [n, d], [M, d] -> [n, k].

    The gradient of `decode_rows` by its values.
    """
    n, k = indices.shape
    owners = torch.arange(n, device=indices.device).repeat_interleave(k)
    columns = indices.reshape(-1)
    return bag_products(grad, columns, _even_starts(indices), owners, rows).view(n, k)


class _TopKEncode(torch.autograd.Function):
    """values, indices of the k largest pre-activations, gradients over the active ones only."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, encoder_rows: Tensor, bias: Tensor, k: int
    ) -> tuple[Tensor, Tensor]:
        values, indices = topk_activations(x, encoder_rows, bias, k)
        ctx.save_for_backward(x, encoder_rows, values, indices)
        ctx.mark_non_differentiable(indices)
        return values, indices

    @staticmethod
    def backward(ctx: Any, grad_values: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
        x, encoder_rows, values, indices = ctx.saved_tensors
        # [n, k]: nothing flows through a latent that the ReLU closed.
        grad = grad_values * (values > 0)
        grad_x = grad_rows = grad_bias = None
        if ctx.needs_input_grad[0]:
            grad_x = decode_rows(grad, indices, encoder_rows)  # [n, d]
        grouped = by_latent(indices, encoder_rows.shape[0])
        if ctx.needs_input_grad[1]:
            grad_rows = row_gradient(grad, grouped, x)  # [M, d]
        if ctx.needs_input_grad[2]:
            # Summed in a fixed order: index_add_ would differ from run to run on CUDA.
            grad_bias = row_gradient(grad, grouped, x.new_ones(x.shape[0], 1))[:, 0]  # [M]
        return grad_x, grad_rows, grad_bias, None


class _SparseDecode(torch.autograd.Function):
    """sum_j values[n, j] * rows[indices[n, j]], gradients over the active entries only."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, indices: Tensor, rows: Tensor) -> Tensor:
        ctx.save_for_backward(values, indices, rows)
        return decode_rows(values, indices, rows)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        values, indices, rows = ctx.saved_tensors
        grad_values = grad_rows = None
        if ctx.needs_input_grad[0]:
            grad_values = active_products(grad, indices, rows)  # [n, k]
        if ctx.needs_input_grad[2]:
            grouped = by_latent(indices, rows.shape[0])
            grad_rows = row_gradient(values, grouped, grad.contiguous())  # [M, d]
        return grad_values, None, grad_rows


def topk_encode(x: Tensor, encoder_rows: Tensor, bias: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """ReLU of the k largest entries of x W^T + b, differentiable by x, W and b.

    x [n, d], encoder_rows [M, d], bias [M] -> values [n, k] (may hold zeros), indices [n, k].
    """
    if not sparse_path(x.device):
        top = functional.linear(x, encoder_rows, bias).topk(k, dim=1, sorted=False)
        return top.values.relu(), top.indices
    values, indices = _TopKEncode.apply(x, encoder_rows, bias, k)
    return values, indices


def sparse_decode(values: Tensor, indices: Tensor, rows: Tensor) -> Tensor:
    """sum_j values[n, j] * rows[indices[n, j]], differentiable by values and rows: [n, d]."""
    if not sparse_path(rows.device):
        return dense_latents(values, indices, rows.shape[0]) @ rows
    out: Tensor = _SparseDecode.apply(values, indices, rows)
    return out
