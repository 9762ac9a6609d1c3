"""Which features fire on the same tokens.

Exact over all tokens up to EXACT_LATENTS latents, beyond that over a sample of tokens. Up to there
pairs are counted in a table of features x features, a few rows at a time, on any device (on a CPU
by compiled code); beyond that such rows would be nearly empty, and the pairs that occur are sorted
instead. All of it happens on the device that the counts of firings are on.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from mi_crow.mechanistic.features.index.codes import Chunk
from mi_crow.mechanistic.features.index.primitives import by_numpy, counts, sorted_keys, where_true
from mi_crow.mechanistic.features.index.segments import (
    DRAWS,
    descending,
    owners,
    pieces,
    places,
    runs,
    segment_order,
    starts_of,
)
from mi_crow.mechanistic.sae.kernels.compiled import cpu_kernels

EXACT_LATENTS = 16_384
SAMPLE_TOKENS = 200_000
_PAIRS = 1 << 21  # pairs that are sorted at once
# Counters that are held, and pairs that are added to them, at once; on the CPU both stay in the
# cache.
_CELLS = {"cpu": 1 << 20, "cuda": 1 << 25}
_ADDED = {"cpu": 1 << 19, "cuda": 1 << 22}


@dataclass(frozen=True)
class Coactivations:
    """Rows by feature, most alike first."""

    feature: Tensor  # int32
    rank: Tensor  # int16
    other: Tensor  # int32
    count: Tensor  # int64: tokens on which both fire
    jaccard: Tensor  # float32


class TokenSample:
    """The tokens over which pairs are counted: those of least draw."""

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
                latents = chunk.latents.index_select(0, where_true(self.holds(chunk.draw)))
                total += counts(latents.view(-1).long(), n_latents + 1)[:n_latents].cpu()
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
        step = max(1, cells // (len(fires) + 1))
        for begin in range(features.start, features.stop, step):
            some = range(begin, min(begin + step, features.stop))
            found.append(_strongest(counting.strong_pairs(some, count), fires, some, count))
    else:
        width = max((chunk.latents.shape[1] for chunk in chunks), default=1)
        starts = starts_of(fires[features.start : features.stop] * width)
        for first, last in pieces(starts.cpu(), _PAIRS):
            some = range(features.start + first, features.start + last)
            found.append(_strongest(_pairs(chunks, sample, some, fires), fires, some, count))
    columns = zip(*(vars(one).values() for one in found), strict=True)
    return Coactivations(*(torch.cat(column) for column in columns))


class _DenseCounts:
    """Pairs counted in rows of n_latents + 1 cells; the last cell takes the inactive places."""

    def __init__(self, chunks: Sequence[Chunk], fires: Tensor) -> None:
        self._chunks, self._device = chunks, fires.device
        # Counts up to 2^24 are exact in fp32. The last place, and latents that never fire, have no
        # pairs: 1 keeps their ratios at 0.
        most = int(fires.max()) if len(fires) else 0
        kind = torch.float32 if 2 * most <= 1 << 24 else torch.float64
        self._fires = functional.pad(fires, (0, 1)).clamp_(min=1).to(kind)
        self._stride = len(fires) + 1
        self._kernels = cpu_kernels() if by_numpy(fires) else None
        # Held, since fresh memory takes longer to touch than to add up.
        added = _ADDED.get(fires.device.type, 1 << 20) if self._kernels is None else 0
        self._keys = torch.empty(added, dtype=torch.int64, device=fires.device)
        self._ones = torch.ones(added, dtype=torch.int32, device=fires.device)

    def strong_pairs(self, features: range, count: int) -> tuple[Tensor, Tensor]:
        """Keys (feature - first) * (n_latents + 1) + other and counts of the pairs that may be
        among the `count` most alike of a feature; int64, keys ascend."""
        both = self._counted(features)
        own = torch.arange(features.start, features.stop, device=self._device)
        both.scatter_(1, own[:, None], 0)
        both[:, -1] = 0
        # both / (a + b) orders pairs as the Jaccard index both / (a + b - both) does.
        alike = self._fires[own].unsqueeze(1) + self._fires
        torch.div(both, alike, out=alike)
        least = alike.topk(min(count, alike.shape[1]), dim=1).values[:, -1:]
        # A little below, for what rounding makes equal; ratios are far above the least positive
        # number, so that what never fires together stays out.
        least = (least * (1 - 1e-6)).clamp_min_(torch.finfo(alike.dtype).tiny)
        keys = where_true((alike >= least).view(-1))
        return keys, both.view(-1).index_select(0, keys).long()

    def _counted(self, features: range) -> Tensor:
        """Tokens on which each of the features and each latent fire: int32 [features, n + 1]."""
        shape = len(features), self._stride
        found = torch.zeros(shape, dtype=torch.int32, device=self._device)
        for chunk in self._chunks:
            if self._kernels is not None:
                starts = chunk.starts[features.start : features.stop + 1]
                self._kernels.count_together(found, starts, chunk.rows, chunk.latents)
                continue
            feature, rows = _firings(chunk, features)
            self._add(found.view(-1), feature.mul_(self._stride), chunk.latents, rows)
        return found

    def _add(self, found: Tensor, cells: Tensor, latents: Tensor, rows: Tensor) -> None:
        """Adds 1 at cells [codes] + latents[rows] [codes, k], a cacheful at a time."""
        step, k = max(1, len(self._keys) // latents.shape[1]), latents.shape[1]
        for first in range(0, len(rows), step):
            some = latents.index_select(0, rows[first : first + step]).to(self._device)
            keys = self._keys[: some.numel()].view(-1, k)
            keys.copy_(some)
            keys += cells[first : first + step].to(self._device)[:, None]
            found.scatter_add_(0, keys.view(-1), self._ones[: some.numel()])


def _firings(chunk: Chunk, features: range) -> tuple[Tensor, Tensor]:
    """The feature (int64, counted from the first) and token of each firing of the features, where
    the chunk is."""
    starts = chunk.starts[features.start : features.stop + 1]
    rows = chunk.rows[int(starts[0]) : int(starts[-1])]
    return owners(starts.to(rows.device), len(rows)), rows


def _pairs(
    chunks: Sequence[Chunk], sample: TokenSample, features: range, fires: Tensor
) -> tuple[Tensor, Tensor]:
    """Keys (feature - first) * (n_latents + 1) + other that occur, and how often; keys ascend."""
    stride = len(fires) + 1  # the last number stands for inactive places
    found = [torch.zeros(0, dtype=torch.int64, device=fires.device)]
    for chunk in chunks:
        feature, rows = _firings(chunk, features)
        if not sample.is_all:
            inside = where_true(sample.holds(chunk.draw.index_select(0, rows)))
            feature, rows = feature.index_select(0, inside), rows.index_select(0, inside)
        keys = chunk.latents.index_select(0, rows) + feature.mul_(stride)[:, None]
        found.append(keys.view(-1).to(fires.device))
    keys = sorted_keys(torch.cat(found))
    starts = runs(keys)
    return keys.index_select(0, starts[:-1]), starts.diff()


def _strongest(
    pairs: tuple[Tensor, Tensor], fires: Tensor, features: range, count: int
) -> Coactivations:
    keys, both = pairs
    feature = keys // (len(fires) + 1)
    other = keys - feature * (len(fires) + 1)
    keep = where_true((other < len(fires)) & (other != feature + features.start))
    feature, other, both = (of.index_select(0, keep) for of in (feature, other, both))
    own = feature + features.start
    either = fires.index_select(0, own) + fires.index_select(0, other) - both
    jaccard = (both.double() / either).float()
    starts = starts_of(counts(feature, len(features)))
    rank = places(starts, len(feature))
    among = where_true(rank < count)
    order = segment_order(starts, descending(jaccard)).index_select(0, among)
    return Coactivations(
        own.index_select(0, order).int(),
        rank.index_select(0, among).to(torch.int16),
        other.index_select(0, order).int(),
        both.index_select(0, order),
        jaccard.index_select(0, order),
    )
