"""Finding features by text: names, labels, promoted tokens, example texts; ranked, torch-free."""

import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from mi_crow.clean_text import clean_text

if TYPE_CHECKING:
    from mi_crow.mechanistic.features.columns import ConceptColumns, FeatureColumns
    from mi_crow.mechanistic.features.connection import IndexConnection

REST_S: Final = 20.0  # without a search, after which its columns are given back
# The kind of match decides; what is added to it (below 50) orders matches of one kind.
_NUMBER, _EXACT_NAME, _NAME, _NOTE, _LABEL, _TOKEN, _TEXT = 500.0, 450, 400, 350, 300, 200, 100
_TOKEN_RANKS = 10  # promoted tokens that are searched
_LEAST_PREFIX = 3  # letters; shorter searches match whole tokens only
_FEATURES_AT_ONCE = 16_384
_IDS_AT_ONCE = 1 << 18
_FITS_16_BITS = 1 << 16
_WORDS_AT_ONCE = 32  # DuckDB refuses expressions that are hundreds deep


@dataclass(frozen=True)
class Postings:
    """Ids of each feature, one feature after the other: the documents of its top activations or
    the tokens that it promotes. Kept in memory: reading them takes longer than a search may."""

    starts: np.ndarray  # int64 [features + 1]
    ids: np.ndarray  # uint16 or int32 [total]
    ranks: np.ndarray | None = None  # int8 [total], of tokens

    @classmethod
    def documents(cls, connection: "IndexConnection", n_features: int) -> "Postings":
        query = "SELECT feature, document AS id FROM idx.examples WHERE band = 0"
        starts, ids, _ = cls._read(connection, query, n_features)
        return cls(starts, ids)

    @classmethod
    def tokens(cls, connection: "IndexConnection", n_features: int) -> "Postings":
        query = (
            "SELECT feature, token_id AS id, rank::TINYINT AS rank FROM idx.logits "
            f"WHERE sign = 1 AND rank < {_TOKEN_RANKS}"
        )
        return cls(*cls._read(connection, query, n_features))

    @staticmethod
    def _read(
        connection: "IndexConnection", query: str, n_features: int
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
        """What a query finds: starts, ids and, where it asks for them, ranks."""
        # Some features at a time: all rows at once would take several times what is kept.
        parts: dict[str, list[np.ndarray]] = {"id": [], "rank": []}
        counts = np.zeros(n_features + 1, dtype=np.int64)
        for first in range(0, n_features, _FEATURES_AT_ONCE):
            last = min(first + _FEATURES_AT_ONCE, n_features) - 1
            found = connection.columns(f"{query} AND feature BETWEEN ? AND ?", [first, last])
            feature = found.pop("feature")
            counts[first + 1 : last + 2] = np.bincount(feature - first, minlength=last - first + 1)
            # Rows are written in feature order, which a scan keeps; sorting is rarely needed.
            if len(feature) and (np.diff(feature) < 0).any():
                order = np.argsort(feature, kind="stable")
                found = {name: column[order] for name, column in found.items()}
            for name, column in found.items():
                parts[name].append(_small(column))
        ids = np.concatenate(parts["id"]) if parts["id"] else np.zeros(0, dtype=np.int32)
        ranks = np.concatenate(parts["rank"]) if parts["rank"] else None
        return np.cumsum(counts, out=counts), ids, ranks

    def hits(self, wanted: np.ndarray) -> np.ndarray:
        """Positions in `ids` of those that are in `wanted`, ascending."""
        if not len(wanted) or not len(self.ids):
            return np.zeros(0, dtype=np.int64)
        mask = np.zeros(int(max(wanted.max(), self.ids.max())) + 1, dtype=bool)
        mask[wanted] = True
        # Of all ids at once NumPy would make a copy of 8 bytes each.
        starts = range(0, len(self.ids), _IDS_AT_ONCE)
        parts = [np.flatnonzero(mask[self.ids[at : at + _IDS_AT_ONCE]]) + at for at in starts]
        return np.concatenate(parts)


def _small(numbers: np.ndarray) -> np.ndarray:
    """The same in two bytes each, where they fit."""
    if numbers.itemsize <= 2 or not len(numbers):
        return numbers
    fit = numbers.min() >= 0 and numbers.max() < _FITS_16_BITS
    return numbers.astype(np.uint16) if fit else numbers


@dataclass(frozen=True)
class SearchColumns:
    """What a search reads besides the texts themselves."""

    documents: Postings
    tokens: Postings

    @classmethod
    def read(cls, connection: "IndexConnection", n_features: int) -> "SearchColumns":
        return cls(
            Postings.documents(connection, n_features), Postings.tokens(connection, n_features)
        )


class HeldSearch:
    """What a search reads, read by the first search and kept for the next ones; from any thread."""

    def __init__(self, read: Callable[[], SearchColumns]) -> None:
        self._read = read
        self._lock = threading.Lock()
        self._columns: SearchColumns | None = None
        self._asked = 0.0

    def columns(self) -> SearchColumns:
        with self._lock:
            self._asked = time.monotonic()
            if self._columns is None:
                self._columns = self._read()
            return self._columns

    def rest(self) -> None:
        """Gives it back where no search has come for REST_S: with 131,072 features it is 11 MB,
        which are read again in 0.15 s."""
        if self._columns is None or not self._lock.acquire(blocking=False):
            return  # a search reads it just now
        try:
            if time.monotonic() - self._asked > REST_S:
                self._columns = None
        finally:
            self._lock.release()


def search_words(text: str) -> list[str]:
    """The distinct words of a search in lower case, longest first, without those that are part of
    another: what contains the longer word contains them too."""
    plain = clean_text(text).lower().split()
    kept: list[str] = []
    joined = ""
    for word in sorted(dict.fromkeys(plain), key=lambda word: -len(word)):
        if word not in joined:  # no word contains the space that joins them
            kept.append(word)
            joined += f" {word}"
    return kept


def match_scores(
    connection: "IndexConnection", columns: "FeatureColumns", held: SearchColumns, text: str
) -> np.ndarray:
    """How well each feature matches: [n_features], 0 for not at all.

    All words must be present, case is ignored, and no character is a wildcard. A feature's own
    number comes first, then names (equal ones before those that contain the words), notes and
    tags, the label it predicts best, the tokens it promotes, and last the texts of its top
    activations (the more of them, the better).
    """
    scores = np.zeros(len(columns))
    words = search_words(text)
    if not words:
        return scores
    phrase = " ".join(clean_text(text).lower().split())
    _raise(scores, *_text_matches(connection, held.documents, words))
    _raise(scores, *_token_matches(connection, held.tokens, phrase))
    for number, label in enumerate(columns.labels):
        if all(word in label.lower() for word in words):
            hits = np.flatnonzero(columns.label == number)
            _raise(scores, hits, _LABEL + 49 * columns.auroc[hits])
    for column, kind in (("haystack", _NOTE), ("lower(name)", _NAME)):
        _raise(scores, *_name_matches(connection, column, words, kind))
    _raise(scores, *_exact_names(connection, phrase))
    number = phrase.removeprefix("#")
    if len(number) < 12 and number.isascii() and number.isdigit() and int(number) < len(columns):
        scores[int(number)] = _NUMBER
    return scores


def documents_with(connection: "IndexConnection", words: list[str]) -> np.ndarray:
    """The documents whose text contains all words (in lower case): int32, ascending."""
    found: np.ndarray | None = None
    for first in range(0, len(words), _WORDS_AT_ONCE):
        some = words[first : first + _WORDS_AT_ONCE]
        condition = " AND ".join(["contains(lower(text), ?)"] * len(some))
        # Not by np.unique: it would import NumPy's masked arrays.
        query = f"SELECT DISTINCT document FROM idx.stored_documents WHERE {condition} ORDER BY 1"
        ids: np.ndarray = connection.columns(query, some)["document"]
        found = ids if found is None else np.intersect1d(found, ids, assume_unique=True)
        if not len(found):
            break
    return found if found is not None else np.zeros(0, dtype=np.int32)


def _raise(scores: np.ndarray, features: np.ndarray, values: np.ndarray) -> None:
    np.maximum.at(scores, features, values)


def _name_matches(
    connection: "IndexConnection", column: str, words: list[str], kind: float
) -> tuple[np.ndarray, np.ndarray]:
    """The concepts whose name, or name, note and tags contain all words, scored by confidence."""
    # One query: another thread may replace the table between two.
    found = connection.columns(
        "SELECT feature, confidence FROM memory.main.concepts "
        f"WHERE list_bool_and(list_transform(?::VARCHAR[], lambda word: contains({column}, word)))",
        [words],
    )
    return found["feature"], kind + 49 * found["confidence"]


def _exact_names(connection: "IndexConnection", phrase: str) -> tuple[np.ndarray, np.ndarray]:
    found = connection.columns(
        "SELECT feature, confidence FROM memory.main.concepts WHERE lower(name) = ?", [phrase]
    )
    return found["feature"], _EXACT_NAME + 49 * found["confidence"]


def _token_matches(
    connection: "IndexConnection", tokens: Postings, phrase: str
) -> tuple[np.ndarray, np.ndarray]:
    # The first condition is cheap and leaves few rows for the others.
    found = connection.columns(
        """
        SELECT token_id FROM idx.tokens WHERE contains(lower(token), ?)
            AND (lower(trim(token)) = ? OR (? AND starts_with(lower(trim(token)), ?)))
        """,
        [phrase, phrase, len(phrase) >= _LEAST_PREFIX, phrase],
    )
    hits = tokens.hits(found["token_id"])
    feature = np.searchsorted(tokens.starts, hits, side="right") - 1
    ranks = tokens.ranks[hits] if tokens.ranks is not None else np.zeros(len(hits))
    return feature, _TOKEN + _TOKEN_RANKS - ranks.astype(np.float64)


def _text_matches(
    connection: "IndexConnection", documents: Postings, words: list[str]
) -> tuple[np.ndarray, np.ndarray]:
    hits = documents.hits(documents_with(connection, words))
    counts = np.diff(np.searchsorted(hits, documents.starts))
    feature = np.flatnonzero(counts)
    return feature, _TEXT + np.minimum(counts[feature], 49).astype(np.float64)


def searched_concepts(
    named: "ConceptColumns", features: Iterable[int]
) -> dict[str, tuple[str, Sequence[Any]]]:
    """What a search reads of the concepts of some features: column -> DuckDB type and values."""
    flat = [one for feature in features for one in named.concepts.get(feature, ())]
    haystacks = ["\n".join((one.name, one.note, *one.tags)).lower() for one in flat]
    return {
        "feature": ("INTEGER", [one.feature for one in flat]),
        "name": ("VARCHAR", [one.name for one in flat]),
        "confidence": ("DOUBLE", [one.confidence for one in flat]),
        "haystack": ("VARCHAR", haystacks),
    }
