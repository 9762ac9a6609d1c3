"""Counts, moments and histograms of each feature's activations; exact, NumPy."""

from dataclasses import dataclass

import numpy as np

from mi_crow.mechanistic.features.codes import FeatureBlock
from mi_crow.mechanistic.features.segments import value_bits

_FINEST = 18  # a bin is at least 1/32 of an octave wide
_COARSEST = 23  # one octave
_MOST_BINS = 64
_BELOW = 0.001  # share of the activations that may lie in the open first bin


@dataclass(frozen=True)
class Moments:
    """Of the activations of each feature over its firings; all zero where it never fires."""

    fires: np.ndarray  # int64 [features]
    max_act: np.ndarray  # float32
    mean_act: np.ndarray  # float64
    std_act: np.ndarray  # float64, divided by the number of firings


def moments(block: FeatureBlock) -> Moments:
    """Two passes in double precision, so that nothing cancels."""
    fires = np.diff(block.starts)
    alive = np.flatnonzero(fires)
    max_act = np.zeros(len(fires), dtype=np.float32)
    mean_act, std_act = np.zeros(len(fires)), np.zeros(len(fires))
    if len(alive):
        begins = block.starts[:-1][alive]
        values = block.values.astype(np.float64)
        max_act[alive] = np.maximum.reduceat(block.values, begins)
        mean_act[alive] = np.add.reduceat(values, begins) / fires[alive]
        values -= mean_act[block.feature]
        values *= values
        std_act[alive] = np.sqrt(np.add.reduceat(values, begins) / fires[alive])
    return Moments(fires, max_act, mean_act, std_act)


@dataclass(frozen=True)
class HistogramBins:
    """Bins that every feature shares, even in the logarithm within an octave's share.

    A bin is a range of a float's upper bits: a code's bin is one shift away and its edges are
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

    def histograms(self, block: FeatureBlock) -> np.ndarray:
        """Counts of each feature's activations: int32 [features, count]."""
        bins = (value_bits(block.values) >> np.uint32(self.shift)).astype(np.int64)
        bins -= self.base
        np.clip(bins, 0, self.count - 1, out=bins)
        bins += block.feature * self.count
        counts = np.bincount(bins, minlength=block.n_features * self.count)
        return counts.astype(np.int32).reshape(block.n_features, self.count)


class BinFitter:
    """Watches all activations and then fits the bins to their range."""

    def __init__(self) -> None:
        self._counts = np.zeros(1 << (31 - _FINEST), dtype=np.int64)

    def see(self, values: np.ndarray) -> None:
        """Takes notice of activations above 0."""
        bits = (value_bits(values) >> np.uint32(_FINEST)).astype(np.int64)
        self._counts += np.bincount(bits, minlength=len(self._counts))

    def bins(self) -> HistogramBins:
        """As fine as fits into the number of bins; the few smallest activations share the first."""
        seen = np.flatnonzero(self._counts)
        if not len(seen):
            return HistogramBins(_COARSEST, 127, 1)  # [1, 2), where nothing is
        below = np.searchsorted(np.cumsum(self._counts), _BELOW * self._counts.sum(), side="right")
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
