"""The features that tell a label from others, the likeliest to steer first. Torch-free."""

from math import sqrt

import numpy as np

from mi_crow.mechanistic.features.queries import FeatureStore

MOST = 3


def detectors_of(store: FeatureStore, label: str, most: int = MOST) -> tuple[int, ...]:
    """The features whose AUROC for `label` is the best, or as good within its standard error; none
    where no feature tells the label.

    Many features may tell a label as well as the best one, of which some fire in few of its texts
    or barely change them: the first is the one whose activation, times its decoder row's norm, is
    greatest on the label's documents by comparison with the others. Training documents only.
    """
    found = store.connection.columns(
        "SELECT l.feature AS feature, l.auroc AS auroc, l.mean_act AS own, o.act AS other, "
        "coalesce(f.decoder_norm::DOUBLE, 1.0) AS norm "
        "FROM idx.feature_labels l JOIN idx.features f USING (feature) LEFT JOIN ("
        "SELECT feature, sum(mean_act * documents) / sum(documents) AS act "
        "FROM idx.feature_labels JOIN idx.labels USING (label) WHERE label <> ? GROUP BY feature"
        ") o USING (feature) WHERE l.label = ? AND l.auroc IS NOT NULL ORDER BY feature",
        [label, label],
    )
    if not len(found["feature"]):
        return ()
    auroc = found["auroc"].astype(np.float64)
    ((inside, total),) = store.connection.rows(
        "SELECT count(*) FILTER (WHERE label = ?), count(*) FROM idx.documents "
        "WHERE label IS NOT NULL AND split <> 'heldout'",
        [label],
    )
    best = float(auroc.max())
    near = np.flatnonzero(auroc >= best - auroc_error(best, inside, total - inside))
    apart = (found["own"] - np.nan_to_num(found["other"].astype(np.float64))) * found["norm"]
    order = near[np.argsort(-apart[near], kind="stable")]
    return tuple(int(found["feature"][place]) for place in order[:most])


def auroc_error(auroc: float, positive: int, negative: int) -> float:
    """The standard error of an AUROC (Hanley and McNeil 1982, "The meaning and use of the area
    under a receiver operating characteristic (ROC) curve", eq. 1 and 2)."""
    if not positive or not negative:
        return 0.0
    both_above = auroc / (2 - auroc) - auroc**2
    both_below = 2 * auroc**2 / (1 + auroc) - auroc**2
    variance = auroc * (1 - auroc) + (positive - 1) * both_above + (negative - 1) * both_below
    return sqrt(max(variance, 0.0) / (positive * negative))
