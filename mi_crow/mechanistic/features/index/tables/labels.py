"""How well each feature predicts the label of a document: AUROC, lift, mean activation; exact.

This works on sparse codes; `sae.evaluation.pooled_auroc` gives the same AUROC for dense matrices.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from mi_crow.mechanistic.features.index.primitives import (
    bincount,
    nonzero,
    repeat,
    weighted_bincount,
)
from mi_crow.mechanistic.features.index.segments import (
    group_starts,
    segment_ranks,
    starts_of,
    value_bits,
)
from mi_crow.mechanistic.features.index.tables.examples import Pooled

_MAX_LABELS = 256


@dataclass(frozen=True)
class LabelledDocuments:
    """The labels of all documents, by number."""

    names: tuple[str, ...]  # sorted
    label: Tensor  # int64 [documents], -1 without one
    heldout: Tensor  # bool [documents]
    left_out: int  # labels beyond the maximum number

    def to(self, device: torch.device) -> "LabelledDocuments":
        """The same on `device`."""
        return replace(self, label=self.label.to(device), heldout=self.heldout.to(device))


@dataclass(frozen=True)
class LabelScores:
    """Each float64 [features, labels]; nan where undefined."""

    auroc: Tensor
    auroc_heldout: Tensor
    mean_act: Tensor
    lift: Tensor


def labelled_documents(
    labels: Sequence[str | None], heldout: np.ndarray, most: int = _MAX_LABELS
) -> LabelledDocuments:
    """Numbers the labels; only the `most` most frequent are counted."""
    found = Counter(label for label in labels if label is not None)
    kept = sorted(sorted(found, key=lambda label: (-found[label], label))[:most])
    number = {label: n for n, label in enumerate(kept)}
    codes = [-1 if label is None else number.get(label, len(kept)) for label in labels]
    code = torch.tensor(codes, dtype=torch.int64)
    return LabelledDocuments(tuple(kept), code, torch.from_numpy(heldout), len(found) - len(kept))


def label_scores(pooled: Pooled, documents: LabelledDocuments) -> LabelScores:
    """AUROC, mean activation and lift of one block.

    Activations are max-pooled over documents; documents without a label do not count. Labels are
    chosen on training documents only.
    """
    train = _Split.of(pooled, documents, heldout=False)
    heldout = _Split.of(pooled, documents, heldout=True)
    mean_act = train.sums / train.sizes
    share = train.hits.double() / train.sizes
    overall = (train.fires.double() / train.total)[:, None]
    lift = torch.where(overall > 0, share / overall, torch.nan)
    return LabelScores(train.auroc(), heldout.auroc(), mean_act, lift)


@dataclass(frozen=True)
class _Split:
    """Sums over the labelled documents of one split. Columns: the counted labels."""

    total: int  # documents
    sizes: Tensor  # int64 [labels]: documents of each label
    fires: Tensor  # int64 [features]: documents on which the feature fires
    hits: Tensor  # int64 [features, labels]: of these, documents of the label
    ranks: Tensor  # float64 [features, labels]: sum of their ranks among all documents, from 1
    sums: Tensor  # float64 [features, labels]: sum of their pooled activations

    @classmethod
    def of(cls, pooled: Pooled, documents: LabelledDocuments, *, heldout: bool) -> "_Split":
        n_labels, n_features = len(documents.names), len(pooled.starts) - 1
        # One more column takes the labels that are not counted.
        columns = n_labels + 1
        counted = (documents.label >= 0) & (documents.heldout == heldout)
        labels = documents.label.index_select(0, nonzero(counted))
        total = len(labels)
        document = pooled.document.index_select(0, pooled.order)
        among = nonzero(counted.index_select(0, document))
        chosen = pooled.order.index_select(0, among)
        feature, values = (of.index_select(0, chosen) for of in (pooled.feature, pooled.values))
        fires = bincount(feature, n_features)
        ranks = _ranks(feature, values, starts_of(fires), total)
        cells = documents.label.index_select(0, document.index_select(0, among))
        cells += feature * columns

        def by_label(cells_of: Tensor) -> Tensor:
            return cells_of.view(n_features, columns)[:, :n_labels]

        size = n_features * columns
        return cls(
            total,
            bincount(labels, columns)[:n_labels],
            fires,
            by_label(bincount(cells, size)),
            by_label(weighted_bincount(cells, ranks, size)),
            by_label(weighted_bincount(cells, values.double(), size)),
        )

    def auroc(self) -> Tensor:
        """Mann-Whitney U over the pairs: (R - P (P + 1) / 2) / (P (N - P)), ties at mid-rank.

        The documents on which a feature is silent are tied at the lowest ranks.
        """
        silent = (self.total - self.fires)[:, None].double()
        ranks = self.ranks + (self.sizes - self.hits) * (silent + 1) / 2
        sizes = self.sizes.double()
        pairs = sizes * (self.total - sizes)
        scores = (ranks - sizes * (sizes + 1) / 2) / pairs
        return torch.where(pairs > 0, scores, torch.nan)


def _ranks(feature: Tensor, values: Tensor, starts: Tensor, total: int) -> Tensor:
    """Mid-ranks among `total` documents of values sorted by feature and then descending: float64
    [values]."""
    rank = segment_ranks(starts, len(values)).neg_().add_(total).double()
    equal = group_starts(feature, value_bits(values))
    length = equal.diff()
    tied = nonzero(length > 1)
    length, begin = length.index_select(0, tied), equal.index_select(0, tied)
    # Ranks fall by one: the mean is half way between first and last.
    middle = rank.index_select(0, begin) - (length - 1).double() / 2
    within = starts_of(length)
    held = int(within[-1])
    inside = segment_ranks(within, held).add_(repeat(begin, length, held))
    return rank.index_copy_(0, inside, repeat(middle, length, held))
