"""Rivals of a feature: those that are strong in other texts, found without labels. Torch-free."""

import numpy as np

from mi_crow.mechanistic.features.queries import FeatureStore

MOST = 160
_SHARE = 0.1  # of all features, at most


def rivals_of(store: FeatureStore, feature: int, most: int = MOST) -> tuple[int, ...]:
    """The features whose document maxima are anti-correlated with those of `feature`, the
    strongest by -correlation x energy, the energy being the mean square that they add to a
    document; the strongest first.

    The index keeps only the strongest features of each document: the others count as 0.
    """
    connection, total = store.connection, store.meta().n_documents
    sums = connection.columns(
        "SELECT feature, sum(max_act::DOUBLE) AS total, sum(max_act::DOUBLE ** 2) AS squares "
        "FROM idx.document_features GROUP BY feature ORDER BY feature"
    )
    shared = connection.columns(
        "SELECT o.feature AS feature, sum(o.max_act::DOUBLE * t.max_act) AS product "
        "FROM idx.document_features t JOIN idx.document_features o USING (document) "
        "WHERE t.feature = ? GROUP BY o.feature",
        [feature],
    )
    norms = connection.columns(
        "SELECT feature, coalesce(decoder_norm::DOUBLE, 1.0) AS norm FROM idx.features"
    )
    n = store.meta().n_features
    mean, square, product, norm = (np.zeros(n) for _ in range(4))
    mean[sums["feature"]] = sums["total"] / total
    square[sums["feature"]] = sums["squares"] / total
    product[shared["feature"]] = shared["product"] / total
    norm[norms["feature"]] = norms["norm"]
    spread = np.sqrt(np.maximum(square - mean**2, 0.0))
    below = spread * spread[feature]
    correlation = np.divide(product - mean * mean[feature], below, out=np.zeros(n), where=below > 0)
    score = -correlation * square * norm**2
    order = np.argsort(-score, kind="stable")[: min(most, max(1, int(n * _SHARE)))]
    return tuple(int(other) for other in order if score[other] > 0 and other != feature)
