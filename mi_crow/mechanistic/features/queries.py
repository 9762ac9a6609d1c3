"""Every question about an indexed SAE: the table of features, one feature, its examples, search.

Torch-free; shared by the app and the command line. Answers are frozen dataclasses.
"""

import json
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mi_crow.errors import CorruptDataError, NotFoundError
from mi_crow.mechanistic.features.columns import SORTS, FeatureColumns, ordered
from mi_crow.mechanistic.features.connection import IndexConnection, connect, identity
from mi_crow.mechanistic.features.records import (
    Coactivation,
    Example,
    FeatureDetail,
    FeatureFilter,
    FeatureRow,
    IndexMeta,
    LabelScore,
    Neighbour,
)
from mi_crow.mechanistic.features.search import match_scores
from mi_crow.store.workspace import Workspace

if TYPE_CHECKING:
    from mi_crow.mechanistic.concepts.annotations import Annotations, Concept

__all__ = [
    "SORTS",
    "Coactivation",
    "Example",
    "FeatureDetail",
    "FeatureFilter",
    "FeatureRow",
    "FeatureStore",
    "IndexMeta",
    "LabelScore",
    "Neighbour",
]

_META_KEYS = ("sae_id", "model_id", "layer", "n_features", "n_tokens", "n_documents", "built_at")


@dataclass(frozen=True)
class _Opened:
    """One attached file with what is held of it; replaced whole when the index was rebuilt."""

    connection: IndexConnection
    meta: IndexMeta
    columns: FeatureColumns


@dataclass(frozen=True)
class _Named:
    """The concepts of this SAE as of one version of the annotations."""

    version: int
    concepts: "dict[int, tuple[Concept, ...]]"  # by feature, most confident first
    names: dict[int, str]


class FeatureStore:
    """The index of one SAE joined with its concepts. Every method may be called from any thread."""

    def __init__(self, path: Path, sae_id: str, annotations: "Annotations | None") -> None:
        """Use `open`."""
        self.path = path
        self.sae_id = sae_id
        self._annotations = annotations
        self._lock = threading.Lock()  # around replacing what is held, never around a query
        version = self._concepts_version()
        opened = _open(path, sae_id)
        # One reference: an answer never mixes one index with the concepts of another.
        self._held = opened, self._read_concepts(opened, version)

    @classmethod
    def open(
        cls, workspace: Workspace, sae_id: str, annotations: "Annotations | None" = None
    ) -> "FeatureStore":
        """Opens the index of an SAE.

        Raises NotFoundError without the SAE or its index, UserError for an index of another
        schema, CorruptDataError for a damaged one.
        """
        return cls(workspace.index_path(sae_id), sae_id, annotations)

    # The file and the concepts.

    def meta(self) -> IndexMeta:
        return self._held[0].meta

    def changed_on_disk(self) -> bool:
        """Whether the index was rebuilt since it was opened; cheap enough for every second."""
        now = identity(self.path)
        return now is not None and now != self._held[0].connection.identity

    def reopen(self) -> None:
        """Opens the file that is there now. Raises what `open` does; then the old one stays."""
        opened = _open(self.path, self.sae_id)
        with self._lock:
            # The old connection is left to those who are still reading from it.
            self._held = opened, self._read_concepts(opened, self._concepts_version())

    def refresh_concepts(self) -> bool:
        """Reads the concepts again when anybody changed them; gives whether that was so."""
        version = self._concepts_version()
        with self._lock:
            opened, named = self._held
            if version == named.version:
                return False
            self._held = opened, self._read_concepts(opened, version)
            return True

    def _concepts_version(self) -> int:
        return self._annotations.data_version() if self._annotations is not None else 0

    def _read_concepts(self, opened: _Opened, version: int) -> _Named:
        """The concepts of the features that `opened` has, also as its table `concepts`."""
        found = self._annotations.concepts(self.sae_id) if self._annotations is not None else []
        total = opened.meta.n_features
        by_feature: dict[int, list[Concept]] = {}
        for concept in found:
            if concept.feature < total:
                by_feature.setdefault(concept.feature, []).append(concept)
        concepts = {
            feature: tuple(sorted(some, key=lambda one: (-one.confidence, -one.updated)))
            for feature, some in by_feature.items()
        }
        names = {feature: some[0].name for feature, some in concepts.items()}
        self._fill_concepts(opened, concepts)
        return _Named(version, concepts, names)

    @staticmethod
    def _fill_concepts(opened: _Opened, concepts: "dict[int, tuple[Concept, ...]]") -> None:
        import pyarrow as pa

        flat = [one for some in concepts.values() for one in some]
        rows = pa.table(
            {
                "feature": pa.array([one.feature for one in flat], pa.int32()),
                "name": pa.array([one.name for one in flat], pa.string()),
                "confidence": pa.array([one.confidence for one in flat], pa.float64()),
                "haystack": pa.array(
                    ["\n".join((one.name, one.note, *one.tags)).lower() for one in flat],
                    pa.string(),
                ),
            }
        )
        opened.connection.replace_table("concepts", rows)

    # The table.

    def ids(
        self,
        sort: str = "density",
        descending: bool = True,
        search: str | None = None,
        flt: FeatureFilter | None = None,
    ) -> np.ndarray:
        """All features that match, in order: int32 [n]. Hold it and ask for the rows in view.

        With a `search` the best matches come first and `sort` decides between equal ones.
        Features without a value come last. Raises UserError for an unknown sort or label.
        """
        opened, named = self._held
        columns = opened.columns
        keep = columns.matching(flt or FeatureFilter(), named.concepts)
        order = columns.order(sort, descending, named.names)
        if search is None or not search.strip():
            return order[keep[order]]
        scores = match_scores(opened.connection, columns, search)
        found = order[(keep & (scores > 0))[order]]
        return found[ordered(scores[found], descending=True)]

    def rows(self, ids: Sequence[int] | np.ndarray) -> list[FeatureRow]:
        """The rows of some features, in the order given. Raises NotFoundError."""
        opened, named = self._held
        if len(ids):
            self._check(opened, int(np.min(ids)))
            self._check(opened, int(np.max(ids)))
        return opened.columns.rows(ids, named.names)

    def page(
        self,
        sort: str = "density",
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
        return self.page("density", search=text, limit=limit) if text.strip() else []

    # One feature.

    def detail(self, feature: int) -> FeatureDetail:
        """Everything about a feature but its examples. Raises NotFoundError."""
        opened, named = self._held
        self._check(opened, feature)
        read = opened.connection.rows
        [facts] = read(
            "SELECT std_act, decoder_norm, encoder_decoder_cosine, skew, kurtosis, map_x, map_y, "
            "histogram FROM idx.features WHERE feature = ?",
            [feature],
        )
        tokens = read(
            "SELECT sign, token, value FROM idx.logits JOIN idx.tokens USING (token_id) "
            "WHERE feature = ? ORDER BY sign, rank",
            [feature],
        )
        neighbours = read(
            "SELECT other, cosine FROM idx.neighbours WHERE feature = ? ORDER BY rank", [feature]
        )
        coactivations = read(
            "SELECT other, jaccard, count FROM idx.coactivations WHERE feature = ? ORDER BY rank",
            [feature],
        )
        labels = read(
            "SELECT label, auroc, auroc_heldout, mean_act, lift FROM idx.feature_labels "
            "WHERE feature = ? ORDER BY auroc DESC NULLS LAST, label",
            [feature],
        )
        *numbers, map_x, map_y, histogram = facts
        return FeatureDetail(
            opened.columns.rows([feature], named.names)[0],
            *numbers,
            map=(map_x, map_y),
            histogram=tuple(histogram or ()),
            edges=opened.meta.edges,
            promoted=tuple((token, value) for sign, token, value in tokens if sign > 0),
            suppressed=tuple((token, value) for sign, token, value in tokens if sign < 0),
            neighbours=tuple(Neighbour(*row) for row in neighbours),
            coactivations=tuple(Coactivation(*row) for row in coactivations),
            labels=tuple(LabelScore(*row) for row in labels),
            concepts=named.concepts.get(feature, ()),
        )

    def examples(self, feature: int, band: int = 0, limit: int = 20) -> list[Example]:
        """Examples of one band (0: the strongest; 1..: quantile bands, 1 the highest).

        Raises NotFoundError for a feature that is not there; a band without examples is empty.
        """
        opened, _ = self._held
        self._check(opened, feature)
        rows = opened.connection.rows(
            """
            SELECT e.document, e.position, e.activation, e.window_start,
                d.token_texts[e.window_start + 1 : e.window_start + len(e.acts)], e.acts,
                d.text, d.label
            FROM (
                SELECT * FROM idx.examples WHERE feature = ? AND band = ? ORDER BY rank LIMIT ?
            ) e JOIN idx.documents d USING (document) ORDER BY e.rank
            """,
            [feature, band, limit],
        )
        return [Example(*row) for row in rows]

    def _check(self, opened: _Opened, feature: int) -> None:
        total = opened.meta.n_features
        if not 0 <= feature < total:
            raise NotFoundError(
                f"feature {feature} is not in SAE {self.sae_id!r}",
                hint=f"its features are 0 to {total - 1}",
            )


def _open(path: Path, sae_id: str) -> _Opened:
    connection = connect(path, sae_id)
    columns = FeatureColumns.read(connection)
    return _Opened(connection, _read_meta(connection, columns), columns)


def _read_meta(connection: IndexConnection, columns: FeatureColumns) -> IndexMeta:
    values: dict[str, Any] = dict(connection.rows("SELECT key, value FROM idx.meta"))
    try:
        other = {
            key: value
            for key, value in values.items()
            if key not in (*_META_KEYS, "sources", "schema_version", "histogram_edges", "bands")
        }
        return IndexMeta(
            sae_id=values["sae_id"],
            model_id=values["model_id"],
            layer=values["layer"],
            n_features=int(values["n_features"]),
            n_tokens=int(values["n_tokens"]),
            n_documents=int(values["n_documents"]),
            built_at=float(values["built_at"]),
            sources=tuple(json.loads(values["sources"])),
            schema_version=int(values["schema_version"]),
            edges=tuple(json.loads(values["histogram_edges"])),
            labels=columns.labels,
            bands=int(values["bands"]),
            other=other,
        )
    except (KeyError, TypeError, ValueError) as error:
        raise CorruptDataError(
            f"the feature index of {connection.sae_id!r} cannot be read ({error!r})",
            hint=f"mi-crow index --sae {connection.sae_id} builds it again; concepts stay",
        ) from error
