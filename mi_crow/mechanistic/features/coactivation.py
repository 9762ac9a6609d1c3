"""Which features fire on the same tokens.

Exact over all tokens up to EXACT_LATENTS latents, beyond that over a sample of tokens. Up to there
pairs are counted in a table of features x features, a few rows at a time, on any device; beyond
that such rows would be nearly empty, and the pairs that occur are sorted instead (NumPy).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from mi_crow.mechanistic.features.codes import Chunk
from mi_crow.mechanistic.features.segments import (
    descending,
    owners,
    pieces,
    places,
    segment_order,
    starts_of,
)

EXACT_LATENTS = 16_384
SAMPLE_TOKENS = 200_000
_PAIRS = 1 << 21  # pairs that are sorted at once
_CELLS = 1 << 22  # counters that are held at once
# Pairs that are added to the counters at once; on the CPU their keys stay in the cache.
_ADDED = {"cpu": 1 << 17, "cuda": 1 << 24}


@dataclass(frozen=True)
class Coactivations:
    """Rows by feature, most alike first."""

    feature: np.ndarray  # int32
    rank: np.ndarray  # int16
    other: np.ndarray  # int32
    count: np.ndarray  # int64: tokens on which both fire
    jaccard: np.ndarray  # float32


class TokenSample:
    """The tokens over which pairs are counted: those of least draw."""

    def __init__(self, n_tokens: int, n_latents: int) -> None:
        exact = n_latents <= EXACT_LATENTS or n_tokens <= SAMPLE_TOKENS
        # A threshold on the draw needs no second pass; the number of tokens is near what is asked.
        self.threshold = 1 << 32 if exact else int(SAMPLE_TOKENS / n_tokens * (1 << 32))

    @property
    def is_all(self) -> bool:
        return self.threshold == 1 << 32

    def holds(self, draw: np.ndarray) -> np.ndarray:
        return draw < self.threshold

    def count(self, chunks: Sequence[Chunk]) -> int:
        """Tokens in the sample."""
        if self.is_all:
            return sum(len(chunk.draw) for chunk in chunks)
        return sum(int(self.holds(chunk.draw).sum()) for chunk in chunks)

    def fires(self, chunks: Sequence[Chunk], n_latents: int) -> np.ndarray:
        """Firings of each latent on these tokens: int64 [n_latents]."""
        total = np.zeros(n_latents, dtype=np.int64)
        for chunk in chunks:
            if self.is_all:
                total += np.diff(chunk.starts)
            else:
                latents = chunk.latents[self.holds(chunk.draw)].ravel()
                total += np.bincount(latents, minlength=n_latents + 1)[:n_latents]
        return total


def coactivations(
    chunks: Sequence[Chunk],
    sample: TokenSample,
    fires: np.ndarray,
    features: range,
    count: int,
    device: torch.device | str = "cpu",
) -> Coactivations:
    """The `count` features with the highest Jaccard index of each of `features`.

    `fires` [n_latents] counts firings on the tokens of the sample. Ties go by number. Dense
    counting runs on `device`.
    """
    found = []
    if len(fires) <= EXACT_LATENTS:
        counting = _DenseCounts(chunks, sample, fires, torch.device(device))
        step = max(1, _CELLS // (len(fires) + 1))
        for begin in range(features.start, features.stop, step):
            some = range(begin, min(begin + step, features.stop))
            found.append(_strongest(counting.strong_pairs(some, count), fires, some, count))
    else:
        width = max((chunk.latents.shape[1] for chunk in chunks), default=1)
        starts = starts_of(fires[features.start : features.stop] * width)
        for first, last in pieces(starts, _PAIRS):
            some = range(features.start + first, features.start + last)
            found.append(_strongest(_pairs(chunks, sample, some, len(fires)), fires, some, count))
    columns = zip(*(vars(one).values() for one in found), strict=True)
    return Coactivations(*(np.concatenate(column) for column in columns))


class _DenseCounts:
    """Pairs counted in rows of n_latents + 1 cells; the last cell takes the inactive places."""

    def __init__(
        self,
        chunks: Sequence[Chunk],
        sample: TokenSample,
        fires: np.ndarray,
        device: torch.device,
    ) -> None:
        self._chunks, self._sample, self._device = chunks, sample, device
        # Counts up to 2^24 are exact in fp32, and so is the order of their ratios.
        kind = torch.float32 if 2 * int(fires.max(initial=0)) <= 1 << 24 else torch.float64
        self._fires = torch.from_numpy(fires).to(device, kind)
        self._stride = len(fires) + 1

    def strong_pairs(self, features: range, count: int) -> tuple[np.ndarray, np.ndarray]:
        """Keys (feature - first) * (n_latents + 1) + other and counts of the pairs that may be
        among the `count` most alike of a feature; keys ascend."""
        both = self._counted(features).view(len(features), self._stride)[:, :-1]
        own = torch.arange(features.start, features.stop, device=self._device)
        both.scatter_(1, own[:, None], 0)
        alike = both.to(self._fires.dtype)
        either = self._fires[own].unsqueeze(1) + self._fires
        either -= alike
        alike /= either.clamp_min_(1)  # 0 where neither ever fires
        least = alike.topk(min(count, alike.shape[1]), dim=1).values[:, -1:]
        # Ratios are far above the least positive number: what never fires together stays out.
        row, other = (alike >= least.clamp_min_(torch.finfo(alike.dtype).tiny)).nonzero(
            as_tuple=True
        )
        keys = row * self._stride + other
        return keys.cpu().numpy(), both[row, other].cpu().numpy().astype(np.int64)

    def _counted(self, features: range) -> Tensor:
        """Tokens on which each of the features and each latent fire: int32, row after row."""
        counts = torch.zeros(len(features) * self._stride, dtype=torch.int32, device=self._device)
        for chunk in self._chunks:
            starts = np.asarray(chunk.starts[features.start : features.stop + 1])
            rows = chunk.rows[int(starts[0]) : int(starts[-1])]
            cells = owners(starts) * self._stride
            if not self._sample.is_all:
                inside = self._sample.holds(chunk.draw[rows])
                rows, cells = rows[inside], cells[inside]
            self._add(counts, cells, chunk.latents[rows])
        return counts

    def _add(self, counts: Tensor, cells: np.ndarray, latents: np.ndarray) -> None:
        """Adds 1 at cells [codes] + latents [codes, k], a cacheful at a time."""
        step = max(1, _ADDED.get(self._device.type, 1 << 20) // latents.shape[1])
        ones = counts.new_ones(1).expand(step * latents.shape[1])
        for first in range(0, len(cells), step):
            some = torch.from_numpy(latents[first : first + step]).to(self._device)
            begins = torch.from_numpy(cells[first : first + step]).to(self._device)
            keys = (some.to(torch.int64) + begins[:, None]).view(-1)
            counts.scatter_add_(0, keys, ones[: len(keys)])


def _pairs(
    chunks: Sequence[Chunk], sample: TokenSample, features: range, n_latents: int
) -> tuple[np.ndarray, np.ndarray]:
    """Keys (feature - first) * (n_latents + 1) + other that occur, and how often; keys ascend."""
    stride = n_latents + 1  # the last number stands for inactive places
    found = [np.zeros(0, dtype=np.int64)]
    for chunk in chunks:
        starts = np.asarray(chunk.starts[features.start : features.stop + 1])
        rows = chunk.rows[int(starts[0]) : int(starts[-1])]
        feature = owners(starts)
        if not sample.is_all:
            inside = sample.holds(chunk.draw[rows])
            rows, feature = rows[inside], feature[inside]
        found.append(((feature * stride)[:, None] + chunk.latents[rows]).ravel())
    return np.unique(np.concatenate(found), return_counts=True)


def _strongest(
    pairs: tuple[np.ndarray, np.ndarray], fires: np.ndarray, features: range, count: int
) -> Coactivations:
    keys, both = pairs
    feature, other = np.divmod(keys, len(fires) + 1)
    keep = (other < len(fires)) & (other != feature + features.start)
    feature, other, both = feature[keep], other[keep], both[keep]
    either = fires[feature + features.start] + fires[other] - both
    jaccard = (both / either).astype(np.float32)
    starts = starts_of(np.bincount(feature, minlength=len(features)))
    rank = places(starts)
    order = segment_order(starts, descending(jaccard))[rank < count]
    return Coactivations(
        (feature[order] + features.start).astype(np.int32),
        rank[rank < count].astype(np.int16),
        other[order].astype(np.int32),
        both[order],
        jaccard[order],
    )
