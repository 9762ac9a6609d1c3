"""How well each feature fits a question, by BM25 over fields. Torch-free.

A feature has a name and tags, a proposed name or an explanation, a label, promoted tokens, and the
texts of its strongest activations. Their counts of a word are weighted and saturated together
(BM25F: Robertson, Zaragoza and Taylor 2004, "Simple BM25 extension to multiple weighted fields");
a word weighs by how few of the indexed documents have it.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from mi_crow.mechanistic.features.meaning.static_embeddings import StaticEmbeddings
from mi_crow.mechanistic.features.meaning.words import (
    documents_of,
    forms,
    further_words,
    has,
    question_words,
    standing,
    stem,
)

if TYPE_CHECKING:
    from mi_crow.mechanistic.features.columns import FeatureColumns
    from mi_crow.mechanistic.features.connection import IndexConnection
    from mi_crow.mechanistic.features.search import Postings, SearchColumns

_SATURATION = 1.2  # k1
_NAME, _PROPOSED, _LABEL, _TOKEN, _TEXT = 4.0, 3.0, 2.0, 1.0, 4.0
_LEAST = 0.1  # of the best feature's score, for one to be found


@dataclass(frozen=True)
class Meanings:
    """What a question is compared with: one index and the concepts that are joined with it."""

    connection: "IndexConnection"
    columns: "FeatureColumns"
    held: "SearchColumns"
    embeddings: StaticEmbeddings | None = None

    def scores(self, text: str) -> np.ndarray:
        """How well each feature fits: float64 [n_features], 0 for those that hardly do."""
        words = question_words(text)
        weights, documents = dict.fromkeys(words, 1.0), {}
        for word in words:
            documents[word] = documents_of(self.connection, word)
        together = _together(list(documents.values()))
        more = further_words(self.connection, words, together)
        if self.embeddings is not None:
            near = self.embeddings.near(words, text)
            more |= {stem(word): weight for word, weight in near.items() if stem(word) not in words}
        for word, weight in more.items():
            documents[word] = documents_of(self.connection, word)
            weights[word] = weight
        total = self._documents
        scores = np.zeros(len(self.columns))
        for word, weight in weights.items():
            count = self._counts(word, documents[word])
            rarity = np.log(1 + (total - len(documents[word]) + 0.5) / (len(documents[word]) + 0.5))
            scores += weight * rarity * count / (count + _SATURATION)
        return np.where(scores >= _LEAST * scores.max(initial=0.0), scores, 0.0)

    @property
    def _documents(self) -> int:
        return int(self.connection.rows("SELECT count(*) FROM idx.stored_documents")[0][0])

    def _counts(self, word: str, documents: np.ndarray) -> np.ndarray:
        """The weighted count of a word in each feature's fields: float64 [n_features]."""
        size = len(self.columns)
        counts = _TEXT * self._in_texts(documents)
        fields = (
            (self._named(word), _NAME),
            (self._proposed(word), _PROPOSED),
            (self._promoting(word), _TOKEN),
        )
        for features, weight in fields:
            counts += weight * np.bincount(features, minlength=size)[:size]
        for number, label in enumerate(self.columns.labels):
            if has(label, word):
                hits = self.columns.label == number
                counts[hits] += _LABEL * self.columns.auroc[hits]
        return counts

    def _in_texts(self, documents: np.ndarray) -> np.ndarray:
        """The share of each feature's strongest texts that have the word, beyond that of all
        texts: 0 to 1."""
        held = self.held.documents
        hits = held.hits(documents)
        found = np.diff(np.searchsorted(hits, held.starts)).astype(np.float64)
        examples = np.diff(held.starts)
        chance = len(documents) / max(self._documents, 1)
        share = found / np.maximum(examples, 1)
        # A word in one of two texts says less than in ten of twenty.
        sure = examples / (examples + 2.0)
        return np.maximum(share - chance, 0) * sure

    def _named(self, word: str) -> np.ndarray:
        """The features with a concept whose name, note or tags have the word."""
        found = self.connection.columns(
            "SELECT feature FROM memory.main.concepts WHERE regexp_matches(haystack, ?)",
            [standing(word)],
        )
        return found["feature"]

    def _proposed(self, word: str) -> np.ndarray:
        """The features with the word in their explanation or, without one, their proposed name."""
        proposals = self.connection.proposals
        said = proposals.explanations
        names = proposals.matching("name", standing(word))
        names = names[~np.isin(names, list(said))] if said else names
        explained = [one.feature for one in said.values() if has(one.text, word)]
        return np.concatenate([names, np.array(explained, dtype=names.dtype)])

    def _promoting(self, word: str) -> np.ndarray:
        """The features that promote a form of the word, as often as they do."""
        wanted = self.connection.columns(
            "SELECT token_id FROM idx.tokens WHERE regexp_full_match(lower(trim(token)), ?)",
            [forms(word)],
        )
        tokens: Postings = self.held.tokens
        hits = tokens.hits(wanted["token_id"])
        return np.searchsorted(tokens.starts, hits, side="right") - 1


def _together(found: "list[np.ndarray]") -> np.ndarray:
    """The documents that have most of the words; of one word all of its documents."""
    some = [one for one in found if len(one)]
    if not some:
        return np.zeros(0, dtype=np.int32)
    numbers, counts = np.unique(np.concatenate(some), return_counts=True)
    return numbers[counts == counts.max()]
