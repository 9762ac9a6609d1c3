"""Which features fire on a text, as far as the indexed documents that hold it can tell.

Torch-free: no model runs. For a text of one's own, token by token, there is `mi-crow inspect`.
"""

from typing import NamedTuple

import numpy as np

from mi_crow.mechanistic.features.connection import IndexConnection
from mi_crow.mechanistic.features.search import documents_with, search_words


class TextFeatures(NamedTuple):
    """Features of the documents that hold a text, the most telling first."""

    matching: int  # documents that hold all words of the text
    feature: np.ndarray  # int32 [n]
    documents: np.ndarray  # int64 [n]: of those, in how many it is among the strongest
    strength: np.ndarray  # float64 [n]: see `features_on_text`


def features_on_text(connection: IndexConnection, max_act: np.ndarray, text: str) -> TextFeatures:
    """Ranks the features of all documents that hold every word of `text`.

    `max_act` [n_features] is each feature's greatest activation. A feature's strength is its
    greatest activation in a document as a share of `max_act`, averaged over the matching
    documents, 0 in those where it is not among the strongest: what fires everywhere a little
    comes behind what fires here as nowhere else.
    """
    words = search_words(text)
    documents = documents_with(connection, words) if words else np.zeros(0, dtype=np.int32)
    found = connection.columns(
        "SELECT feature, max_act FROM idx.document_features WHERE document IN (SELECT unnest(?))",
        [documents.tolist()],
    )
    feature = found["feature"]
    share = found["max_act"] / np.maximum(max_act[feature], np.finfo(np.float32).tiny)
    counts = np.bincount(feature, minlength=len(max_act))
    strength = np.bincount(feature, weights=share, minlength=len(max_act))
    seen = np.flatnonzero(counts)
    order = seen[np.argsort(-strength[seen], kind="stable")]
    return TextFeatures(
        len(documents),
        order.astype(np.int32),
        counts[order],
        strength[order] / max(len(documents), 1),
    )
