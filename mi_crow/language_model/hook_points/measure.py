"""What a block adds to the residual stream, found by measuring.

A sub-layer's contribution is the output of some module inside the block, times one number, that
equals a difference of the stream: mid - pre and post - mid if the sub-layers run one after the
other, post - pre if they run in parallel or there is only one.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import torch
from torch import Tensor

from mi_crow.language_model.hook_points.record import BlockRecord, Call

_FLOOR = 3e-4  # relative error that counts as none, if the stream's rounding is smaller
_CEILING = 0.2  # a larger error never fits, however coarsely the stream is rounded
_ALIKE = 1.1  # errors within this factor count as equal: the modules' positions decide
_TINY = 1e-12


@dataclass(frozen=True)
class Term:
    """One module's share of a contribution: `scale` times its output."""

    call: Call
    scale: float


@dataclass(frozen=True)
class Sum:
    """The terms whose sum is a difference of the stream, in execution order."""

    terms: tuple[Term, ...]
    error: float  # median over tokens of the relative error


@dataclass(frozen=True)
class Measured:
    """The sums that make up a block's stream; None for what was not found."""

    first: Sum | None  # pre + first = mid
    second: Sum | None  # mid + second = post
    mid: Call | None  # the first to read the stream between sub-layers; None: in parallel
    whole: Sum | None  # pre + whole = post, of blocks without a stream between sub-layers


def measure(record: BlockRecord, known: Sequence[float]) -> Measured:
    """Finds the sums of a block. `known` are the numbers of the model's configuration: a measured
    multiplier close to one of them is taken to be it."""
    pre, post = record.pre, record.post
    assert pre is not None
    assert post is not None
    outputs = _Outputs(record, known)
    readers = _readers(record, pre, post)
    best: Measured | None = None
    for find in (outputs.one, outputs.pair):
        for call in readers:
            assert call.x is not None
            sides = (call.x - pre, _stream(pre, call.x), 0, call.begun)
            # A module that adds the residual itself starts by reading it, and ends later.
            others = (post - call.x, _stream(call.x, post), call.begun, math.inf)
            first, second = find(*sides), find(*others)
            if first is None and second is None:
                continue
            first = first or outputs.pair(*sides)
            second = second or outputs.pair(*others)
            if first is not None and second is not None:
                return Measured(first, second, call, None)
            if find == outputs.one:  # half an answer counts only if one module gives it
                best = best or Measured(first, second, call, None)
        whole = find(post - pre, _stream(pre, post), 0, math.inf)
        if whole is not None:
            return Measured(None, None, None, whole)
    return best or Measured(None, None, None, None)


def equal(one: Tensor | None, other: Tensor | None) -> bool:
    """Whether two recorded tensors hold the same values, up to the rounding of fp32."""
    if one is None or other is None or one.shape != other.shape:
        return False
    return bool(torch.allclose(one, other, rtol=1e-5, atol=1e-6 * float(other.abs().max())))


def _readers(record: BlockRecord, pre: Tensor, post: Tensor) -> list[Call]:
    """Calls that read a tensor as wide as the stream that is neither its start nor its end; each
    tensor once."""
    seen = [pre, post]
    found = []
    for call in record.calls:
        if call.x is None or call.x.shape != pre.shape or call.depth > 1:
            continue
        if any(torch.equal(call.x, one) for one in seen):
            continue
        seen.append(call.x)
        found.append(call)
    return found


def _stream(before: Tensor, after: Tensor) -> Tensor:
    """Norms of the stream around an addition [tokens], which its rounding is relative to."""
    return torch.linalg.vector_norm(before, dim=1) + torch.linalg.vector_norm(after, dim=1)


def _solved(gram: Tensor, dots: Tensor) -> list[float] | None:
    """Least squares of two columns; None if one is not needed or they are dependent."""
    determinant = float(gram[0, 0] * gram[1, 1] - gram[0, 1] ** 2)
    if not determinant > 1e-6 * float(gram[0, 0] * gram[1, 1]):
        return None
    scales = torch.linalg.solve(gram, dots).tolist()
    return scales if all(abs(scale) > 1e-3 for scale in scales) else None


class _Outputs:
    """The candidates of a block: outputs as wide as the stream."""

    def __init__(self, record: BlockRecord, known: Sequence[float]) -> None:
        assert record.pre is not None
        self._eps, self._known = record.rounding, known
        self._calls = [
            call
            for call in record.calls
            if call.ended >= 0 and call.y is not None and call.y.shape == record.pre.shape
        ]
        self._y = torch.stack(
            [call.y for call in self._calls if call.y is not None] or [record.pre]
        )

    def one(self, difference: Tensor, stream: Tensor, begun: float, ended: float) -> Sum | None:
        """One module's output, or two modules' if a coarsely rounded stream lets one pass for
        both."""
        sides = difference, stream, begun, ended
        single = self.single(*sides)
        if single is None or single.error <= _FLOOR:
            return single
        pair = self.pair(*sides)
        return pair if pair is not None and pair.error * _ALIKE < single.error else single

    def single(self, difference: Tensor, stream: Tensor, begun: float, ended: float) -> Sum | None:
        fitting = self._within(begun, ended)
        limit = self._limit(difference, stream)
        if not fitting or limit is None:
            return None
        y = self._y[fitting]
        size = torch.linalg.vector_norm(difference, dim=1).clamp_min(_TINY)
        dots = (y * difference).sum(-1)
        scales = (dots / y.square().sum(-1).clamp_min(_TINY)).median(dim=1).values
        found = []
        for number, scale in zip(fitting, scales.tolist(), strict=True):
            exact = self._rounded(scale, limit, difference.shape[1])
            error = (difference - exact * self._y[number]).norm(dim=1) / size
            found.append((float(error.median()), number, exact))
        least = min(found)[0]
        if not least <= limit:
            return None
        # Several modules often give the same tensor: prefer the outermost that computes.
        alike = [one for one in found if one[0] <= max(least * _ALIKE, 1e-6)]
        error, number, scale = min(alike, key=lambda one: self._preference(one[1], one[2]))
        return Sum((Term(self._calls[number], scale),), error)

    def pair(self, difference: Tensor, stream: Tensor, begun: float, ended: float) -> Sum | None:
        """Two of the block's own children whose outputs are added."""
        limit = self._limit(difference, stream)
        fitting = [one for one in self._within(begun, ended) if not self._calls[one].depth]
        if limit is None or len(fitting) < 2:
            return None
        size = torch.linalg.vector_norm(difference, dim=1).clamp_min(_TINY)
        # Each token counts equally: a few have hundreds of times the norm of the others.
        rows = (self._y[fitting] / size[:, None]).flatten(1).double()
        target = (difference / size[:, None]).flatten().double()
        gram, dots = rows @ rows.T, rows @ target
        found = []
        for one, other in combinations(range(len(fitting)), 2):
            both = [one, other]
            scales = _solved(gram[both][:, both], dots[both])
            if scales is None:
                continue
            exact = [self._rounded(scale, limit, difference.shape[1]) for scale in scales]
            total = exact[0] * self._y[fitting[one]] + exact[1] * self._y[fitting[other]]
            error = float(((difference - total).norm(dim=1) / size).median())
            if error <= limit:
                terms = [
                    Term(self._calls[fitting[n]], scale)
                    for n, scale in zip(both, exact, strict=True)
                ]
                found.append((error, terms))
        if not found:
            return None
        least = min(error for error, _ in found)
        alike = [one for one in found if one[0] <= max(least * _ALIKE, 1e-6)]
        error, terms = min(
            alike, key=lambda one: sum(not term.call.has_parameters for term in one[1])
        )
        return Sum(tuple(sorted(terms, key=lambda term: term.call.ended)), error)

    def _within(self, begun: float, ended: float) -> list[int]:
        return [
            number
            for number, call in enumerate(self._calls)
            if call.ended > begun and call.ended <= ended
        ]

    def _limit(self, difference: Tensor, stream: Tensor) -> float | None:
        """The error that rounding explains; None if it explains everything."""
        size = torch.linalg.vector_norm(difference, dim=1)
        if not bool(size.isfinite().all()) or float(size.median()) == 0:
            return None
        rounding = float((self._eps * stream / size.clamp_min(_TINY)).median())
        return min(_CEILING, max(_FLOOR, rounding, 4 * self._eps))

    def _rounded(self, scale: float, limit: float, width: int) -> float:
        """The exact multiplier for a measured one."""
        slack = max(1e-4, 3 * limit / math.sqrt(width))
        for known in (1.0, *self._known):
            if abs(scale - known) <= slack * abs(known):
                return known
        return scale

    def _preference(self, number: int, scale: float) -> tuple[bool, bool, int, int]:
        call = self._calls[number]
        return scale != 1.0, not call.has_parameters, call.depth, call.begun
