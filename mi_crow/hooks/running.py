"""A detector that keeps statistics instead of activations, however many passes there are."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from mi_crow.bounds import COUNT, FACTOR
from mi_crow.hooks.hook import Detector, HookType, HookWhen
from mi_crow.hooks.tensors import first_tensor

_BINS = 32

Rows = Callable[[Tensor], Tensor]
"""Which rows of activations [..., d] count: bool [...]."""


@dataclass
class GrowingHistogram:
    """Counts of values of 0 and more in equal bins from 0 on. A value beyond the last bin doubles
    the width of all, so that nothing is known of the range in advance."""

    width: float = 0.0
    counts: list[int] = field(default_factory=lambda: [0] * _BINS)

    def add(self, values: Tensor) -> None:
        """Adds finite values; others are left out."""
        values = values[values.isfinite()].flatten().double()
        if not len(values):
            return
        top = float(values.max())
        if self.width == 0.0:
            self.width = (top or 1.0) / _BINS
        while top > self.width * _BINS:
            pairs = zip(self.counts[::2], self.counts[1::2], strict=True)
            self.counts = [one + other for one, other in pairs] + [0] * (_BINS // 2)
            self.width *= 2
        places = (values / self.width).long().clamp(0, _BINS - 1)
        found = torch.bincount(places, minlength=_BINS).tolist()
        self.counts = [one + more for one, more in zip(self.counts, found, strict=True)]

    @property
    def edges(self) -> list[float]:
        """Where the bins begin and, last, where the last one ends."""
        return [self.width * n for n in range(_BINS + 1)]


class StatisticsDetector(Detector):
    """Mean and variance of each unit, a histogram of the rows' norms, and the greatest of them.

    Means and variances of passes are merged as in Chan et al. 1979 (eq. 2.1), in fp64. `warn_above`
    is an early warning: `warnings` counts the rows with a greater norm, or with a value that is not
    finite, and `on_warning` is called with how many a pass has. Rows that are not finite count
    nowhere else. `rows` chooses which of them count; all without it.
    """

    def __init__(
        self,
        layer_signature: str | int | None = None,
        *,
        top: int = 8,
        warn_above: float | None = None,
        on_warning: Callable[[int], object] | None = None,
        rows: Rows | None = None,
        hook_type: HookWhen = HookType.FORWARD,
        hook_id: str | None = None,
    ) -> None:
        """Raises UserError for a threshold that is not above 0, or `top` below 1."""
        super().__init__(layer_signature, hook_type, hook_id)
        COUNT.check(top, "the number of top tokens")
        FACTOR.check(warn_above, "the warning threshold")
        self._most, self._warn_above, self._on_warning = top, warn_above, on_warning
        self._rows = rows
        self.clear_captured()

    def clear_captured(self) -> None:
        """Begins anew."""
        super().clear_captured()
        self.count: int = 0
        self.passes: int = 0
        self.warnings: int = 0
        self.histogram: GrowingHistogram = GrowingHistogram()
        self.top: list[tuple[float, int, int]] = []  # norm, pass, row within it; greatest first
        self._mean: Tensor | None = None
        self._squares: Tensor | None = None  # summed squared distances from the mean

    @property
    def mean(self) -> Tensor | None:
        """Mean of each unit, fp64 [d]; None before the first row."""
        return self._mean

    @property
    def variance(self) -> Tensor | None:
        """Variance of each unit over all rows (not the sample's), fp64 [d]."""
        return None if self._squares is None else self._squares / self.count

    @torch.no_grad()
    def process_activations(self, module: Any, inputs: Any, output: Any) -> None:
        x = first_tensor(output if output is not None else inputs).detach()
        rows = x.reshape(-1, x.shape[-1]).double()
        kept = torch.ones(len(rows), dtype=torch.bool, device=rows.device)
        if self._rows is not None:
            kept = self._rows(x).reshape(-1)
        finite = rows.isfinite().all(dim=-1)
        norms = torch.linalg.vector_norm(rows, dim=-1)
        self._warn(kept & ~finite, kept & finite, norms)
        kept &= finite
        self._remember(norms, kept)
        self.histogram.add(norms[kept])
        self._merge(rows[kept])
        self.passes += 1

    def _warn(self, broken: Tensor, sound: Tensor, norms: Tensor) -> None:
        if self._warn_above is None:
            return
        found = int(broken.sum()) + int((sound & (norms > self._warn_above)).sum())
        self.warnings += found
        if found and self._on_warning is not None:
            self._on_warning(found)

    def _remember(self, norms: Tensor, kept: Tensor) -> None:
        places = kept.nonzero()[:, 0]
        best = norms[places].topk(min(self._most, len(places)))
        where = places[best.indices].tolist()
        here = [
            (norm, self.passes, row) for norm, row in zip(best.values.tolist(), where, strict=True)
        ]
        self.top = sorted([*self.top, *here], key=lambda one: -one[0])[: self._most]

    def _merge(self, rows: Tensor) -> None:
        if not len(rows):
            return
        mean = rows.mean(dim=0)
        squares = (rows - mean).square().sum(dim=0)
        if self._mean is None or self._squares is None:
            self._mean, self._squares, self.count = mean, squares, len(rows)
            return
        total = self.count + len(rows)
        apart = mean - self._mean
        self._squares = self._squares + squares + apart.square() * self.count * len(rows) / total
        self._mean = self._mean + apart * len(rows) / total
        self.count = total

    def get_captured(self) -> dict[str, Any]:
        """Everything that is known, as plain values; norms are L2 norms of rows."""
        mean, variance = self.mean, self.variance
        return {
            "count": self.count,
            "mean": None if mean is None else float(mean.mean()),
            "std": None if variance is None else float(variance.mean().sqrt()),
            "histogram": self.histogram.counts,
            "edges": self.histogram.edges,
            "top": self.top,
            "warnings": self.warnings,
        }

    def units(self, most: int = 8) -> Sequence[tuple[int, float]]:
        """The units with the greatest variance, each with its standard deviation."""
        variance = self.variance
        if variance is None:
            return []
        best = variance.topk(min(most, len(variance)))
        return list(zip(best.indices.tolist(), best.values.sqrt().tolist(), strict=True))
