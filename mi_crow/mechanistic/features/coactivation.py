"""Which features fire on the same tokens; NumPy.

Exact over all tokens up to EXACT_LATENTS latents, beyond that over a sample of tokens.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

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
_PAIRS = 1 << 21  # pairs that are counted at once
_CELLS = 1 << 18  # counters that stay in the cache


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
) -> Coactivations:
    """The `count` features with the highest Jaccard index of each of `features`.

    `fires` [n_latents] counts firings on the tokens of the sample. Ties go by number.
    """
    found = []
    width = max((chunk.latents.shape[1] for chunk in chunks), default=1)
    starts = starts_of(fires[features.start : features.stop] * width)
    for first, last in pieces(starts, _PAIRS):
        step = max(1, _CELLS // len(fires)) if len(fires) <= EXACT_LATENTS else last - first
        for begin in range(first, last, step):
            some = range(features.start + begin, features.start + min(begin + step, last))
            found.append(_strongest(_pairs(chunks, sample, some, len(fires)), fires, some, count))
    columns = zip(*(vars(one).values() for one in found), strict=True)
    return Coactivations(*(np.concatenate(column) for column in columns))


def _pairs(
    chunks: Sequence[Chunk], sample: TokenSample, features: range, n_latents: int
) -> tuple[np.ndarray, np.ndarray]:
    """Keys (feature - first) * (n_latents + 1) + other that occur, and how often; keys ascend."""
    stride = n_latents + 1  # the last column takes the inactive places
    dense = n_latents <= EXACT_LATENTS
    counts = np.zeros(len(features) * stride if dense else 0, dtype=np.int64)
    loose = []
    for chunk in chunks:
        starts = np.asarray(chunk.starts[features.start : features.stop + 1])
        rows = chunk.rows[int(starts[0]) : int(starts[-1])]
        feature = owners(starts)
        if not sample.is_all:
            inside = sample.holds(chunk.draw[rows])
            rows, feature = rows[inside], feature[inside]
        keys = (feature * stride)[:, None] + chunk.latents[rows]
        if dense:
            counts += np.bincount(keys.ravel(), minlength=len(counts))
        else:
            loose.append(keys.ravel())
    if dense:
        keys = np.flatnonzero(counts)
        return keys, counts[keys]
    return np.unique(np.concatenate(loose) if loose else counts, return_counts=True)


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
