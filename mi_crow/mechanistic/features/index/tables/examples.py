"""The examples of a feature: its top activations, and some from each quantile band."""

from dataclasses import dataclass

import torch
from torch import Tensor

from mi_crow.mechanistic.features.index.codes import FeatureBlock
from mi_crow.mechanistic.features.index.primitives import (
    bincount,
    nonzero,
    repeat,
    searchsorted,
)
from mi_crow.mechanistic.features.index.segments import (
    descending,
    group_starts,
    segment_least,
    segment_order,
    segment_ranks,
    starts_of,
)
from mi_crow.mechanistic.features.index.tables.bands import Drawn, from_bands


@dataclass(frozen=True)
class Pooled:
    """The strongest code of each (feature, document) that fired, by feature and document."""

    code: Tensor  # int64: index in the block; the first of equal ones
    feature: Tensor  # int64, counted from the block's first
    document: Tensor  # int32
    values: Tensor  # float32
    starts: Tensor  # int64 [features + 1]
    groups: Tensor  # int64: where each (feature, document) begins among the codes, and total
    order: Tensor  # int64: by feature, strongest first, ties in order of the documents


@dataclass(frozen=True)
class Chosen:
    """The examples of a block, by feature, band and rank."""

    code: Tensor  # int64: its place in the block
    band: Tensor  # int8
    rank: Tensor  # int16


@dataclass(frozen=True)
class Examples:
    """Chosen codes of a block with their windows, by feature, band and rank."""

    feature: Tensor  # int32, absolute
    band: Tensor  # int8
    rank: Tensor  # int16
    document: Tensor  # int32
    position: Tensor  # int32
    activation: Tensor  # float32
    window_start: Tensor  # int32
    window_length: Tensor  # int64
    acts: Tensor  # float32 [sum of lengths]


def pool(block: FeatureBlock) -> Pooled:
    """Max-pools the codes over documents."""
    groups = group_starts(block.feature, block.document)
    code = segment_least(groups, descending(block.values))
    feature = block.feature.index_select(0, code)
    values = block.values.index_select(0, code)
    starts = starts_of(bincount(feature, block.n_features))
    order = segment_order(starts, descending(values))
    document = block.document.index_select(0, code)
    return Pooled(code, feature, document, values, starts, groups, order)


def choose(block: FeatureBlock, pooled: Pooled, top: int, bands: int, in_band: int) -> Chosen:
    """A block's examples.

    Band 0 holds the `top` strongest documents. Bands 1 (highest) to `bands` cut each feature's
    activations into quantiles; of each come the `in_band` tokens of least draw, at most one a
    document.
    """
    rank = segment_ranks(pooled.starts, len(pooled.order))
    among = nonzero(rank < top)
    code = pooled.code.index_select(0, pooled.order.index_select(0, among))
    strongest = Drawn(code, torch.zeros_like(code), rank.index_select(0, among))
    drawn = [strongest]
    if bands and len(block.values):
        drawn.append(from_bands(block, bands, in_band))
    return _arranged(block, Drawn(*map(torch.cat, zip(*drawn, strict=True))), bands)


def _arranged(block: FeatureBlock, drawn: Drawn, bands: int) -> Chosen:
    """By feature, band and rank."""
    code, band, rank = drawn
    cells = block.feature.index_select(0, code) * (bands + 1) + band
    begins = starts_of(bincount(cells, block.n_features * (bands + 1)))
    place = begins.index_select(0, cells) + rank
    order = torch.empty_like(place).scatter_(0, place, torch.arange(len(place), device=code.device))
    return Chosen(
        code.index_select(0, order),
        band.index_select(0, order).to(torch.int8),
        rank.index_select(0, order).to(torch.int16),
    )


def with_windows(
    block: FeatureBlock, chosen: Chosen, document_lengths: Tensor, reach: int
) -> Examples:
    """Cuts the window of `reach` tokens either side around each chosen code.

    `document_lengths` int64 [documents] counts all tokens of each document, special ones included.
    """
    code = chosen.code
    feature = block.feature.index_select(0, code)
    document, position = (of.index_select(0, code) for of in (block.document, block.position))
    start = (position.long() - reach).clamp_(min=0)
    ends = document_lengths.index_select(0, document)
    length = torch.minimum(position + (reach + 1), ends) - start
    offsets = starts_of(length)
    acts = block.values.new_zeros(int(offsets[-1]))
    keys = _keys(block.feature, block.document, block.position)
    low = searchsorted(keys, _keys(feature, document, start))
    held = searchsorted(keys, _keys(feature, document, start + length)) - low
    found = starts_of(held)
    total = int(found[-1])
    inside = segment_ranks(found, total).add_(repeat(low, held, total))
    shift = repeat(offsets[:-1] - start, held, total)
    shift += block.position.index_select(0, inside)
    acts.scatter_(0, shift, block.values.index_select(0, inside))
    return Examples(
        (feature + block.first).int(),
        chosen.band,
        chosen.rank,
        document,
        position,
        block.values.index_select(0, code),
        start.int(),
        length,
        acts,
    )


def _keys(feature: Tensor, document: Tensor, position: Tensor) -> Tensor:
    """int64 in the order of (feature, document, position): 12, 29 and 22 bits."""
    keys = (feature << 29).bitwise_or_(document).bitwise_left_shift_(22)
    return keys.bitwise_or_(position)
