"""Tokens from the whole range of a feature's activations: some of each quantile band."""

from typing import NamedTuple

import torch
from torch import Tensor

from mi_crow.mechanistic.features.index.codes import FeatureBlock
from mi_crow.mechanistic.features.index.primitives import bincount, nonzero
from mi_crow.mechanistic.features.index.segments import (
    DRAWS,
    group_starts,
    segment_least,
    segment_order,
    segment_ranks,
    starts_of,
    value_bits,
)


class Drawn(NamedTuple):
    """Codes of a block with their place among those of the same feature and band."""

    code: Tensor  # int64: its place in the block
    band: Tensor  # int64, from 1, the highest
    rank: Tensor  # int64


def from_bands(block: FeatureBlock, bands: int, in_band: int) -> Drawn:
    """The `in_band` tokens of least draw in each band, at most one a document, of a block that has
    codes. Bands 1 (highest) to `bands` cut each feature's activations into quantiles.

    They are looked for among the codes of least draw, several times as many as are wanted. Where
    these do not do (a feature of few documents, bands that hold few of many equal activations) all
    codes of the feature are looked at.
    """
    edges = _edges(block, bands)
    few, cut = _few(block, bands, in_band)
    drawn = _drawn(block, few, edges, in_band)
    cells = block.feature.index_select(0, drawn.code) * bands + (drawn.band - 1)
    found = bincount(cells, block.n_features * bands).view(-1, bands)
    lacking = cut & (found < in_band).any(dim=1)
    done = nonzero(~lacking.index_select(0, block.feature.index_select(0, drawn.code)))
    rest = nonzero(lacking.index_select(0, block.feature))
    more = _drawn(block, rest, edges, in_band)
    both = zip(drawn, more, strict=True)
    return Drawn(*(torch.cat([one.index_select(0, done), other]) for one, other in both))


def _edges(block: FeatureBlock, bands: int) -> list[Tensor]:
    """The least activation of all bands but the lowest, lowest first: float32 [features] each.

    Equal activations share one band.
    """
    order = segment_order(block.starts, value_bits(block.values))
    fires, edges = block.starts.diff(), []
    for step in range(1, bands):
        place = (block.starts[:-1] + fires * step // bands).clamp_(max=len(order) - 1)
        edges.append(block.values.index_select(0, order.index_select(0, place)))
    return edges


def _few(block: FeatureBlock, bands: int, in_band: int) -> tuple[Tensor, Tensor]:
    """Codes of each feature's least draws, several times as many as are wanted, and of which
    features these are not all: int64 [codes], bool [features]."""
    wanted = bands * (8 * in_band + 16)
    share = wanted / block.starts.diff().clamp(min=1).double()
    most = (share.clamp(max=1) * DRAWS - 1).clamp_(min=0).int()  # DRAWS itself is no int32
    few = nonzero(block.draw <= most.index_select(0, block.feature))
    return few, share < 1


def _drawn(block: FeatureBlock, codes: Tensor, edges: list[Tensor], in_band: int) -> Drawn:
    """The `in_band` least draws among these codes in each band of each feature."""
    feature = block.feature.index_select(0, codes)
    values = block.values.index_select(0, codes)
    band = torch.full_like(feature, len(edges) + 1)
    for edge in edges:
        band -= (values >= edge.index_select(0, feature)).long()
    found = []
    for number in range(1, len(edges) + 2):
        inside = codes.index_select(0, nonzero(band == number))
        code, rank = _least_draws(block, inside, in_band)
        found.append(Drawn(code, torch.full_like(code, number), rank))
    return Drawn(*(torch.cat(of) for of in zip(*found, strict=True)))


def _least_draws(block: FeatureBlock, codes: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Codes and ranks: a feature's `count` least draws among these, one of each document."""
    columns = (of.index_select(0, codes) for of in (block.feature, block.document))
    draw = block.draw.index_select(0, codes)
    least = segment_least(group_starts(*columns), draw)  # of each document
    codes, draw = codes.index_select(0, least), draw.index_select(0, least)
    starts = starts_of(bincount(block.feature.index_select(0, codes), block.n_features))
    rank = segment_ranks(starts, len(codes))
    among = nonzero(rank < count)
    order = segment_order(starts, draw).index_select(0, among)
    return codes.index_select(0, order), rank.index_select(0, among)
