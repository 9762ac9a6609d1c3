"""Which features fire on the indexed documents that contain a text.

Torch-free: no model runs. `mi-crow inspect` shows any text token by token.
"""

from typing import NamedTuple

import numpy as np

from mi_crow.mechanistic.features.connection import IndexConnection
from mi_crow.mechanistic.features.search import documents_with, search_words


class TextFeatures(NamedTuple):
    """Features of the documents that contain a text, strongest first."""

    matching: int  # documents that contain all words of the text
    feature: np.ndarray  # int32 [n]
    documents: np.ndarray  # int64 [n]: in how many of those it is among the strongest
    strength: np.ndarray  # float64 [n]: see `features_on_text`


def features_on_text(connection: IndexConnection, max_act: np.ndarray, text: str) -> TextFeatures:
    """Ranks the features of all documents that contain every word of `text`.

    `max_act` [n_features] is each feature's maximum activation. A feature's strength is its maximum
    in a document as a share of `max_act`, averaged over the matching documents, 0 in those where
    it is not among the strongest: features that fire a little everywhere come after those that
    fire most strongly here.
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
