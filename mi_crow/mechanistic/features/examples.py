"""Which tokens stand for a feature: its strongest, and some from each quantile band; NumPy."""

from dataclasses import dataclass

import numpy as np

from mi_crow.mechanistic.features.codes import FeatureBlock
from mi_crow.mechanistic.features.segments import (
    descending,
    owners,
    places,
    runs,
    segment_order,
    starts_of,
    value_bits,
)

_LOW = np.uint64(0xFFFFFFFF)


@dataclass(frozen=True)
class Pooled:
    """The strongest code of each (feature, document) that fired, by feature and document."""

    code: np.ndarray  # int64: its place in the block; the first of equal ones
    feature: np.ndarray  # int64, counted from the block's first
    document: np.ndarray  # int32
    values: np.ndarray  # float32
    starts: np.ndarray  # int64 [features + 1]
    groups: np.ndarray  # int64: where each (feature, document) begins among the codes, and total
    order: np.ndarray  # int64: by feature, strongest first, ties in order of the documents


@dataclass(frozen=True)
class Examples:
    """Chosen codes of a block with their windows, by feature, band and rank."""

    feature: np.ndarray  # int32, absolute
    band: np.ndarray  # int8
    rank: np.ndarray  # int16
    document: np.ndarray  # int32
    position: np.ndarray  # int32
    activation: np.ndarray  # float32
    window_start: np.ndarray  # int32
    window_length: np.ndarray  # int64
    acts: np.ndarray  # float32 [sum of lengths]


def pool(block: FeatureBlock) -> Pooled:
    """Max-pools the codes over documents."""
    groups = runs(block.feature, block.document)
    begins = groups[:-1]
    # value | inverted place: the maximum is the strongest code, and the first of equal ones.
    packed = value_bits(block.values).astype(np.uint64) << np.uint64(32)
    packed |= _LOW - np.arange(len(block.values), dtype=np.uint64)
    best = np.maximum.reduceat(packed, begins) if len(begins) else packed
    code = (_LOW - (best & _LOW)).astype(np.int64)
    feature, values = block.feature[begins], block.values[code]
    starts = starts_of(np.bincount(feature, minlength=block.n_features))
    order = segment_order(starts, descending(values))
    return Pooled(code, feature, block.document[begins], values, starts, groups, order)


def choose(
    block: FeatureBlock, pooled: Pooled, top: int, bands: int, in_band: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Codes, bands and ranks of a block's examples, by feature, band and rank.

    Band 0 holds the `top` strongest documents. Bands 1 (highest) to `bands` cut each feature's
    activations into quantiles; of each come the `in_band` tokens of least draw, at most one a
    document.
    """
    rank = places(pooled.starts)
    strongest = pooled.order[rank < top]
    codes, numbers = [pooled.code[strongest]], [rank[rank < top]]
    labels = [np.zeros(len(strongest), dtype=np.int8)]
    if bands and len(block.values):
        band_of, group = _bands(block, bands), owners(pooled.groups)
        for band in range(1, bands + 1):
            inside = np.flatnonzero(band_of == band)
            chosen, ranks = _least_draws(block, group, inside, in_band)
            codes.append(chosen)
            numbers.append(ranks)
            labels.append(np.full(len(chosen), band, dtype=np.int8))
    code, band, number = np.concatenate(codes), np.concatenate(labels), np.concatenate(numbers)
    order = np.lexsort((number, band, block.feature[code]))
    return code[order], band[order], number[order]


def _bands(block: FeatureBlock, bands: int) -> np.ndarray:
    """The quantile band of each code, 1 the highest; equal activations share one: int8."""
    values = block.values[segment_order(block.starts, value_bits(block.values))]
    fires = np.diff(block.starts)
    band = np.full(len(values), bands, dtype=np.int8)
    for step in range(1, bands):
        place = block.starts[:-1] + fires * step // bands
        edge = values[np.minimum(place, len(values) - 1)]
        band -= block.values >= edge[block.feature]
    return band


def _least_draws(
    block: FeatureBlock, group: np.ndarray, inside: np.ndarray, count: int
) -> tuple[np.ndarray, np.ndarray]:
    """Codes and ranks: a feature's `count` least draws among the codes `inside`, one of each
    `group` [codes], which is a document of a feature."""
    packed = block.draw[inside].astype(np.uint64) << np.uint64(32)
    packed |= inside.astype(np.uint64)
    begins = runs(group[inside])[:-1]
    least = np.minimum.reduceat(packed, begins) if len(begins) else packed
    code = (least & _LOW).astype(np.int64)
    starts = starts_of(np.bincount(block.feature[code], minlength=block.n_features))
    order = segment_order(starts, block.draw[code])
    rank = places(starts)
    return code[order[rank < count]], rank[rank < count]


def with_windows(
    block: FeatureBlock,
    chosen: tuple[np.ndarray, np.ndarray, np.ndarray],
    document_lengths: np.ndarray,
    reach: int,
) -> Examples:
    """Cuts the window of `reach` tokens either side around each chosen code.

    `document_lengths` [documents] counts all tokens of each document, special ones included.
    """
    code, band, rank = chosen
    feature = block.feature[code]
    document, position = block.document[code], block.position[code].astype(np.int64)
    start = np.maximum(position - reach, 0)
    length = np.minimum(position + reach + 1, document_lengths[document]) - start
    offsets = starts_of(length)
    acts = np.zeros(int(offsets[-1]), dtype=np.float32)
    keys = _keys(block.feature, block.document, block.position)
    low = np.searchsorted(keys, _keys(feature, document, start))
    high = np.searchsorted(keys, _keys(feature, document, start + length))
    found = starts_of(high - low)
    inside = np.repeat(low, high - low) + places(found)
    example = owners(found)
    acts[offsets[example] + block.position[inside] - start[example]] = block.values[inside]
    return Examples(
        (feature + block.first).astype(np.int32),
        band,
        rank.astype(np.int16),
        document,
        position.astype(np.int32),
        block.values[code],
        start.astype(np.int32),
        length,
        acts,
    )


def _keys(feature: np.ndarray, document: np.ndarray, position: np.ndarray) -> np.ndarray:
    """uint64 in the order of (feature, document, position): 12, 30 and 22 bits."""
    keys = feature.astype(np.uint64) << np.uint64(52)
    keys |= document.astype(np.uint64) << np.uint64(22)
    keys |= position.astype(np.uint64)
    return keys
