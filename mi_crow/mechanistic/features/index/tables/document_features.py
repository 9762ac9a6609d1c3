"""The strongest features of each document."""

from dataclasses import dataclass

from torch import Tensor

from mi_crow.mechanistic.features.index.codes import CodedTokens
from mi_crow.mechanistic.features.index.primitives import bincount, nonzero
from mi_crow.mechanistic.features.index.segments import (
    descending,
    group_starts,
    segment_ids,
    segment_order,
    segment_ranks,
    sorted_codes,
    starts_of,
)
from mi_crow.mechanistic.features.schema import STRONGEST


@dataclass(frozen=True)
class DocumentFeatures:
    """Rows by document, strongest feature first."""

    document: Tensor  # int32
    feature: Tensor  # int32
    max_act: Tensor  # float32
    fires: Tensor  # int32: tokens of the document on which the feature fires


def strongest_features(
    tokens: CodedTokens, n_latents: int, count: int = STRONGEST
) -> DocumentFeatures:
    """The `count` features with the highest activation in each document (all its tokens given)."""
    spans = group_starts(tokens.document)
    documents = tokens.document.index_select(0, spans[:-1])
    pairs = (segment_ids(spans, len(tokens.document)) * n_latents).index_select(0, tokens.rows)
    pairs += tokens.latents
    bits = max(len(documents) * n_latents - 1, 0).bit_length()
    pairs, values = sorted_codes(pairs, tokens.values, bits)
    groups = group_starts(pairs)
    pairs = pairs.index_select(0, groups[:-1])
    # Values ascend within a pair.
    max_act, fires = values.index_select(0, groups[1:] - 1), groups.diff()
    document = pairs // n_latents
    starts = starts_of(bincount(document, len(documents)))
    strongest = nonzero(segment_ranks(starts, len(pairs)) < count)
    order = segment_order(starts, descending(max_act)).index_select(0, strongest)
    document, pairs = document.index_select(0, order), pairs.index_select(0, order)
    return DocumentFeatures(
        documents.index_select(0, document),
        (pairs - document * n_latents).int(),
        max_act.index_select(0, order),
        fires.index_select(0, order).int(),
    )
