"""Every question about an indexed SAE: the table of features, one feature, its examples, search.

Torch-free; shared by the app and the command line. Answers are frozen dataclasses.
"""

import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

import numpy as np

from mi_crow.errors import MiCrowError, UserError
from mi_crow.mechanistic.features.columns import (
    RELEVANCE,
    SORTS,
    ConceptColumns,
    FeatureColumns,
    ordered,
)
from mi_crow.mechanistic.features.concept_source import ConceptSource
from mi_crow.mechanistic.features.connection import IndexConnection, connect, identity
from mi_crow.mechanistic.features.feature_map import FeatureMap, read_map
from mi_crow.mechanistic.features.index_check import checked_meta
from mi_crow.mechanistic.features.more_columns import more_values
from mi_crow.mechanistic.features.on_text import features_on_text
from mi_crow.mechanistic.features.one_feature import (
    TokenTexts,
    read_detail,
    read_examples,
    read_label_scores,
)
from mi_crow.mechanistic.features.query_language import FeatureQuery
from mi_crow.mechanistic.features.query_match import QueryMatcher
from mi_crow.mechanistic.features.records import (
    Coactivation,
    CofiringTokens,
    Concept,
    Example,
    FeatureDetail,
    FeatureFilter,
    FeatureRow,
    IndexMeta,
    LabelScore,
    Neighbour,
    TextFeature,
)
from mi_crow.mechanistic.features.search import HeldSearch, SearchColumns, searched_concepts
from mi_crow.mechanistic.sae.fitting import check_has_feature
from mi_crow.store.workspace import Workspace

_FEW_CHANGED = 256  # features whose concepts are read one by one

__all__ = [
    "RELEVANCE",
    "SORTS",
    "Coactivation",
    "CofiringTokens",
    "Example",
    "FeatureDetail",
    "FeatureFilter",
    "FeatureRow",
    "FeatureStore",
    "IndexMeta",
    "LabelScore",
    "Neighbour",
    "TextFeature",
]


@dataclass(frozen=True)
class _Opened:
    """One attached file and what is kept of it in memory; replaced as a whole after a rebuild."""

    connection: IndexConnection
    meta: IndexMeta
    columns: FeatureColumns
    _lock: threading.RLock = field(default_factory=threading.RLock)

    # Read when first needed and then kept; no two threads read them at once.

    @property
    def token_texts(self) -> TokenTexts:
        with self._lock:
            return self._token_texts

    @cached_property
    def searched(self) -> HeldSearch:
        return HeldSearch(lambda: SearchColumns.read(self.connection, self.meta.n_features))

    @cached_property
    def _token_texts(self) -> TokenTexts:
        return TokenTexts(self.connection)


class FeatureStore:
    """The index of one SAE joined with its concepts. Every method may be called from any thread."""

    def __init__(self, path: Path, sae_id: str, annotations: ConceptSource | None) -> None:
        """Use `open`."""
        self.path = path
        self.sae_id = sae_id
        self._annotations = annotations
        # Around replacing what is kept in memory, never around a query.
        self._lock = threading.Lock()
        version = self._concepts_version()
        # Starting DuckDB takes as long as reading the concepts.
        with ThreadPoolExecutor(1) as meanwhile:
            concepts = meanwhile.submit(self._concepts)
            opened = _open(path, sae_id)
        self._in_table: ConceptColumns | None = None  # what the table of the concepts says
        # One reference: an answer never mixes one index with the concepts of another.
        self._held = opened, self._join(opened, version, *concepts.result())

    @classmethod
    def open(
        cls, workspace: Workspace, sae_id: str, annotations: ConceptSource | None = None
    ) -> "FeatureStore":
        """Opens the index of an SAE.

        Raises NotFoundError without the SAE or its index, UserError for an index of another
        schema, CorruptDataError for a damaged one.
        """
        return cls(workspace.index_path(sae_id), sae_id, annotations)

    # The file and the concepts.

    def meta(self) -> IndexMeta:
        return self._held[0].meta

    @property
    def connection(self) -> IndexConnection:
        return self._held[0].connection

    def columns(self) -> FeatureColumns:
        """The figures of all features, an array each."""
        return self._held[0].columns

    def changed_on_disk(self) -> bool:
        """Whether the index was rebuilt or its features got other names since it was opened; cheap
        enough for every second."""
        now, connection = identity(self.path), self._held[0].connection
        if now is None:
            return False
        return now != connection.identity or connection.proposals.changed_on_disk()

    def reopen(self) -> None:
        """Opens the current file. Raises what `open` does; the old one then stays open."""
        opened = _open(self.path, self.sae_id)
        with self._lock:
            # The old connection stays open for threads that are still reading from it.
            version = self._concepts_version()
            self._held = opened, self._join(opened, version, *self._concepts())
            self._in_table = None

    def refresh_concepts(self) -> bool:
        """Reads the concepts again if they have changed; returns whether they had."""
        version = self._concepts_version()
        with self._lock:
            opened, named = self._held
            if version == named.version:
                return False
            self._held = opened, self._rejoined(opened, named, version)
            return True

    def _rejoined(self, opened: _Opened, named: ConceptColumns, version: int) -> ConceptColumns:
        """The concepts as they are now; of few that changed only these are read."""
        annotations = self._annotations
        assert annotations is not None
        changed = annotations.features_changed(self.sae_id, named.mark, _FEW_CHANGED)
        if not changed:  # many, or something else than names changed
            return self._join(opened, version, *self._concepts())
        mark = annotations.mark()
        some = [one for feature in changed for one in annotations.concepts(self.sae_id, feature)]
        now = named.changed(version, mark, changed, some)
        if self._in_table is named:
            opened.connection.replace_rows("concepts", changed, searched_concepts(now, changed))
            self._in_table = now
        return now

    def _concepts_version(self) -> int:
        return self._annotations.data_version() if self._annotations is not None else 0

    def _concepts(self) -> tuple[tuple[int, int], list[Concept]]:
        """The concepts, and where the history was before they were read."""
        if self._annotations is None:
            return (0, 0), []
        return self._annotations.mark(), self._annotations.concepts(self.sae_id)

    @staticmethod
    def _join(
        opened: _Opened, version: int, mark: tuple[int, int], concepts: Sequence[Concept]
    ) -> ConceptColumns:
        return ConceptColumns.of(version, opened.meta.n_features, concepts, mark)

    def concept_table(self) -> IndexConnection:
        """The connection, with the concepts in its table memory.main.concepts."""
        return self._with_table(*self._held).connection

    def _with_table(self, opened: _Opened, named: ConceptColumns) -> _Opened:
        with self._lock:  # written for the first question that joins them
            if self._in_table is not named:
                rows = searched_concepts(named, named.concepts)
                opened.connection.replace_table("concepts", rows)
                self._in_table = named
        return opened

    def named(self) -> ConceptColumns:
        """The concepts by columns."""
        return self._held[1]

    def concepts(self) -> Mapping[int, tuple[Concept, ...]]:
        """The concepts by feature, the most confident first."""
        return self._held[1].concepts

    # The table.

    def rest(self) -> None:
        """Gives back what only searches need, where none has come for a while, and what was kept
        of the file, and reads the rest of what the first answers were part of."""
        self._held[0].searched.rest()
        self._held[0].connection.rest()
        self._held[0].connection.proposals.read_begun()

    def ids(
        self,
        sort: str | None = None,
        descending: bool = True,
        search: str | None = None,
        flt: FeatureFilter | None = None,
    ) -> np.ndarray:
        """All features that match, in order: int32 [n]. Hold it and ask for the rows in view.

        `sort` is one of SORTS, `auroc:` and a label, or, with a `search`, RELEVANCE: how well they
        match, the denser ones first among equals. None is RELEVANCE with a search and density
        without. Features without a value come last. Raises UserError for an unknown sort or label.
        """
        return self.find(FeatureQuery(search=(search or "").strip()), sort, descending, flt)

    def find(
        self,
        query: FeatureQuery,
        sort: str | None = None,
        descending: bool = True,
        flt: FeatureFilter | None = None,
    ) -> np.ndarray:
        """All features that a query matches, in order: int32 [n]. An order given here comes before
        that of the query. Raises UserError for an unknown order, label or feature."""
        if sort is None and query.sort is not None:
            sort, descending = query.sort, query.descending is not False
        opened, named = self._held
        with opened.connection.fitting():
            columns = opened.columns
            matcher = QueryMatcher(
                opened.connection,
                columns,
                named,
                lambda: self._with_table(opened, named).searched.columns(),
            )
            matches = matcher.matches(query)
            keep = matches.keep & columns.matching(flt or FeatureFilter(), named)
            if sort is None:
                sort = "density" if matches.scores is None else RELEVANCE
            if sort != RELEVANCE:
                order = columns.order(sort, descending, named, opened.connection)
                return order[keep[order]]
            if matches.scores is None:
                raise UserError(
                    f"order {RELEVANCE!r} needs a search",
                    hint=f"search for a text, or use {', '.join(SORTS)}",
                )
            # The denser ones first among equals.
            order = columns.order("density", True, named, opened.connection)
            found = order[keep[order]]
            return found[ordered(matches.scores[found], descending)]

    def rows(self, ids: Sequence[int] | np.ndarray, more: Sequence[str] = ()) -> list[FeatureRow]:
        """The rows of some features, in the order given, with what the columns `more` (names of the
        catalogue) say. Raises NotFoundError, and UserError for a column that is not there."""
        opened, named = self._held
        self._check_all(opened, ids)
        with opened.connection.fitting():
            rows = self._rows(opened, named, ids)
            if not more or not rows:
                return rows
            chosen = np.asarray(ids, dtype=np.int64)
            values = more_values(
                more, chosen, opened.columns, named, opened.connection, opened.token_texts
            )
            return [replace(row, more=extra) for row, extra in zip(rows, values, strict=False)]

    def figures(self) -> tuple[np.ndarray, np.ndarray]:
        """Density and greatest activation of every feature: [n], [n]."""
        return self._held[0].columns.density, self._held[0].columns.max_act

    @staticmethod
    def _rows(
        opened: _Opened, named: ConceptColumns, ids: Sequence[int] | np.ndarray
    ) -> list[FeatureRow]:
        return opened.connection.proposals.added_to(opened.columns.rows(ids, named.names))

    def map(self) -> FeatureMap:
        """Where each feature lies on the map of decoder directions."""
        opened, named = self._held
        return read_map(opened.columns, named, opened.connection)

    def page(
        self,
        sort: str | None = None,
        descending: bool = True,
        search: str | None = None,
        offset: int = 0,
        limit: int = 50,
        flt: FeatureFilter | None = None,
    ) -> list[FeatureRow]:
        """One page of the table."""
        return self.rows(self.ids(sort, descending, search, flt)[offset : offset + limit])

    def search(self, text: str, limit: int = 50) -> list[FeatureRow]:
        """The features that match `text` best."""
        return self.page(search=text, limit=limit) if text.strip() else []

    # One feature.

    def detail(self, feature: int) -> FeatureDetail:
        """Everything about a feature except its examples. Raises NotFoundError."""
        opened, named = self._held
        check_has_feature(feature, self.sae_id, opened.meta.n_features)
        with opened.connection.fitting():
            [row] = self._rows(opened, named, [feature])
            concepts = named.concepts.get(feature, ())
            return read_detail(opened.connection, opened.meta, row, concepts, opened.token_texts)

    def examples(self, feature: int, band: int = 0, limit: int = 20) -> list[Example]:
        """Examples of one band (0: top activations; 1..: quantile bands, 1 the highest).

        Raises NotFoundError for an unknown feature; a band without examples is empty.
        """
        opened, _ = self._held
        check_has_feature(feature, self.sae_id, opened.meta.n_features)
        with opened.connection.fitting():
            return read_examples(opened.connection, feature, band, limit).get(band, [])

    def all_examples(self, feature: int, limit: int = 20) -> dict[int, list[Example]]:
        """Up to `limit` examples of every band that has some, in one query. Raises
        NotFoundError."""
        opened, _ = self._held
        check_has_feature(feature, self.sae_id, opened.meta.n_features)
        with opened.connection.fitting():
            return read_examples(opened.connection, feature, None, limit)

    # Questions beyond one feature.

    def best_labels(self, features: Sequence[int]) -> dict[int, LabelScore]:
        """How well some features predict their best label, in one query; features without one are
        left out. Raises NotFoundError."""
        opened, _ = self._held
        self._check_all(opened, features)
        with opened.connection.fitting():
            chosen = np.asarray(features, dtype=np.int64)
            best = opened.columns.best[chosen]
            known = best >= 0
            labels = [opened.columns.labels[number] for number in best[known].tolist()]
            return read_label_scores(opened.connection, chosen[known].tolist(), labels)

    def on_text(self, text: str, limit: int = 50) -> tuple[int, list[TextFeature]]:
        """How many indexed documents contain every word of `text`, and the features that are strong
        in them, strongest first (as in `on_text.features_on_text`)."""
        opened, named = self._held
        with opened.connection.fitting():
            found = features_on_text(opened.connection, opened.columns.max_act, text)
            rows = opened.columns.rows(found.feature[:limit], named.names)
            counts, strengths = found.documents.tolist(), found.strength.tolist()
            return found.matching, [
                TextFeature(row, count, strength)
                for row, count, strength in zip(rows, counts, strengths, strict=False)
            ]

    def _check_all(self, opened: _Opened, features: Sequence[int] | np.ndarray) -> None:
        if len(features):
            for feature in (int(np.min(features)), int(np.max(features))):
                check_has_feature(feature, self.sae_id, opened.meta.n_features)


def _open(path: Path, sae_id: str) -> _Opened:
    connection = connect(path, sae_id)
    _ = connection.proposals  # what is on disk now, so that a change is noticed
    try:
        with connection.fitting():
            columns = FeatureColumns.read(connection)
            values = dict(connection.rows("SELECT key, value FROM idx.meta"))
            meta = checked_meta(sae_id, values, columns.labels, len(columns))
            return _Opened(connection, meta, columns)
    except MiCrowError:
        connection.database.close()  # else the file stays attached as long as the error exists
        raise
