"""Which features a query matches, and how well. Torch-free."""

import operator
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING

import numpy as np

from mi_crow.errors import NotFoundError, UserError
from mi_crow.mechanistic.features.beside.latent_scaling import of_origin
from mi_crow.mechanistic.features.catalogue import LAYER, OF_PROPOSALS, ORIGIN
from mi_crow.mechanistic.features.columns import ConceptColumns, FeatureColumns
from mi_crow.mechanistic.features.meaning.ranking import Meanings
from mi_crow.mechanistic.features.meaning.static_embeddings import users_embeddings
from mi_crow.mechanistic.features.on_text import features_on_text
from mi_crow.mechanistic.features.query_language import (
    NUMBERS,
    Condition,
    FeatureQuery,
    QueryError,
    ranges_in,
)
from mi_crow.mechanistic.features.search import SearchColumns, match_scores

if TYPE_CHECKING:
    from mi_crow.mechanistic.features.connection import IndexConnection
    from mi_crow.mechanistic.features.records import Concept

_COMPARE: Mapping[str, Callable[[np.ndarray, float], np.ndarray]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
    "=": operator.eq,
}


@dataclass(frozen=True)
class Matches:
    """Masks and scores are [n_features]. `scores` order by relevance: of the words, else of
    `on:`, else of `like:`; None where the query asks for none of them."""

    keep: np.ndarray  # bool
    scores: np.ndarray | None


@dataclass(frozen=True)
class QueryMatcher:
    """Answers queries about one index joined with its concepts."""

    connection: "IndexConnection"
    columns: FeatureColumns
    concepts: ConceptColumns
    searched: Callable[[], SearchColumns]  # read when first asked for

    def matches(self, query: FeatureQuery) -> Matches:
        """Raises QueryError for a label or a feature that is not there."""
        keep = np.ones(len(self.columns), dtype=bool)
        scores: dict[str, np.ndarray] = {}
        if query.search:
            scores[""] = self._search(query.search)
            keep &= scores[""] > 0
        for condition in query.conditions:
            try:
                found, how_well = self._one(condition)
            except UserError as error:
                place = condition.start, condition.end
                raise QueryError(str(error), *place, error.hint) from error
            keep &= ~found if condition.negated else found
            if how_well is not None and not condition.negated:
                scores.setdefault(condition.name, how_well)
        best = next((scores[name] for name in ("", "on", "like") if name in scores), None)
        return Matches(keep, best)

    def _one(self, condition: Condition) -> tuple[np.ndarray, np.ndarray | None]:
        name, value = condition.name, condition.value
        if name in NUMBERS:
            values = self.columns.numbers(NUMBERS[name][0], self.connection)
            return _COMPARE[condition.sign](values, float(value)), None
        if name == LAYER:
            wanted = value if isinstance(value, str) else float(value)
            return self.connection.layers.matching(condition.sign, wanted), None
        if name == "on":
            found = features_on_text(self.connection, self.columns.max_act, str(value))
            return self._scored(found.feature, found.strength)
        if name == "like" and isinstance(value, str):
            scores = self._meanings().scores(value)
            return scores > 0, scores
        if name == "like":
            return self._scored(*self._like(int(value)))
        if name == "":
            return self._search(str(value)) > 0, None
        return self._plain(name, value), None

    def _plain(self, name: str, value: float | bool | str) -> np.ndarray:
        text = str(value).casefold()
        if name == "label":
            return self.columns.label == self.columns.label_number(str(value))
        if name == "named":
            return self.concepts.named == value
        if name == "note":
            return self.concepts.noted == value
        if name == "tag":
            bare = text.lstrip("#").strip()  # as tags are kept
            return self._with(lambda one: any(tag.casefold() == bare for tag in one.tags))
        if name == "concept":
            return self._with(lambda one: text in one.name.casefold())
        if name == "source":
            return self._with(lambda one: one.source.casefold().startswith(text))
        if name == "feature":
            size = len(self.columns)
            parts = (range(one.start, min(one.stop, size)) for one in ranges_in(text))
            return self._mask(chain.from_iterable(parts))
        if name == ORIGIN:
            return of_origin(self.connection, text, len(self.columns))
        if name in OF_PROPOSALS:
            column = "name" if name == "proposed" else name
            return self.connection.proposals.containing(str(value), column, len(self.columns))
        return self._promoting(str(value))

    def _search(self, text: str) -> np.ndarray:
        return match_scores(self.connection, self.columns, self.searched(), text)

    def _meanings(self) -> Meanings:
        return Meanings(self.connection, self.columns, self.searched(), users_embeddings())

    def _like(self, feature: int) -> tuple[np.ndarray, np.ndarray]:
        if feature >= len(self.columns):
            raise NotFoundError(
                f"feature {feature} is not in this SAE",
                hint=f"its features are 0 to {len(self.columns) - 1}",
            )
        found = self.connection.columns(
            "SELECT other, cosine FROM idx.neighbours WHERE feature = ?", [feature]
        )
        return found["other"], found["cosine"]

    def _promoting(self, token: str) -> np.ndarray:
        """Those whose most promoted tokens contain the text."""
        wanted = self.connection.columns(
            "SELECT token_id FROM idx.tokens WHERE contains(lower(token), ?)", [token.lower()]
        )
        tokens = self.searched().tokens
        hits = tokens.hits(wanted["token_id"])
        return self._mask(np.searchsorted(tokens.starts, hits, side="right") - 1)

    def _scored(self, features: np.ndarray, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        scores = np.full(len(self.columns), np.nan)
        scores[features] = values
        return self._mask(features), scores

    def _with(self, holds: "Callable[[Concept], bool]") -> np.ndarray:
        chosen = (f for f, some in self.concepts.concepts.items() if any(map(holds, some)))
        return self._mask(chosen)

    def _mask(self, features: Iterable[int]) -> np.ndarray:
        mask = np.zeros(len(self.columns), dtype=bool)
        chosen = features if isinstance(features, np.ndarray) else np.fromiter(features, np.int64)
        mask[chosen] = True
        return mask
