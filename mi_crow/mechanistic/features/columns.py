"""The table of features in memory, with its concepts: sorted and filtered by NumPy.

131,072 features take about 5 MB; a page then costs microseconds and a new order some milliseconds.
Torch-free.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from mi_crow.errors import UserError, nearest
from mi_crow.mechanistic.features.catalogue import BY_LABEL, LAYER, OF_CONCEPTS
from mi_crow.mechanistic.features.more_columns import (
    MORE_NUMBERS,
    OUTPUT,
    SIGNS,
    of_concepts,
    read_numbers,
    read_tokens,
)
from mi_crow.mechanistic.features.records import (
    LEAST_AUROC,
    Concept,
    FeatureFilter,
    FeatureRow,
)
from mi_crow.mechanistic.features.schema import TOP_AUROCS

if TYPE_CHECKING:
    from mi_crow.mechanistic.features.connection import IndexConnection

RELEVANCE = "relevance"  # how well a feature matches a search
SORTS = ("feature", "density", "fires", "max_act", "mean_act", "top_auroc", "top_label", "concept")
_MOST_ORDERS = 4  # kept in memory, 4 bytes per feature each
_MOST_COLUMNS = 16  # of numbers, 8 bytes per feature each

# The rows are in feature order. A join with the labels loses it, but 131,072 texts would cost
# more than all other columns.
_NUMBERS = """
SELECT feature, fires, density, max_act, mean_act FROM idx.features
"""
_TOP_LABELS = """
SELECT feature, number FROM idx.features JOIN (
    SELECT label, row_number() OVER (ORDER BY label) - 1 AS number FROM idx.labels
) names ON top_label = label
"""


def _by_feature(concepts: Iterable[Concept], n_features: int) -> dict[int, tuple[Concept, ...]]:
    """The concepts of features below `n_features`, the most confident first."""
    found: dict[int, list[Concept]] = {}
    for concept in concepts:
        if concept.feature < n_features:
            found.setdefault(concept.feature, []).append(concept)
    return {
        feature: tuple(sorted(some, key=lambda one: (-one.confidence, -one.updated)))
        for feature, some in found.items()
    }


@dataclass(frozen=True)
class ConceptColumns:
    """The concepts of one SAE as of one version of the annotations. Masks are bool [n_features].

    Masks and orders are computed when first asked for; a change of the concepts replaces them all.
    """

    version: int
    n_features: int
    concepts: Mapping[int, tuple[Concept, ...]]  # by feature, most confident first
    mark: tuple[int, int] = (0, 0)  # in the history, up to which changes are in
    beyond: tuple[Concept, ...] = ()  # those of features that the index does not have
    _orders: dict[tuple[str, bool], np.ndarray] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        version: int,
        n_features: int,
        concepts: Iterable[Concept],
        mark: tuple[int, int] = (0, 0),
    ) -> "ConceptColumns":
        """All that are known."""
        found = tuple(concepts)
        beyond = tuple(one for one in found if one.feature >= n_features)
        return cls(version, n_features, _by_feature(found, n_features), mark, beyond)

    def changed(
        self,
        version: int,
        mark: tuple[int, int],
        features: Sequence[int],
        concepts: Iterable[Concept],
    ) -> "ConceptColumns":
        """The same with `concepts` as all that is said about `features`."""
        some = tuple(concepts)
        found = dict(self.concepts)
        for feature in features:
            found.pop(feature, None)
        found |= _by_feature(some, self.n_features)
        kept = (*(one for one in self.beyond if one.feature not in features), *some)
        beyond = tuple(one for one in kept if one.feature >= self.n_features)
        return ConceptColumns(version, self.n_features, found, mark, beyond)

    def all(self) -> list[Concept]:
        """Every concept of the SAE, by feature and name."""
        found = [*self.beyond, *(one for some in self.concepts.values() for one in some)]
        return sorted(found, key=lambda one: (one.feature, one.name))

    @cached_property
    def known_names(self) -> tuple[str, ...]:
        """All names, each once."""
        return tuple(dict.fromkeys(one.name for some in self.concepts.values() for one in some))

    @property
    def known_tags(self) -> tuple[str, ...]:
        """All tags, each once."""
        return tuple(self._tags)

    @cached_property
    def names(self) -> dict[int, str]:
        """The most confident name of each named feature."""
        return {feature: some[0].name for feature, some in self.concepts.items()}

    @cached_property
    def named(self) -> np.ndarray:
        return self._mask(self.concepts)

    @cached_property
    def noted(self) -> np.ndarray:
        """Features with a note under any of their names."""
        return self._mask(f for f, some in self.concepts.items() if any(one.note for one in some))

    def tagged(self, tag: str) -> np.ndarray:
        """Features with the tag under any of their names."""
        return self._mask(self._tags.get(tag, ()))

    def order(self, descending: bool, by: str = "names") -> np.ndarray:
        """All features by a column of OF_CONCEPTS, texts ignoring case: int32 [n_features]. Ties go
        by number, features without a value come last."""
        if (by, descending) not in self._orders:
            self._orders[by, descending] = ordered(self._key(by), descending)
        return self._orders[by, descending]

    def _key(self, by: str) -> np.ndarray:
        values: Mapping[int, Any] = self.names
        if by != "names":
            values = {f: of_concepts(by, some) for f, some in self.concepts.items()}
        if by == "tags":
            values = {feature: ", ".join(tags) for feature, tags in values.items()}
        if by != "confidence":
            alphabet = sorted({text for text in values.values() if text}, key=str.casefold)
            places = {text: place for place, text in enumerate(alphabet)}
            values = {feature: places.get(text, np.nan) for feature, text in values.items()}
        key = np.full(self.n_features, np.nan)
        key[np.fromiter(values, dtype=np.int64, count=len(values))] = list(values.values())
        return key

    @cached_property
    def _tags(self) -> dict[str, list[int]]:
        """The features of each tag, possibly with repeats."""
        found: dict[str, list[int]] = {}
        for feature, some in self.concepts.items():
            for tag in (tag for one in some for tag in one.tags):
                found.setdefault(tag, []).append(feature)
        return found

    def _mask(self, features: Iterable[int]) -> np.ndarray:
        mask = np.zeros(self.n_features, dtype=bool)
        mask[np.fromiter(features, dtype=np.int64)] = True
        return mask


@dataclass(frozen=True)
class FeatureColumns:
    """One array a column, indexed by feature."""

    fires: np.ndarray  # int64
    density: np.ndarray
    max_act: np.ndarray
    mean_act: np.ndarray
    best: np.ndarray  # index in `labels` of the one it predicts best on training documents, or -1
    auroc: np.ndarray  # of `best` on held-out documents; nan where that was not measured
    label: np.ndarray  # `best` where `auroc` reaches LEAST_AUROC, else -1
    labels: tuple[str, ...]  # sorted
    _orders: dict[tuple[str, bool], np.ndarray] = field(default_factory=dict)
    _more: dict[str, np.ndarray] = field(default_factory=dict)

    @classmethod
    def read(cls, connection: "IndexConnection") -> "FeatureColumns":
        names = connection.rows("SELECT label FROM idx.labels ORDER BY label")
        found = connection.columns(_NUMBERS)
        order = np.argsort(found["feature"], kind="stable")
        if not np.array_equal(found["feature"][order], np.arange(len(order))):
            raise ValueError("features are missing or are listed twice")
        fires, density, max_act, mean_act = (
            found[name][order] for name in ("fires", "density", "max_act", "mean_act")
        )
        best = np.full(len(order), -1, dtype=np.int32)
        auroc = np.full(len(order), np.nan)
        if names:
            tops = connection.columns(_TOP_LABELS)
            best[tops["feature"]] = tops["number"]
            scores = connection.columns(
                "SELECT feature, auroc FROM idx.top_aurocs"
                if connection.schema > 2
                else TOP_AUROCS.format(of="idx.")
            )
            auroc[scores["feature"]] = scores["auroc"]
        label = np.where(auroc >= LEAST_AUROC, best, -1)
        labels = tuple(name for (name,) in names)
        return cls(fires, density, max_act, mean_act, best, auroc, label, labels)

    def __len__(self) -> int:
        return len(self.fires)

    def rows(self, ids: Sequence[int] | np.ndarray, names: Mapping[int, str]) -> list[FeatureRow]:
        """Some features as rows; `names` are their concepts."""
        chosen = np.asarray(ids, dtype=np.int64)
        columns = (
            array[chosen].tolist()
            for array in (
                self.fires,
                self.density,
                self.max_act,
                self.mean_act,
                self.label,
                self.auroc,
            )
        )
        return [
            FeatureRow(
                feature,
                fires,
                density,
                max_act,
                mean_act,
                names.get(feature),
                self.labels[label] if label >= 0 else None,
                None if np.isnan(auroc) else auroc,
            )
            for feature, fires, density, max_act, mean_act, label, auroc in zip(
                chosen.tolist(), *columns, strict=True
            )
        ]

    def matching(self, flt: FeatureFilter, concepts: ConceptColumns) -> np.ndarray:
        """Features that meet the conditions of the filter: bool [n_features]."""
        keep = np.ones(len(self), dtype=bool)
        if flt.alive is not None:
            keep &= (self.fires > 0) == flt.alive
        if flt.named is not None:
            keep &= concepts.named == flt.named
        if flt.has_note is not None:
            keep &= concepts.noted == flt.has_note
        if flt.tag is not None:
            keep &= concepts.tagged(flt.tag)
        if flt.label is not None:
            keep &= self.label == self.label_number(flt.label)
        for least, values in (
            (flt.min_auroc, self.auroc),
            (flt.min_density, self.density),
            (flt.min_max_act, self.max_act),
        ):
            if least is not None:
                keep &= values >= least  # false for nan
        if flt.max_density is not None:
            keep &= self.density <= flt.max_density
        return keep

    def order(
        self,
        sort: str,
        descending: bool,
        concepts: ConceptColumns,
        connection: "IndexConnection",
    ) -> np.ndarray:
        """All features sorted: int32 [n_features]. Ties go by number, features without a value
        come last. Raises UserError for an unknown order or label."""
        if sort == "concept" or sort in OF_CONCEPTS:  # these change, the rest never does
            return concepts.order(descending, "names" if sort == "concept" else sort)
        known = (sort, descending)
        if known not in self._orders:
            by_label = sort.startswith(BY_LABEL)
            find = self.numbers if by_label else self._sort_key
            key = find(sort, connection)
            if sort == OUTPUT and np.isnan(key).any():
                return ordered(key, descending)  # scores may still come
            while len(self._orders) >= _MOST_ORDERS:
                self._orders.pop(next(iter(self._orders)), None)
            self._orders[known] = ordered(key, descending)
        return self._orders[known]

    def _label_auroc(self, label: str, connection: "IndexConnection") -> np.ndarray:
        """The AUROC of every feature for one label on held-out documents; nan without one."""
        self.label_number(label)
        # One row per feature, in their order, which DuckDB keeps: the numbers need not be read.
        table = "label_aurocs" if connection.schema > 2 else "feature_labels"
        found = connection.columns(
            f"SELECT coalesce(auroc_heldout, 'nan') AS auroc FROM idx.{table} WHERE label = ?",
            [label],
        )
        return np.where(self.fires > 0, found["auroc"], np.nan)

    def _sort_key(self, sort: str, connection: "IndexConnection") -> np.ndarray:
        """A number per feature that ascends in the order `sort`; nan where there is no value."""
        if sort == "feature":
            return np.arange(len(self), dtype=np.float64)
        if sort == "top_label":
            return np.where(self.label >= 0, self.label, np.nan)
        if sort in SIGNS:
            return self._token_key(sort, connection)
        if sort == LAYER:
            return connection.layers.keys()
        known = (*SORTS, LAYER, *MORE_NUMBERS, *OF_CONCEPTS, *SIGNS, f"{BY_LABEL}LABEL")
        if sort not in known:
            raise UserError(
                f"order {sort!r} is not known",
                hint=f"use {', '.join(known)}, or {RELEVANCE} with a search",
            )
        return self.numbers(sort, connection).astype(np.float64)

    def _token_key(self, key: str, connection: "IndexConnection") -> np.ndarray:
        """The place in the alphabet of the first token of each feature."""
        first = self.tokens(key, connection)[:, 0]
        found = connection.columns(
            "SELECT token_id, row_number() OVER (ORDER BY lower(trim(token)), token_id) AS place "
            "FROM idx.tokens"
        )
        places = np.full(int(found["token_id"].max(initial=-1)) + 2, np.nan)
        places[found["token_id"]] = found["place"]
        return places[first]  # the last, for -1, has none

    def tokens(self, key: str, connection: "IndexConnection") -> np.ndarray:
        """The strongest tokens of each feature; `key` is one of SIGNS."""
        if key not in self._more:
            self._more[key] = read_tokens(connection, key, len(self))
        return self._more[key]

    def numbers(self, column: str, connection: "IndexConnection") -> np.ndarray:
        """A column of numbers by its name in the index: [n_features], nan where it has no value."""
        if column == "top_auroc":
            return self.auroc
        if column in self._more:
            return self._more[column]
        if column.startswith(BY_LABEL):
            values = self._label_auroc(column.removeprefix(BY_LABEL), connection)
        elif column in MORE_NUMBERS:
            values = read_numbers(connection, column, len(self))
            if column == OUTPUT and np.isnan(values).any():
                return values  # some may still come
        else:
            return getattr(self, column)
        while len(self._more) >= _MOST_COLUMNS:
            self._more.pop(next(iter(self._more)), None)
        self._more[column] = values
        return values

    def label_number(self, label: str) -> int:
        """The place of a label in `labels`. Raises UserError."""
        if label not in self.labels:
            hint = f"there is {nearest(label, self.labels)}" if self.labels else "it has no labels"
            raise UserError(f"label {label!r} is not in the index", hint=hint)
        return self.labels.index(label)


def ordered(key: np.ndarray, descending: bool) -> np.ndarray:
    """Places by `key`, which holds no infinity: int32 [n]; those without a value (nan) last, equal
    ones by number."""
    key = np.where(np.isnan(key), np.inf, -key if descending else key) + 0.0  # no -0.0
    # Integers in the order of the keys, their lowest bits taken by the number: NumPy sorts plain
    # integers three times as fast as it sorts numbers by their keys.
    bits = key.view(np.int64)
    bits = bits ^ ((bits >> 63) & np.int64(2**63 - 1))
    taken = max(len(key) - 1, 0).bit_length()
    packed = (bits >> taken << taken) | np.arange(len(key))
    packed.sort()
    order, upper = packed & ((1 << taken) - 1), packed >> taken
    values = key[order]
    # Keys that differ in those bits alone, which is rare, may have changed places.
    wrong = upper[1:][values[1:] < values[:-1]]
    if len(wrong):
        places = np.flatnonzero(np.isin(upper, wrong))
        sub = np.lexsort((order[places], values[places], upper[places]))
        order[places] = order[places][sub]
    return order.astype(np.int32)
