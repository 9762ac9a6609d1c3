"""How well each feature tells the documents of a label from the rest; exact, NumPy."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mi_crow.mechanistic.features.examples import Pooled
from mi_crow.mechanistic.features.segments import places, runs, starts_of, value_bits

_MOST_LABELS = 256


@dataclass(frozen=True)
class LabelledDocuments:
    """The labels of all documents, by number."""

    names: tuple[str, ...]  # sorted
    label: np.ndarray  # int32 [documents], -1 without one
    heldout: np.ndarray  # bool [documents]
    left_out: int  # labels beyond the most that are counted


@dataclass(frozen=True)
class LabelScores:
    """Each [features, labels]; nan where a value does not exist."""

    auroc: np.ndarray
    auroc_heldout: np.ndarray
    mean_act: np.ndarray
    lift: np.ndarray


def labelled_documents(
    labels: Sequence[str | None], heldout: np.ndarray, most: int = _MOST_LABELS
) -> LabelledDocuments:
    """Numbers the labels; of more than `most` the most frequent are counted."""
    counts = Counter(label for label in labels if label is not None)
    kept = sorted(sorted(counts, key=lambda label: (-counts[label], label))[:most])
    number = {label: n for n, label in enumerate(kept)}
    codes = [-1 if label is None else number.get(label, len(kept)) for label in labels]
    code = np.array(codes, dtype=np.int32)
    return LabelledDocuments(tuple(kept), code, heldout, len(counts) - len(kept))


def label_scores(pooled: Pooled, documents: LabelledDocuments) -> LabelScores:
    """AUROC, mean activation and lift of one block.

    Activations are max-pooled over documents; documents without a label do not count. Choosing
    goes by training documents alone.
    """
    train = _Split.of(pooled, documents, heldout=False)
    heldout = _Split.of(pooled, documents, heldout=True)
    with np.errstate(invalid="ignore", divide="ignore"):
        mean_act = train.sums / train.sizes
        share = train.hits / train.sizes
        overall = train.fires / train.total
        lift = np.where(overall[:, None] > 0, share / overall[:, None], np.nan)
    return LabelScores(train.auroc(), heldout.auroc(), mean_act, lift)


@dataclass(frozen=True)
class _Split:
    """Sums over the labelled documents of one split. Columns: the counted labels."""

    total: int  # documents
    sizes: np.ndarray  # [labels]: documents of each label
    fires: np.ndarray  # [features]: documents on which the feature fires
    hits: np.ndarray  # [features, labels]: of these, documents of the label
    ranks: np.ndarray  # [features, labels]: sum of their ranks among all documents, from 1
    sums: np.ndarray  # [features, labels]: sum of their pooled activations

    @classmethod
    def of(cls, pooled: Pooled, documents: LabelledDocuments, *, heldout: bool) -> "_Split":
        n_labels = len(documents.names)
        counted = (documents.label >= 0) & (documents.heldout == heldout)
        total = int(counted.sum())
        sizes = np.bincount(documents.label[counted], minlength=n_labels)[:n_labels]
        chosen = pooled.order[counted[pooled.document[pooled.order]]]
        feature, values = pooled.feature[chosen], pooled.values[chosen]
        n_features = len(pooled.starts) - 1
        fires = np.bincount(feature, minlength=n_features)
        ranks = _ranks(feature, values, starts_of(fires), total)
        # One more column takes the labels that are not counted.
        cells = feature * (n_labels + 1) + documents.label[pooled.document[chosen]]

        def summed(weights: np.ndarray | None) -> np.ndarray:
            flat = np.bincount(cells, weights, minlength=n_features * (n_labels + 1))
            return flat.reshape(n_features, n_labels + 1)[:, :n_labels]

        return cls(total, sizes, fires, summed(None), summed(ranks), summed(values))

    def auroc(self) -> np.ndarray:
        """Mann-Whitney U over the pairs: (R - P (P + 1) / 2) / (P (N - P)), ties at mid-rank.

        The documents on which a feature is silent are tied at the lowest ranks.
        """
        silent = (self.total - self.fires)[:, None]
        ranks = self.ranks + (self.sizes - self.hits) * (silent + 1) / 2
        pairs = self.sizes * (self.total - self.sizes)
        with np.errstate(invalid="ignore", divide="ignore"):
            scores = (ranks - self.sizes * (self.sizes + 1) / 2) / pairs
        return np.where(pairs > 0, scores, np.nan)


def _ranks(feature: np.ndarray, values: np.ndarray, starts: np.ndarray, total: int) -> np.ndarray:
    """Mid-ranks among `total` documents of values sorted by feature and then descending."""
    if not len(values):
        return np.zeros(0)
    rank = total - places(starts).astype(np.float64)
    ties = runs(feature, value_bits(values))
    first, last = rank[ties[:-1]], rank[ties[1:] - 1]
    return np.repeat((first + last) / 2, np.diff(ties))
