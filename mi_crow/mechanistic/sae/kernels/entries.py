"""Active latents of a batch as a ragged list, for rules that give tokens different numbers of them.

The encoder's product is dense and made in blocks of tokens; only the entries above a floor are
kept, and every gradient runs over them alone. There is no dense path beside it: with 4,608 latents
of 576 inputs and 2,048 tokens on two cores, a ReLU step takes 0.21 of the time of the same step
with dense tensors at 32 active latents a token, 0.45 at 400, 0.76 at 800, and as long at 1,050.
"""

# `backward` names its gradients, where torch declares `*grad_outputs`.
# pyright: reportIncompatibleMethodOverride=false

from functools import cached_property
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from mi_crow.mechanistic.sae.kernels.sparse import (
    LatentOrder,
    bag_products,
    dense_latents,
    group_by_latent,
    product_blocks,
    row_gradient,
    sparse_path,
    sum_bags,
)


class Entries:
    """Where the entries of a batch are: e of them, token by token, latents ascending."""

    def __init__(self, columns: Tensor, rows: Tensor, n_tokens: int, n_latents: int) -> None:
        """columns int64 [e]: the latent of each entry; rows int64 [e]: its token, ascending."""
        self.columns: Tensor = columns
        self.rows: Tensor = rows
        self.n_tokens: int = n_tokens
        self.n_latents: int = n_latents

    @cached_property
    def starts(self) -> Tensor:
        """int64 [n]: where each token's entries begin."""
        tokens = torch.arange(self.n_tokens, device=self.rows.device)
        return torch.searchsorted(self.rows, tokens)

    @cached_property
    def grouped(self) -> LatentOrder:
        """The same entries by latent; sorted once, used by every gradient."""
        return group_by_latent(self.columns, self.rows, self.n_latents)

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
    that is likely to leave at least n k entries: a good one spares work, a bad one costs a second
    product, the answer is the same.
    """
    wanted = x.shape[0] * k
    values, entries = entries_above(x, encoder_rows, bias, guess)
    if values.numel() < wanted and guess > 0:
        values, entries = entries_above(x, encoder_rows, bias)
    if values.numel() <= wanted:
        return values, entries
    chosen = values.topk(wanted, sorted=False).indices.sort().values
    kept = Entries(
        entries.columns[chosen], entries.rows[chosen], entries.n_tokens, entries.n_latents
    )
    return values[chosen], kept


def level_of(x: Tensor, encoder_rows: Tensor, bias: Tensor, l0: float) -> Tensor:
    """The pre-activation that `l0` latents a token of x [n, d] reach on average; no dimensions."""
    values, _ = entries_above(x, encoder_rows, bias)
    wanted = max(1, min(values.numel(), round(l0 * x.shape[0])))
    if not values.numel():
        return x.new_zeros(())
    return values.topk(wanted, sorted=False).values.min()


class _EntryProduct(torch.autograd.Function):
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
            grad_x = bag_sums(grad, entries, encoder_rows)
        if ctx.needs_input_grad[1]:
            grad_rows = row_gradient(grad, entries.grouped, x)
        if ctx.needs_input_grad[2]:
            grad_bias = latent_sums(grad, entries)
        return grad_x, grad_rows, grad_bias, None, None


class _EntryDecode(torch.autograd.Function):
    """sum_e values[e] * rows[columns[e]] for each token."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, entries: Entries, rows: Tensor) -> Tensor:
        ctx.save_for_backward(values, rows)
        ctx.entries = entries
        return bag_sums(values, entries, rows)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        values, rows = ctx.saved_tensors
        entries: Entries = ctx.entries
        grad_values = grad_rows = None
        if ctx.needs_input_grad[0]:
            grad_values = entry_products(grad, entries, rows)
        if ctx.needs_input_grad[2]:
            grad_rows = row_gradient(values, entries.grouped, grad.contiguous())
        return grad_values, None, grad_rows


class _EntryTake(torch.autograd.Function):
    """vector[columns], summed by latent on the way back (in a fixed order, also on CUDA)."""

    @staticmethod
    def forward(ctx: Any, vector: Tensor, entries: Entries) -> Tensor:
        ctx.entries = entries
        return vector[entries.columns]

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        return latent_sums(grad, ctx.entries), None


def encode_above(
    x: Tensor, encoder_rows: Tensor, bias: Tensor, floor: Tensor | float = 0.0
) -> tuple[Tensor, Entries]:
    """`entries_above`, differentiable by x, encoder_rows and bias."""
    values, entries = entries_above(x.detach(), encoder_rows.detach(), bias.detach(), floor)
    return at_entries(x, encoder_rows, bias, values, entries), entries


def at_entries(
    x: Tensor, encoder_rows: Tensor, bias: Tensor, values: Tensor, entries: Entries
) -> Tensor:
    """Known pre-activations `values` [e], tied to what they were computed from."""
    if not sparse_path(x.device):
        pre = functional.linear(x, encoder_rows, bias)
        return pre[entries.rows, entries.columns]
    out: Tensor = _EntryProduct.apply(x, encoder_rows, bias, values, entries)
    return out


def decode_entries(values: Tensor, entries: Entries, rows: Tensor) -> Tensor:
    """sum_e values[e] * rows[columns[e]], differentiable by values and rows: [n, d]."""
    if not sparse_path(rows.device):
        spread, indices = entries.padded(values)
        return dense_latents(spread, indices, entries.n_latents) @ rows
    out: Tensor = _EntryDecode.apply(values, entries, rows)
    return out


def take(vector: Tensor, entries: Entries) -> Tensor:
    """vector [M] at each entry's latent, differentiable: [e]."""
    if not sparse_path(vector.device):
        return vector[entries.columns]
    out: Tensor = _EntryTake.apply(vector, entries)
    return out


def bag_sums(values: Tensor, entries: Entries, rows: Tensor) -> Tensor:
    """sum_e values[e] * rows[columns[e]] for each token, without gradients: [n, d]."""
    return sum_bags(entries.columns, values, entries.starts, rows)


def entry_products(grad: Tensor, entries: Entries, rows: Tensor) -> Tensor:
    """<grad[token], rows[latent]> of each entry: grad [n, d], rows [M, d] -> [e]."""
    return bag_products(grad, entries.columns, entries.starts, entries.rows, rows)


def latent_sums(values: Tensor, entries: Entries) -> Tensor:
    """Sum of values [e] over each latent's entries: [M]."""
    return row_gradient(values, entries.grouped, values.new_ones(entries.n_tokens, 1))[:, 0]
