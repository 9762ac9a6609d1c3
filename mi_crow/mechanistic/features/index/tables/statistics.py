"""Counts, moments and histograms of each feature's activations; exact."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from mi_crow.mechanistic.features.index.codes import FeatureBlock
from mi_crow.mechanistic.features.index.primitives import (
    bincount,
    nonzero,
    segment_max,
    segment_sum,
)
from mi_crow.mechanistic.features.index.segments import value_bits

_FINEST = 18  # a bin is at least 1/32 of an octave wide
_COARSEST = 23  # one octave
_MOST_BINS = 64
_BELOW = 0.001  # share of the activations that may lie in the open first bin


@dataclass(frozen=True)
class Moments:
    """Of the activations of each feature over its firings; all zero where it never fires."""

    fires: Tensor  # int64 [features]
    max_act: Tensor  # float32
    mean_act: Tensor  # float64
    std_act: Tensor  # float64, divided by the number of firings


def moments(block: FeatureBlock) -> Moments:
    """Two passes in double precision, to avoid cancellation."""
    fires = block.starts.diff()
    alive = nonzero(fires > 0)
    # Features without codes lie between those of others: without them no segment is empty.
    starts = torch.cat([block.starts.index_select(0, alive), block.starts[-1:]])
    count = fires.index_select(0, alive)
    values = block.values.double()
    mean = values.new_zeros(len(fires))
    mean[alive] = segment_sum(values, starts) / count
    values -= mean.index_select(0, block.feature)
    values *= values
    std = torch.zeros_like(mean)
    std[alive] = torch.sqrt(segment_sum(values, starts) / count)
    greatest = block.values.new_zeros(len(fires))
    greatest[alive] = segment_max(block.values, starts)
    return Moments(fires, greatest, mean, std)


@dataclass(frozen=True)
class HistogramBins:
    """Bins shared by all features, evenly spaced within each octave or fraction of one.

    A bin is a range of a float's upper bits: one shift gives the bin of a code, and edges are
    exact. The first bin is open below.
    """

    shift: int
    base: int  # upper bits of the first bin
    count: int

    @property
    def edges(self) -> list[float]:
        """Ascending, one more than there are bins; a value on an edge belongs to the bin above."""
        bits = np.arange(self.base, self.base + self.count + 1, dtype=np.int64) << self.shift
        edges = bits.astype(np.uint32).view(np.float32).tolist()
        return [0.0, *edges[1:]]

    def histograms(self, block: FeatureBlock) -> Tensor:
        """Counts of each feature's activations: int32 [features, count]."""
        bins = (value_bits(block.values) >> self.shift).sub_(self.base).clamp_(0, self.count - 1)
        cells = block.feature * self.count
        cells += bins
        found = bincount(cells, block.n_features * self.count)
        return found.int().view(block.n_features, self.count)


class BinFitter:
    """Counts all activations and then fits the bins to their range."""

    def __init__(self) -> None:
        self.counts: Tensor = torch.zeros(1 << (31 - _FINEST), dtype=torch.int64)

    @staticmethod
    def counted(values: Tensor) -> Tensor:
        """What `add` takes of float32 activations [n] above 0."""
        bits = (value_bits(values) >> _FINEST).long()
        return bincount(bits, 1 << (31 - _FINEST))

    def add(self, counted: Tensor) -> None:
        self.counts = self.counts.to(counted.device) + counted

    def bins(self) -> HistogramBins:
        """As fine as the number of bins allows; the few smallest activations share the first."""
        count = self.counts.cpu().numpy()
        seen = np.flatnonzero(count)
        if not len(seen):
            return HistogramBins(_COARSEST, 127, 1)  # [1, 2), where nothing is
        below = np.searchsorted(np.cumsum(count), _BELOW * count.sum(), side="right")
        low, high = int(below), int(seen[-1])
        for shift in range(_FINEST, _COARSEST):
            coarser = shift - _FINEST
            if (high >> coarser) - (low >> coarser) < _MOST_BINS:
                return HistogramBins(
                    shift, low >> coarser, (high >> coarser) - (low >> coarser) + 1
                )
        coarser = _COARSEST - _FINEST
        low, high = low >> coarser, high >> coarser
        low = max(low, high - _MOST_BINS + 1)
        return HistogramBins(_COARSEST, low, high - low + 1)
