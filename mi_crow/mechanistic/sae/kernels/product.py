"""The encoder's product, the one dense product of an SAE, and its k largest entries for each token.

It is made in blocks of tokens, so that memory follows what is kept of a block and not n x M.
"""

from collections.abc import Iterator

import torch
from torch import Tensor

from mi_crow.mechanistic.sae.kernels.bags import bag_products, even_starts
from mi_crow.mechanistic.sae.kernels.row_topk import padding_to_groups, row_topk, scratch

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
# Latents beyond k that are looked at again where the product was rounded.
_CANDIDATES = 8


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


def rounded_topk_activations(
    x: Tensor,
    encoder_rows: Tensor,
    bias: Tensor,
    k: int,
    dtype: torch.dtype,
    centre: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """`topk_activations` with the dense product in `dtype`; values, and the choice among somewhat
    more than k candidates, are in the encoder's dtype, as without it.

    On 16,384 tokens of the sample model (k = 32 of 1,536 latents) a bf16 product alone chooses
    other latents on 11% of the tokens, with four candidates more on 0.006%, with eight on none.
    """
    more = min(len(encoder_rows), k + max(_CANDIDATES, k // 4))
    inputs = _centred(x, centre).to(encoder_rows.dtype)
    weights, shift = encoder_rows.to(dtype), bias.to(dtype)
    _, candidates = topk_activations(inputs.to(dtype), weights, shift, more)
    columns, starts = candidates.reshape(-1), even_starts(candidates)
    tokens = torch.arange(len(x), device=x.device).repeat_interleave(more)
    exact = bag_products(inputs, columns, starts, tokens, encoder_rows)
    pre = exact + bias.index_select(0, columns)
    values, places = row_topk(pre.view(len(x), more), k)
    return values.relu_(), candidates.gather(1, places)


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
