"""Co-activation: which features fire on the same tokens (Jaccard index).

Exact over all tokens up to EXACT_LATENTS latents, over a sample of tokens beyond that. Up to there
pairs are counted in a table of features x features, a few rows at a time, on any device (on a CPU
by compiled code where Numba is installed); beyond that such rows would be nearly empty, and the
pairs that occur are sorted instead. All of it runs on the device of the firing counts.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from mi_crow.mechanistic.features.index.codes import Chunk
from mi_crow.mechanistic.features.index.primitives import (
    bincount,
    by_numpy,
    nonzero,
    repeat,
    sorted_keys,
)
from mi_crow.mechanistic.features.index.segments import (
    DRAWS,
    descending,
    group_starts,
    segment_batches,
    segment_ids,
    segment_order,
    segment_ranks,
    starts_of,
)
from mi_crow.mechanistic.sae.kernels.compiled import cpu_kernels

EXACT_LATENTS = 16_384
SAMPLE_TOKENS = 200_000
_PAIRS = 1 << 21  # pairs sorted at once
# Counters that are held, and pairs that are added to them, at once; on the CPU both stay in the
# cache.
_CELLS = {"cpu": 1 << 20, "cuda": 1 << 25}
_ADDED = {"cpu": 1 << 19, "cuda": 1 << 22}


@dataclass(frozen=True)
class Coactivations:
    """Rows by feature, highest Jaccard index first."""

    feature: Tensor  # int32
    rank: Tensor  # int16
    other: Tensor  # int32
    count: Tensor  # int64: tokens on which both fire
    jaccard: Tensor  # float32


class TokenSample:
    """The tokens over which pairs are counted: those with the lowest random keys."""

    def __init__(self, n_tokens: int, n_latents: int) -> None:
        exact = n_latents <= EXACT_LATENTS or n_tokens <= SAMPLE_TOKENS
        # A threshold on the draw needs no second pass; the number of tokens is near what is asked.
        self.below: int = DRAWS if exact else int(SAMPLE_TOKENS / n_tokens * DRAWS)

    @property
    def is_all(self) -> bool:
        return self.below == DRAWS

    def holds(self, draw: Tensor) -> Tensor:
        return draw <= self.below - 1  # DRAWS itself is no int32

    def count(self, chunks: Sequence[Chunk]) -> int:
        """Tokens in the sample."""
        if self.is_all:
            return sum(len(chunk.draw) for chunk in chunks)
        return sum(int(self.holds(chunk.draw).sum()) for chunk in chunks)

    def fires(self, chunks: Sequence[Chunk], n_latents: int) -> Tensor:
        """Firings of each latent on these tokens: int64 [n_latents], on the CPU."""
        total = torch.zeros(n_latents, dtype=torch.int64)
        for chunk in chunks:
            if self.is_all:
                total += chunk.starts.diff()
            else:
                tokens = nonzero(self.holds(chunk.draw))
                latents = chunk.latents_of(tokens, chunk.firing(tokens))
                total += bincount(latents.long(), n_latents).cpu()
        return total


def coactivations(
    chunks: Sequence[Chunk],
    sample: TokenSample,
    fires: Tensor,
    features: range,
    count: int,
) -> Coactivations:
    """The `count` features with the highest Jaccard index of each of `features`.

    `fires` int64 [n_latents] counts firings on the tokens of the sample. Ties go by number. The
    work is done where `fires` is.
    """
    found = []
    if len(fires) <= EXACT_LATENTS:
        counting = _DenseCounts(chunks, fires)
        cells = _CELLS.get(fires.device.type, 1 << 22)
        step = max(1, cells // len(fires))
        for begin in range(features.start, features.stop, step):
            some = range(begin, min(begin + step, features.stop))
            found.append(_strongest(counting.strong_pairs(some, count), fires, some, count))
    else:
        starts = starts_of(_pair_counts(chunks, sample, features))
        for first, last in segment_batches(starts, _PAIRS):
            some = range(features.start + first, features.start + last)
            found.append(_strongest(_pairs(chunks, sample, some, fires), fires, some, count))
    columns = zip(*(vars(one).values() for one in found), strict=True)
    return Coactivations(*(torch.cat(column) for column in columns))


class _DenseCounts:
    """Pairs counted in rows of n_latents cells."""

    def __init__(self, chunks: Sequence[Chunk], fires: Tensor) -> None:
        self._chunks, self._device = chunks, fires.device
        # Counts up to 2^24 are exact in fp32. Latents that never fire have no pairs: 1 keeps their
        # ratios at 0.
        most = int(fires.max()) if len(fires) else 0
        kind = torch.float32 if 2 * most <= 1 << 24 else torch.float64
        self._fires = fires.clamp(min=1).to(kind)
        self._kernels = cpu_kernels() if by_numpy(fires) else None
        # Held, since fresh memory takes longer to touch than to add up.
        added = _ADDED.get(fires.device.type, 1 << 20) if self._kernels is None else 0
        self._keys = torch.empty(added, dtype=torch.int64, device=fires.device)
        self._ones = torch.ones(added, dtype=torch.int32, device=fires.device)

    def strong_pairs(self, features: range, count: int) -> tuple[Tensor, Tensor]:
        """Keys (feature - first) * n_latents + other and counts of the pairs that may be among the
        `count` most alike of a feature; int64, keys ascend."""
        both = self._counted(features)
        own = torch.arange(features.start, features.stop, device=self._device)
        both.scatter_(1, own[:, None], 0)
        # both / (a + b) orders pairs as the Jaccard index both / (a + b - both) does.
        alike = self._fires[own].unsqueeze(1) + self._fires
        torch.div(both, alike, out=alike)
        least = alike.topk(min(count, alike.shape[1]), dim=1).values[:, -1:]
        # A little below, for what rounding makes equal; ratios are far above the least positive
        # number, so that what never fires together stays out.
        least = (least * (1 - 1e-6)).clamp_min_(torch.finfo(alike.dtype).tiny)
        keys = nonzero((alike >= least).view(-1))
        return keys, both.view(-1).index_select(0, keys).long()

    def _counted(self, features: range) -> Tensor:
        """Tokens on which each of the features and each latent fire: int32 [features, M]."""
        n_latents = len(self._fires)
        found = torch.zeros(len(features), n_latents, dtype=torch.int32, device=self._device)
        for chunk in self._chunks:
            if self._kernels is not None:
                starts = chunk.starts[features.start : features.stop + 1]
                token_starts, latents = chunk.token_starts, chunk.latents
                self._kernels.count_together(found, starts, chunk.rows, token_starts, latents)
                continue
            feature, rows = _firings(chunk, features)
            self._add(found.view(-1), feature.mul_(n_latents), chunk, rows)
        return found

    def _add(self, found: Tensor, cells: Tensor, chunk: Chunk, rows: Tensor) -> None:
        """Adds 1 at cells [codes] + each latent of the tokens rows [codes], a cacheful at a
        time."""
        firing = chunk.firing(rows)
        for first, last in segment_batches(starts_of(firing).cpu(), len(self._keys)):
            some = slice(first, last)
            latents = chunk.latents_of(rows[some], firing[some])
            keys = self._keys[: len(latents)]
            keys.copy_(latents.to(self._device))
            keys += repeat(cells[some], firing[some], len(latents)).to(self._device)
            found.scatter_add_(0, keys, self._ones[: len(latents)])


def _firings(chunk: Chunk, features: range) -> tuple[Tensor, Tensor]:
    """The feature (int64, counted from the first) and token of each firing of the features, where
    the chunk is."""
    starts = chunk.starts[features.start : features.stop + 1]
    rows = chunk.rows[int(starts[0]) : int(starts[-1])]
    return segment_ids(starts.to(rows.device), len(rows)), rows


def _sampled_firings(
    chunk: Chunk, sample: TokenSample, features: range
) -> tuple[Tensor, Tensor, Tensor]:
    """`_firings` on the tokens of the sample, and how many latents fire on each of those."""
    feature, rows = _firings(chunk, features)
    if not sample.is_all:
        inside = nonzero(sample.holds(chunk.draw.index_select(0, rows)))
        feature, rows = feature.index_select(0, inside), rows.index_select(0, inside)
    return feature, rows, chunk.firing(rows)


def _pair_counts(chunks: Sequence[Chunk], sample: TokenSample, features: range) -> Tensor:
    """How many pairs, each as often as it occurs, the features have: int64 [features], on the
    CPU."""
    found = torch.zeros(len(features), dtype=torch.int64)
    for chunk in chunks:
        feature, _, firing = _sampled_firings(chunk, sample, features)
        found += torch.zeros_like(found, device=firing.device).index_add_(0, feature, firing).cpu()
    return found


def _pairs(
    chunks: Sequence[Chunk], sample: TokenSample, features: range, fires: Tensor
) -> tuple[Tensor, Tensor]:
    """Keys (feature - first) * n_latents + other that occur, and how often; keys ascend."""
    found = [torch.zeros(0, dtype=torch.int64, device=fires.device)]
    for chunk in chunks:
        feature, rows, firing = _sampled_firings(chunk, sample, features)
        latents = chunk.latents_of(rows, firing)
        keys = repeat(feature.mul_(len(fires)), firing, len(latents)).add_(latents)
        found.append(keys.to(fires.device))
    keys = sorted_keys(torch.cat(found))
    starts = group_starts(keys)
    return keys.index_select(0, starts[:-1]), starts.diff()


def _strongest(
    pairs: tuple[Tensor, Tensor], fires: Tensor, features: range, count: int
) -> Coactivations:
    keys, both = pairs
    feature = keys // len(fires)
    other = keys - feature * len(fires)
    keep = nonzero(other != feature + features.start)
    feature, other, both = (of.index_select(0, keep) for of in (feature, other, both))
    own = feature + features.start
    either = fires.index_select(0, own) + fires.index_select(0, other) - both
    jaccard = (both.double() / either).float()
    starts = starts_of(bincount(feature, len(features)))
    rank = segment_ranks(starts, len(feature))
    among = nonzero(rank < count)
    order = segment_order(starts, descending(jaccard)).index_select(0, among)
    return Coactivations(
        own.index_select(0, order).int(),
        rank.index_select(0, among).to(torch.int16),
        other.index_select(0, order).int(),
        both.index_select(0, order),
        jaccard.index_select(0, order),
    )
