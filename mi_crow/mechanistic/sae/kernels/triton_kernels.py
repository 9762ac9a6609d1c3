"""The sparse sums of SAE training as Triton kernels, for CUDA.

`embedding_bag` gives every element of an output row a thread of its own, which walks through the
bag alone and, for the gradient by the weights, once per entry and row block. Here one program keeps
a stretch of a row in registers and reads each active row once, in a fixed order and without
atomics: a seed gives the same SAE. Sums are taken in fp32 (fp64 for fp64 rows).

Importing this module needs Triton, which comes with the CUDA builds of PyTorch.
"""

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

# Elements of a row that one program works on.
_WIDEST = 1024
# A latent that fires on most tokens has as many entries as the batch has tokens: longer bags are
# summed in pieces of this many entries, by programs that run side by side, then from the pieces.
_PIECE = 256
# Where nothing is said, versions of Triton differ in whether a product and its sum are rounded once
# or twice, and a seed would not give the same SAE with each.
_OPTIONS: dict[str, Any] = {"enable_fp_fusion": True}


@triton.jit
def _bag_sums(
    columns,
    weights,
    starts,
    rows,
    pieces,
    first_pieces,
    out,
    n_bags,
    n_entries,
    width,
    piece: tl.constexpr,
    block: tl.constexpr,
    acc: tl.constexpr,
):
    """out[b] = sum of weights[e] * rows[columns[e]] over the entries e of bag b; of bags with more
    than `piece` entries the sum of their pieces (piece = 0: no bag is summed in pieces)."""
    bag = tl.program_id(0).to(tl.int64)
    place = tl.program_id(1) * block + tl.arange(0, block)
    inside = place < width
    begin = tl.load(starts + bag)
    end = tl.load(starts + bag + 1, mask=bag + 1 < n_bags, other=n_entries)
    total = tl.zeros((block,), dtype=acc)
    if piece > 0:  # noqa: SIM102 - decided when the kernel is compiled
        if end - begin > piece:
            first = tl.load(first_pieces + bag)
            last = first + (end - begin + piece - 1) // piece
            for number in range(first, last):
                total += tl.load(pieces + number * width + place, mask=inside, other=0.0)
            end = begin  # nothing is left
    for entry in range(begin, end):
        column = tl.load(columns + entry)
        weight = tl.load(weights + entry).to(acc)
        row = tl.load(rows + column * width + place, mask=inside, other=0.0)
        total += weight * row.to(acc)
    tl.store(out + bag * width + place, total.to(out.dtype.element_ty), mask=inside)


@triton.jit
def _piece_sums(
    columns,
    weights,
    starts,
    rows,
    bags,
    first_pieces,
    out,
    n_bags,
    n_entries,
    width,
    piece: tl.constexpr,
    block: tl.constexpr,
    acc: tl.constexpr,
):
    """out[p] = the sum over the entries of piece p; pieces without a bag are left alone."""
    number = tl.program_id(0).to(tl.int64)
    bag = tl.load(bags + number)
    if bag < n_bags:
        place = tl.program_id(1) * block + tl.arange(0, block)
        inside = place < width
        end = tl.load(starts + bag + 1, mask=bag + 1 < n_bags, other=n_entries)
        begin = tl.load(starts + bag) + (number - tl.load(first_pieces + bag)) * piece
        end = tl.minimum(end, begin + piece)
        total = tl.zeros((block,), dtype=acc)
        for entry in range(begin, end):
            column = tl.load(columns + entry)
            weight = tl.load(weights + entry).to(acc)
            row = tl.load(rows + column * width + place, mask=inside, other=0.0)
            total += weight * row.to(acc)
        tl.store(out + number * width + place, total, mask=inside)


@triton.jit
def _bag_products(
    grad,
    columns,
    starts,
    rows,
    out,
    n_bags,
    n_entries,
    width,
    block: tl.constexpr,
    acc: tl.constexpr,
):
    """out[e] = <grad[b], rows[columns[e]]> for the entries e of bag b."""
    bag = tl.program_id(0).to(tl.int64)
    begin = tl.load(starts + bag)
    end = tl.load(starts + bag + 1, mask=bag + 1 < n_bags, other=n_entries)
    for entry in range(begin, end):
        column = tl.load(columns + entry)
        products = tl.zeros((block,), dtype=acc)
        for begin_at in range(0, width, block):
            place = begin_at + tl.arange(0, block)
            inside = place < width
            one = tl.load(grad + bag * width + place, mask=inside, other=0.0)
            other = tl.load(rows + column * width + place, mask=inside, other=0.0)
            products += one.to(acc) * other.to(acc)
        tl.store(out + entry, tl.sum(products, axis=0).to(out.dtype.element_ty))


def bag_sums(
    columns: Tensor, weights: Tensor, starts: Tensor, rows: Tensor, *, long_bags: bool = False
) -> Tensor:
    """sum of weights[e] * rows[columns[e]] over each bag: [n, d] in the dtype of `rows`.

    columns int64 [e] and weights [e], bag after bag; starts int64 [n], where each bag begins; rows
    [m, d]. `long_bags` where a few bags may hold many times more entries than the others.
    """
    columns, weights, starts, rows = (t.contiguous() for t in (columns, weights, starts, rows))
    n_bags, width = starts.numel(), rows.shape[1]
    out = rows.new_empty(n_bags, width)
    if out.numel() == 0:
        return out
    sizes: dict[str, Any] = {"block": _block(width), "acc": _sum_type(rows), **_OPTIONS}
    blocks = triton.cdiv(width, sizes["block"])
    pieces, first = rows, starts  # never looked at when no bag is summed in pieces
    entries = (columns, weights, starts, rows)
    counts = (n_bags, columns.numel(), width)
    sizes["piece"] = _PIECE if long_bags and columns.numel() > _PIECE else 0
    with torch.cuda.device_of(rows):  # Triton launches on the current device, wherever tensors are
        if sizes["piece"]:
            bags, first = _long_bags(starts, columns.numel())
            pieces = rows.new_empty(bags.numel(), width, dtype=_sum_dtype(rows.dtype))
            _piece_sums[(bags.numel(), blocks)](*entries, bags, first, pieces, *counts, **sizes)
        _bag_sums[(n_bags, blocks)](*entries, pieces, first, out, *counts, **sizes)
    return out


def bag_products(grad: Tensor, columns: Tensor, starts: Tensor, rows: Tensor) -> Tensor:
    """<grad[b], rows[columns[e]]> of each entry e of bag b: [e] in the dtype of `grad`.

    grad [n, d], columns int64 [e], starts int64 [n], rows [m, d].
    """
    grad, columns, starts, rows = (t.contiguous() for t in (grad, columns, starts, rows))
    out = grad.new_empty(columns.numel())
    if out.numel() == 0:
        return out
    n_bags, width = grad.shape
    sizes: dict[str, Any] = {"block": _block(width), "acc": _sum_type(rows), **_OPTIONS}
    tensors = (grad, columns, starts, rows, out)
    with torch.cuda.device_of(rows):
        _bag_products[(n_bags,)](*tensors, n_bags, columns.numel(), width, **sizes)
    return out


def self_test(device: torch.device) -> None:
    """Sums one bag on `device`. Raises whatever keeps Triton from working there."""
    one = torch.zeros(1, dtype=torch.int64, device=device)
    bag_sums(one, one.float(), one, one.float()[:, None])


def _long_bags(starts: Tensor, n_entries: int) -> tuple[Tensor, Tensor]:
    """The bag of each piece, and the first piece of each bag.

    There are at most 2 e / _PIECE pieces in bags of more than _PIECE entries. So many are always
    made, since asking for their number would wait for the device; what is too many belongs to a
    bag that there is not.
    """
    # Filled on the device: a tensor of the number itself would be copied there, and waited for.
    ends = torch.cat([starts[1:], starts.new_full((1,), n_entries)])
    counts = ends - starts
    numbers = torch.where(counts > _PIECE, (counts + _PIECE - 1) // _PIECE, 0)
    last = numbers.cumsum(0)
    most = torch.arange(2 * n_entries // _PIECE + 1, device=starts.device)
    return torch.searchsorted(last, most, right=True), last - numbers


def _block(width: int) -> int:
    return min(_WIDEST, max(16, triton.next_power_of_2(width)))


def _sum_dtype(dtype: torch.dtype) -> torch.dtype:
    return torch.float64 if dtype == torch.float64 else torch.float32


def _sum_type(rows: Tensor) -> Any:
    return tl.float64 if rows.dtype == torch.float64 else tl.float32
