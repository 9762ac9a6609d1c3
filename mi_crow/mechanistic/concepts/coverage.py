"""How much of an SAE its named features explain, and the figures of each. Torch-free."""

from bisect import bisect_left
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from sys import intern

import numpy as np

from mi_crow.mechanistic.features.queries import FeatureStore

_STEPS = (1, 2, 5)


@dataclass(frozen=True)
class CurvePoint:
    """What this many names explain."""

    names: int
    share: float  # of all firings, by the named features that fire most
    possible: float  # by so many of all features, those that fire most


@dataclass(frozen=True)
class Coverage:
    """Shares of what an index saw that features with a name explain."""

    named: int  # features with a name
    alive: int  # features that fire
    firings: float  # share of all firings that are of named features
    documents: float  # share of documents with a named feature among their strongest
    strongest: float  # share of documents whose strongest feature, as a share of its maximum, is
    curve: tuple[CurvePoint, ...]


def coverage_of(store: FeatureStore) -> Coverage:
    """The coverage of an index by the names of its features."""
    named, fires = store.named().named, store.columns().fires
    total = float(fires.sum()) or 1.0
    documents, strongest = _of_documents(store, np.flatnonzero(named).tolist())
    return Coverage(
        int(named.sum()),
        int((fires > 0).sum()),
        float(fires[named].sum()) / total,
        documents,
        strongest,
        _curve(fires[named], fires, total),
    )


def _curve(named: np.ndarray, fires: np.ndarray, total: float) -> tuple[CurvePoint, ...]:
    """The cumulative share of firings over the rank, at 1, 2, 5, 10, .. names and at all."""
    ours, theirs = (np.cumsum(np.sort(one)[::-1]) / total for one in (named, fires))
    if not len(ours):
        return ()
    ranks = [step * 10**power for power in range(10) for step in _STEPS]
    ranks = [rank for rank in ranks if rank < len(ours)] + [len(ours)]
    return tuple(
        CurvePoint(rank, float(ours[rank - 1]), float(theirs[min(rank, len(theirs)) - 1]))
        for rank in ranks
    )


def _of_documents(store: FeatureStore, named: list[int]) -> tuple[float, float]:
    with store.connection.fitting():
        rows = store.concept_table().rows(
            "SELECT avg(any_of::DOUBLE), avg(best::DOUBLE) FROM (SELECT bool_or(named) AS any_of, "
            "arg_max(named, share) AS best FROM (SELECT document, c.feature IS NOT NULL AS named, "
            "d.max_act / nullif(f.max_act, 0) AS share FROM idx.document_features d "
            "JOIN idx.features f USING (feature) LEFT JOIN (SELECT unnest(?::INTEGER[]) AS "
            "feature) c USING (feature)) GROUP BY document)",
            [named],
        )
    some, best = rows[0] if rows else (None, None)
    return float(some or 0.0), float(best or 0.0)


@dataclass(frozen=True, slots=True)
class ConceptFacts:
    """Figures of one feature that a list of names shows."""

    density: float
    covers: float  # share of all firings
    score: float | None  # of the proposed name: held-out AUROC, or detection of a chat model's
    kind: str  # of the proposed name
    layer: str = ""  # that the feature is of
    proposed: str = ""  # the proposed name, where the feature has that name
    explained: bool = False  # whether it is a chat model's

    def is_scored(self, name: str) -> bool:
        """Whether the score is of that name: only the proposed one was scored."""
        return self.score is not None and name == self.proposed


class FactsOf(Mapping[int, ConceptFacts]):
    """The facts of some features, made when asked for: those of 20,000 names would take 3 MB."""

    def __init__(self, store: FeatureStore, features: Collection[int]) -> None:
        """Of the `features` that the index has; others are left out."""
        self._columns = columns = store.columns()
        self._total = float(columns.fires.sum()) or 1.0
        proposals = store.connection.proposals
        self._explained = proposals.explanations
        scores = columns.numbers("name_score", store.connection)
        asked = proposals.explained("detection", len(columns))
        self._scores = np.where(np.isnan(scores), asked, scores)
        self._features = sorted({one for one in features if 0 <= one < len(columns)})
        kinds = proposals.texts("kind", self._features)
        self._kinds = [intern(kind) for kind in kinds]
        self._layers = store.connection.layers.texts(self._features)
        named, names = store.concepts(), proposals.texts("name", self._features)
        self._accepted = [
            # The concept's own text: the list has it already.
            next((one.name for one in named.get(feature, ()) if one.name == name), "")
            for feature, name in zip(self._features, names, strict=True)
        ]

    def __getitem__(self, feature: int) -> ConceptFacts:
        place = bisect_left(self._features, feature)
        if place == len(self._features) or self._features[place] != feature:
            raise KeyError(feature)
        score = float(self._scores[feature])
        return ConceptFacts(
            float(self._columns.density[feature]),
            float(self._columns.fires[feature]) / self._total,
            None if np.isnan(score) else score,
            self._kinds[place],
            self._layers[place],
            self._accepted[place],
            feature in self._explained,
        )

    def __iter__(self) -> Iterator[int]:
        return iter(self._features)

    def __len__(self) -> int:
        return len(self._features)
