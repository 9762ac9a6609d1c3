"""What an index must hold, worked out one feature and one token at a time.

Slow and plain on purpose: property tests compare the real pass with it, and the index of
`index_fixture` is filled from it.
"""

from dataclasses import dataclass, field

import numpy as np


@dataclass
class Doc:
    """One document with the dense activations of its kept tokens."""

    document: int
    text: str
    label: str | None
    split: str
    token_ids: list[int]
    token_texts: list[str]
    kept: list[int]  # positions of the rows of `acts`
    acts: np.ndarray  # [kept, n_features], zero where nothing fires
    outlier: list[bool] = field(default_factory=list)  # of each kept token; empty: none

    def counted(self) -> list[tuple[int, np.ndarray]]:
        """(position, activations) of the tokens that count."""
        flags = self.outlier or [False] * len(self.kept)
        return [
            (p, row) for p, row, out in zip(self.kept, self.acts, flags, strict=True) if not out
        ]

    def column(self, feature: int) -> list[tuple[int, float]]:
        """(position, activation of one feature) of the tokens that count."""
        flags = self.outlier or [False] * len(self.kept)
        values = self.acts[:, feature].tolist() if self.kept else []
        return [(p, act) for p, act, out in zip(self.kept, values, flags, strict=True) if not out]


@dataclass(frozen=True)
class FeatureFacts:
    fires: int
    density: float
    max_act: float
    mean_act: float
    std_act: float


def n_tokens(docs: list[Doc]) -> int:
    return sum(len(doc.counted()) for doc in docs)


def firings(docs: list[Doc], feature: int) -> list[tuple[float, int, int]]:
    """(activation, document, position) of every firing, in order."""
    return [
        (value, doc.document, position)
        for doc in docs
        for position, value in doc.column(feature)
        if value > 0
    ]


def facts(docs: list[Doc], feature: int) -> FeatureFacts:
    values = np.array([value for value, _, _ in firings(docs, feature)], dtype=np.float64)
    if not len(values):
        return FeatureFacts(0, 0.0, 0.0, 0.0, 0.0)
    density = len(values) / n_tokens(docs)
    return FeatureFacts(
        len(values), density, float(values.max()), float(values.mean()), float(values.std())
    )


def histogram(docs: list[Doc], feature: int, edges: list[float]) -> list[int]:
    """Counts between the edges; the last bin holds its upper edge."""
    counts = [0] * (len(edges) - 1)
    for value, _, _ in firings(docs, feature):
        at = max(n for n in range(len(counts)) if value >= edges[n])
        counts[at] += 1
    return counts


def top_examples(docs: list[Doc], feature: int, count: int) -> list[tuple[float, int, int]]:
    """(activation, document, position): the strongest token of each document, strongest first."""
    best: dict[int, tuple[float, int, int]] = {}
    for value, document, position in firings(docs, feature):
        if document not in best or value > best[document][0]:
            best[document] = (value, document, position)
    return sorted(best.values(), key=lambda one: (-one[0], one[1]))[:count]


def window(doc: Doc, feature: int, position: int, reach: int) -> tuple[int, list[float]]:
    """Start of the window and the activation on each of its tokens."""
    start = max(0, position - reach)
    stop = min(len(doc.token_ids), position + reach + 1)
    acts = dict(doc.column(feature))
    return start, [acts.get(p, 0.0) for p in range(start, stop)]


def pooled(doc: Doc, feature: int) -> float:
    return max((value for _, value in doc.column(feature)), default=0.0)


def auroc(docs: list[Doc], feature: int, label: str, split: str) -> float | None:
    """Share of (inside, outside) pairs that are in order, ties counting half."""
    labelled = [doc for doc in docs if doc.split == split and doc.label is not None]
    inside = [pooled(doc, feature) for doc in labelled if doc.label == label]
    outside = [pooled(doc, feature) for doc in labelled if doc.label != label]
    if not inside or not outside:
        return None
    wins = sum((a > b) + (a == b) / 2 for a in inside for b in outside)
    return wins / (len(inside) * len(outside))


def label_mean_and_lift(
    docs: list[Doc], feature: int, label: str
) -> tuple[float | None, float | None]:
    """Over labelled training documents: mean pooled activation inside, P(fires|label)/P(fires)."""
    train = [doc for doc in docs if doc.split == "train" and doc.label is not None]
    inside = [pooled(doc, feature) for doc in train if doc.label == label]
    if not inside:
        return None, None
    overall = sum(pooled(doc, feature) > 0 for doc in train) / len(train)
    share = sum(value > 0 for value in inside) / len(inside)
    return sum(inside) / len(inside), share / overall if overall else None


def document_features(doc: Doc, count: int) -> list[tuple[int, float, int]]:
    """(feature, strongest activation, firings), strongest first."""
    rows = [row for _, row in doc.counted()]
    if not rows:
        return []
    acts = np.array(rows)
    found = [
        (feature, float(acts[:, feature].max()), int((acts[:, feature] > 0).sum()))
        for feature in range(acts.shape[1])
        if acts[:, feature].max() > 0
    ]
    return sorted(found, key=lambda one: (-one[1], one[0]))[:count]


def coactivations(docs: list[Doc], feature: int, count: int) -> list[tuple[int, int, float]]:
    """(other, tokens with both, Jaccard index), most alike first."""
    rows = [row for doc in docs for _, row in doc.counted()]
    if not rows:
        return []
    on = np.array(rows) > 0
    together = (on[:, feature, None] & on).sum(0).tolist()
    either = (on[:, feature, None] | on).sum(0).tolist()
    found = [
        (other, both, both / either[other])
        for other, both in enumerate(together)
        if other != feature and both
    ]
    return sorted(found, key=lambda one: (-one[2], one[0]))[:count]
