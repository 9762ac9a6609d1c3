"""How much of an SAE its named features explain, and the figures of each. Torch-free."""

from collections.abc import Collection
from dataclasses import dataclass

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
    score: float | None  # held-out AUROC of the proposed name
    kind: str  # of the proposed name
    layer: str = ""  # that the feature is of


def facts_of(store: FeatureStore, features: Collection[int]) -> dict[int, ConceptFacts]:
    """Figures of some features of an index; others are left out."""
    columns, connection = store.columns(), store.connection
    chosen = [one for one in features if 0 <= one < len(columns)]
    total = float(columns.fires.sum()) or 1.0
    scores = columns.numbers("name_score", connection)
    kinds = connection.proposals.texts("kind", chosen)
    layers = connection.layers.texts(chosen)
    return {
        feature: ConceptFacts(
            float(columns.density[feature]),
            float(columns.fires[feature]) / total,
            None if np.isnan(scores[feature]) else float(scores[feature]),
            kind,
            layer,
        )
        for feature, kind, layer in zip(chosen, kinds, layers, strict=True)
    }
