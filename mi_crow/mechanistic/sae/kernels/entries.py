"""The active latents of a batch as a list, and encoding and decoding with gradients over it alone.

Rules give tokens different numbers of active latents; TopK is the case of k entries for each. Only
the encoder's product is dense, and every gradient runs over the entries alone. There is no dense
path beside it: with 4,608 latents of 576 inputs and 2,048 tokens on two cores, a ReLU step takes
0.21 of the time of the same step with dense tensors at 32 active latents a token, 0.45 at 400, 0.76
at 800, and as long at 1,050.
"""

# `backward` names its gradients, where torch declares `*grad_outputs`.
# pyright: reportIncompatibleMethodOverride=false

from functools import cached_property
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from mi_crow.mechanistic.sae.kernels.bags import (
    bag_products,
    dense_latents,
    even_starts,
    sparse_path,
    sum_bags,
)
from mi_crow.mechanistic.sae.kernels.product import product_blocks, topk_activations

# A floor is taken from so many tokens of a batch, and is this much lower than theirs: batches and
# parts of one differ by some percent.
_SAMPLED_TOKENS = 64
_SAFE = 0.85


class LatentOrder(NamedTuple):
    """The entries of a batch grouped by latent: the transpose of a CSR pattern."""

    order: Tensor  # int64 [e]: position of each entry in the list token by token
    rows: Tensor  # int64 [e]: the token of each entry
    starts: Tensor  # int64 [M]: where each latent's entries begin


class Entries:
    """Where the entries of a batch are: e of them, token by token."""

    def __init__(self, columns: Tensor, rows: Tensor, n_tokens: int, n_latents: int) -> None:
        """columns int64 [e]: the latent of each entry; rows int64 [e]: its token, ascending."""
        self.columns: Tensor = columns
        self.rows: Tensor = rows
        self.n_tokens: int = n_tokens
        self.n_latents: int = n_latents

    @classmethod
    def of_topk(cls, indices: Tensor, n_latents: int) -> "Entries":
        """The entries of indices [n, k]: k for every token."""
        n, k = indices.shape
        tokens = torch.arange(n, device=indices.device).repeat_interleave(k)
        entries = cls(indices.reshape(-1), tokens, n, n_latents)
        entries.starts = even_starts(indices)
        return entries

    def select(self, kept: Tensor) -> "Entries":
        """Those at the positions `kept`, ascending."""
        return Entries(self.columns[kept], self.rows[kept], self.n_tokens, self.n_latents)

    @cached_property
    def starts(self) -> Tensor:
        """int64 [n]: where each token's entries begin."""
        tokens = torch.arange(self.n_tokens, device=self.rows.device)
        return torch.searchsorted(self.rows, tokens)

    @cached_property
    def grouped(self) -> LatentOrder:
        """The same entries by latent, tokens ascending; sorted once, used by every gradient."""
        # Sorted by radix, whose time grows with the bytes of a number: of 2 a fifth of what 8 take.
        # And `index_select` takes a quarter of the time of an index in brackets.
        dtype = torch.int16 if self.n_latents <= 1 << 15 else torch.int32
        ascending, order = self.columns.to(dtype).sort(stable=True)
        latents = torch.arange(self.n_latents, device=self.columns.device, dtype=dtype)
        starts = torch.searchsorted(ascending, latents)
        return LatentOrder(order, self.rows.index_select(0, order), starts)

    def padded(self, values: Tensor) -> tuple[Tensor, Tensor]:
        """values [e] as values [n, w] and indices [n, w], w the entries of the fullest token.

        Places without an entry hold the value 0 and latent 0.
        """
        counts = torch.bincount(self.rows, minlength=self.n_tokens)
        width = int(counts.max()) if self.n_tokens else 0
        place = torch.arange(self.rows.numel(), device=self.rows.device) - self.starts[self.rows]
        shape = (self.n_tokens, max(width, 1))
        flat = self.rows * shape[1] + place
        indices = self.columns.new_zeros(shape).view(-1).scatter(0, flat, self.columns)
        spread = values.new_zeros(shape).view(-1).scatter(0, flat, values)
        return spread.view(shape), indices.view(shape)


def entries_above(
    x: Tensor, encoder_rows: Tensor, bias: Tensor, floor: Tensor | float = 0.0
) -> tuple[Tensor, Entries]:
    """Pre-activations above `floor` (a number, or one a latent [M]), without gradients.

    x [n, d], encoder_rows [M, d], bias [M] -> values [e] and where they are. Works through the
    tokens in blocks, so that memory follows the entries and not n x M.
    """
    values, columns, rows = [], [], []
    for start, pre in product_blocks(x, encoder_rows, bias):
        flat = torch.nonzero((pre > floor).view(-1))[:, 0]
        values.append(pre.view(-1)[flat].to(x.dtype))
        row = torch.div(flat, encoder_rows.shape[0], rounding_mode="floor")
        columns.append(flat - row * encoder_rows.shape[0])
        rows.append(row + start)
    if not values:
        nothing = torch.empty(0, dtype=torch.int64, device=x.device)
        return x.new_empty(0), Entries(nothing, nothing, 0, encoder_rows.shape[0])
    found = Entries(torch.cat(columns), torch.cat(rows), x.shape[0], encoder_rows.shape[0])
    return torch.cat(values), found


def strongest_entries(
    x: Tensor, encoder_rows: Tensor, bias: Tensor, k: int, guess: float = 0.0
) -> tuple[Tensor, Entries]:
    """The n k largest positive pre-activations of a batch of n tokens, without gradients.

    Gives values [e] and where they are; fewer when fewer are positive. `guess` >= 0 is a floor
    that is likely to leave at least n k entries, 0 where none is known: a good one spares work, a
    bad one costs a second product, the answer is the same.
    """
    wanted = x.shape[0] * k
    values, entries = _at_least(wanted, x, encoder_rows, bias, guess)
    if values.numel() <= wanted:
        return values, entries
    chosen = values.topk(wanted, sorted=False).indices.sort().values
    return values[chosen], entries.select(chosen)


def threshold_for_l0(x: Tensor, encoder_rows: Tensor, bias: Tensor, l0: float) -> Tensor:
    """The pre-activation that `l0` latents a token of x [n, d] reach on average; no dimensions."""
    wanted = max(1, round(l0 * x.shape[0]))
    values, _ = _at_least(wanted, x, encoder_rows, bias)
    if not values.numel():
        return x.new_zeros(())
    return values.topk(min(wanted, values.numel()), sorted=False).values.min()


def _at_least(
    wanted: int, x: Tensor, encoder_rows: Tensor, bias: Tensor, guess: float = 0.0
) -> tuple[Tensor, Entries]:
    """The pre-activations above a floor that leaves `wanted` of them, or all positive ones."""
    floor = guess or likely_floor(x, encoder_rows, bias, wanted / max(len(x), 1))
    for lower in (floor, floor / 4):
        values, entries = entries_above(x, encoder_rows, bias, lower)
        if values.numel() >= wanted or lower <= 0:
            return values, entries
    return entries_above(x, encoder_rows, bias)


def likely_floor(x: Tensor, encoder_rows: Tensor, bias: Tensor, k: float) -> float:
    """A floor >= 0 that more than `k` pre-activations a token of x [n, d] are likely to exceed: of
    a fresh SAE half of all n M are positive, and a list of them would be longer than their product.
    """
    some = x[:: max(1, len(x) // _SAMPLED_TOKENS)]
    if not len(some):
        return 0.0
    pre = functional.linear(some, encoder_rows, bias).view(-1)
    reached = pre.topk(min(pre.numel(), max(1, round(k * len(some)))), sorted=False).values.min()
    return max(0.0, _SAFE * float(reached))


class _PreActivations(torch.autograd.Function):
    """Pre-activations of the entries, with gradients over them alone."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, encoder_rows: Tensor, bias: Tensor, values: Tensor, entries: Entries
    ) -> Tensor:
        ctx.save_for_backward(x, encoder_rows)
        ctx.entries = entries
        return values.clone()

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, encoder_rows = ctx.saved_tensors
        entries: Entries = ctx.entries
        grad_x = grad_rows = grad_bias = None
        if ctx.needs_input_grad[0]:
            grad_x = _token_sums(grad, entries, encoder_rows)
        if ctx.needs_input_grad[1]:
            grad_rows = latent_sums(grad, entries, x)
        if ctx.needs_input_grad[2]:
            grad_bias = _sums_by_latent(grad, entries)
        return grad_x, grad_rows, grad_bias, None, None


class _Decoding(torch.autograd.Function):
    """sum_e values[e] * rows[columns[e]] for each token."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, entries: Entries, rows: Tensor) -> Tensor:
        ctx.save_for_backward(values, rows)
        ctx.entries = entries
        return _token_sums(values, entries, rows)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        values, rows = ctx.saved_tensors
        entries: Entries = ctx.entries
        grad_values = grad_rows = None
        if ctx.needs_input_grad[0]:
            grad_values = bag_products(grad, entries.columns, entries.starts, entries.rows, rows)
        if ctx.needs_input_grad[2]:
            grad_rows = latent_sums(values, entries, grad.contiguous())
        return grad_values, None, grad_rows


class _Gathering(torch.autograd.Function):
    """vector[columns], summed by latent on the way back."""

    @staticmethod
    def forward(ctx: Any, vector: Tensor, entries: Entries) -> Tensor:
        ctx.entries = entries
        return vector[entries.columns]

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        return _sums_by_latent(grad, ctx.entries), None


def encode_topk(x: Tensor, encoder_rows: Tensor, bias: Tensor, k: int) -> tuple[Tensor, Entries]:
    """ReLU of the k largest entries of x W^T + b, differentiable by x, W and b.

    x [n, d], encoder_rows [M, d], bias [M] -> values [n, k] (may hold zeros) and where they are.
    """
    if not sparse_path(x.device):
        top = functional.linear(x, encoder_rows, bias).topk(k, dim=1, sorted=False)
        return top.values.relu(), Entries.of_topk(top.indices, len(encoder_rows))
    values, indices = topk_activations(x.detach(), encoder_rows.detach(), bias.detach(), k)
    entries = Entries.of_topk(indices, len(encoder_rows))
    pre = pre_activations(x, encoder_rows, bias, values.view(-1), entries)
    return pre.view(values.shape).relu(), entries  # nothing flows through a latent it closes


def encode_above(
    x: Tensor, encoder_rows: Tensor, bias: Tensor, floor: Tensor | float = 0.0
) -> tuple[Tensor, Entries]:
    """`entries_above`, differentiable by x, encoder_rows and bias."""
    values, entries = entries_above(x.detach(), encoder_rows.detach(), bias.detach(), floor)
    return pre_activations(x, encoder_rows, bias, values, entries), entries


def pre_activations(
    x: Tensor, encoder_rows: Tensor, bias: Tensor, values: Tensor, entries: Entries
) -> Tensor:
    """The known pre-activations `values` [e], with gradients by x, encoder_rows and bias."""
    if not sparse_path(x.device):
        pre = functional.linear(x, encoder_rows, bias)
        return pre[entries.rows, entries.columns]
    out: Tensor = _PreActivations.apply(x, encoder_rows, bias, values, entries)
    return out


def decode_entries(values: Tensor, entries: Entries, rows: Tensor) -> Tensor:
    """sum_e values[e] * rows[columns[e]], differentiable by values and rows: [n, d]."""
    if not sparse_path(rows.device):
        spread, indices = entries.padded(values)
        return dense_latents(spread, indices, entries.n_latents) @ rows
    out: Tensor = _Decoding.apply(values, entries, rows)
    return out


def gather(vector: Tensor, entries: Entries) -> Tensor:
    """vector [M] at each entry's latent, differentiable: [e]."""
    if not sparse_path(vector.device):
        return vector[entries.columns]
    out: Tensor = _Gathering.apply(vector, entries)
    return out


def latent_sums(values: Tensor, entries: Entries, x: Tensor) -> Tensor:
    """sum of values[e] * x[token] over each latent's entries: x [n, d] -> [M, d].

    The gradient of a matrix whose row i was multiplied with x[n] wherever latent i is an entry of
    token n.
    """
    grouped = entries.grouped
    weights = values.index_select(0, grouped.order)
    return sum_bags(grouped.rows, weights, grouped.starts, x, long_bags=True)


def _sums_by_latent(values: Tensor, entries: Entries) -> Tensor:
    """Sum of values [e] over each latent's entries: [M].

    In a fixed order: index_add_ would differ from run to run on CUDA.
    """
    return latent_sums(values, entries, values.new_ones(entries.n_tokens, 1))[:, 0]


def _token_sums(values: Tensor, entries: Entries, rows: Tensor) -> Tensor:
    """sum of values[e] * rows[latent] over each token's entries: rows [M, d] -> [n, d]."""
    return sum_bags(entries.columns, values, entries.starts, rows)
