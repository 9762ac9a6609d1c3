"""Allies of a feature: those that are strong in the texts it is about. Torch-free."""

from collections.abc import Sequence

import numpy as np

from mi_crow.mechanistic.features.queries import FeatureStore
from mi_crow.mechanistic.steering.measure.texts import Sides

MOST = 8
_APART = 0.5  # standard deviations that the means of the two sides must differ by
_LEAST = 0.1  # of the greatest weight


def allies_of(
    store: FeatureStore, texts: Sides, feature: int, most: int = MOST
) -> tuple[tuple[int, float], ...]:
    """`feature` and the features that tell the texts on its topic from others, with weights.

    This is the difference of means in the SAE's latents, refined to the most discriminative ones
    (SDCV, 2505.15038): of each feature's greatest activations in the training documents, those of
    the topic on the one side, the others on the other. A weight is that difference times the
    decoder row's norm, as a share of the greatest. The index keeps only the strongest features of
    each document: the others count as 0.
    """
    sides = [[one.number for one in some if not one.heldout] for some in texts]
    weight = told_apart(store, sides)
    weight[feature] = max(weight[feature], weight.max())
    order = np.argsort(-weight, kind="stable")[:most]
    greatest = weight[order[0]]
    if greatest <= 0:
        return ((feature, 1.0),)
    shares = [(int(one), round(float(weight[one] / greatest), 3)) for one in order]
    return tuple((one, share) for one, share in shares if share >= _LEAST)


def told_apart(store: FeatureStore, sides: Sequence[Sequence[int]]) -> np.ndarray:
    """How far each feature tells the documents of the first side from those of the second:
    [features], the difference of means times the decoder row's norm, 0 where that is less than half
    a standard deviation."""
    n = store.meta().n_features
    means, squares = np.zeros((2, n)), np.zeros((2, n))
    for place, documents in enumerate(sides):
        found = store.connection.columns(
            "SELECT feature, sum(max_act::DOUBLE) AS total, sum(max_act::DOUBLE ** 2) AS squares "
            "FROM idx.document_features WHERE document IN (SELECT unnest(?::INTEGER[])) "
            "GROUP BY feature ORDER BY feature",
            [documents],
        )
        means[place, found["feature"]] = found["total"] / max(len(documents), 1)
        squares[place, found["feature"]] = found["squares"] / max(len(documents), 1)
    norms = store.connection.columns(
        "SELECT feature, coalesce(decoder_norm::DOUBLE, 1.0) AS norm FROM idx.features"
    )
    norm = np.zeros(n)
    norm[norms["feature"]] = norms["norm"]
    apart = means[0] - means[1]
    spread = np.sqrt(np.maximum(squares - means**2, 0.0).mean(axis=0))
    return np.where(apart > _APART * spread, apart * norm, 0.0)
