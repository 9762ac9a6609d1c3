"""The strongest features of each document; NumPy."""

from dataclasses import dataclass

import numpy as np

from mi_crow.mechanistic.features.codes import Tokens
from mi_crow.mechanistic.features.segments import (
    descending,
    owners,
    places,
    runs,
    segment_order,
    sorted_codes,
    starts_of,
)

STRONGEST = 32


@dataclass(frozen=True)
class DocumentFeatures:
    """Rows by document, strongest feature first."""

    document: np.ndarray  # int32
    feature: np.ndarray  # int32
    max_act: np.ndarray  # float32
    fires: np.ndarray  # int32: tokens of the document on which the feature fires


def strongest_features(tokens: Tokens, n_latents: int, count: int = STRONGEST) -> DocumentFeatures:
    """The `count` features with the highest activation in each document (all its tokens given)."""
    active = tokens.values > 0
    spans = runs(tokens.document)
    documents, local = tokens.document[spans[:-1]], owners(spans)
    pair = (local[:, None] * n_latents + tokens.latents)[active]
    pair, _, values = sorted_codes(
        pair,
        np.zeros(len(pair), dtype=np.uint8),
        tokens.values[active],
        len(documents) * n_latents,
        1,
    )
    groups = runs(pair)
    begins = groups[:-1]
    document, feature = np.divmod(pair[begins], n_latents)
    max_act = np.maximum.reduceat(values, begins) if len(begins) else values
    starts = starts_of(np.bincount(document, minlength=len(documents)))
    order = segment_order(starts, descending(max_act))[places(starts) < count]
    return DocumentFeatures(
        documents[document[order]].astype(np.int32),
        feature[order].astype(np.int32),
        max_act[order],
        np.diff(groups)[order].astype(np.int32),
    )
