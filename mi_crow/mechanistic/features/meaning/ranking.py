"""How well each feature fits a question, by BM25 over fields. Torch-free.

A feature has a name and tags, a proposed name or an explanation, a label, promoted tokens, and the
texts of its strongest activations. Their counts of a word are weighted and saturated together
(BM25F: Robertson, Zaragoza and Taylor 2004, "Simple BM25 extension to multiple weighted fields");
a word weighs by how few of the indexed documents have it.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from mi_crow.mechanistic.features.beside.proposals import Lines
from mi_crow.mechanistic.features.meaning.static_embeddings import StaticEmbeddings
from mi_crow.mechanistic.features.meaning.words import (
    CONCEPTS,
    DOCUMENTS,
    TOKENS,
    further_words,
    has,
    having,
    question_words,
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
        weights = dict.fromkeys(words, 1.0)
        documents = having(self.connection, DOCUMENTS, words)
        together = _together(list(documents.values()))
        more = further_words(self.connection, words, together)
        if self.embeddings is not None:
            near = self.embeddings.near(words, text)
            more |= {stem(word): weight for word, weight in near.items() if stem(word) not in words}
        documents |= having(self.connection, DOCUMENTS, list(more))
        weights |= more
        total = self._documents
        fields = self._fields(list(weights))
        scores = np.zeros(len(self.columns))
        for word, weight in weights.items():
            in_texts = self._in_texts(documents[word], total)
            count = self._counts(word, in_texts, [(one[word], by) for one, by in fields])
            rarity = np.log(1 + (total - len(documents[word]) + 0.5) / (len(documents[word]) + 0.5))
            scores += weight * rarity * count / (count + _SATURATION)
        return np.where(scores >= _LEAST * scores.max(initial=0.0), scores, 0.0)

    @property
    def _documents(self) -> int:
        return int(self.connection.rows("SELECT count(*) FROM idx.stored_documents")[0][0])

    def _fields(self, words: list[str]) -> "list[tuple[dict[str, np.ndarray], float]]":
        """The fields but for texts and labels: word -> the features with it, as often as they have
        it, and what each time counts."""
        names = self.connection.proposals.folded_names()
        tokens = having(self.connection, TOKENS, words)
        return [
            (having(self.connection, CONCEPTS, words), _NAME),
            ({word: self._proposed(word, names) for word in words}, _PROPOSED),
            ({word: self._promoting(tokens[word]) for word in words}, _TOKEN),
        ]

    def _counts(
        self, word: str, in_texts: np.ndarray, fields: "list[tuple[np.ndarray, float]]"
    ) -> np.ndarray:
        """The weighted count of a word in each feature's fields: float64 [n_features]."""
        size = len(self.columns)
        counts = _TEXT * in_texts
        for features, weight in fields:
            if len(features):
                counts += weight * np.bincount(features, minlength=size)[:size]
        for number, label in enumerate(self.columns.labels):
            if has(label, word):
                hits = self.columns.label == number
                counts[hits] += _LABEL * self.columns.auroc[hits]
        return counts

    def _in_texts(self, documents: np.ndarray, total: int) -> np.ndarray:
        """The share of each feature's strongest texts that have the word, beyond that of all
        texts: 0 to 1."""
        held = self.held.documents
        hits = held.hits(documents)
        found = np.diff(np.searchsorted(hits, held.starts)).astype(np.float64)
        examples = np.diff(held.starts)
        chance = len(documents) / max(total, 1)
        share = found / np.maximum(examples, 1)
        # A word in one of two texts says less than in ten of twenty.
        sure = examples / (examples + 2.0)
        return np.maximum(share - chance, 0) * sure

    def _proposed(self, word: str, names: Lines) -> np.ndarray:
        """The features with the word in their explanation or, without one, their proposed name."""
        said = self.connection.proposals.explanations
        found = names.having(word, lambda name: has(name, word))
        found = found[~np.isin(found, list(said))] if said else found
        explained = [one.feature for one in said.values() if has(one.text, word)]
        return np.concatenate([found, np.array(explained, dtype=found.dtype)])

    def _promoting(self, tokens: np.ndarray) -> np.ndarray:
        """The features that promote some tokens, as often as they do."""
        held: Postings = self.held.tokens
        return np.searchsorted(held.starts, held.hits(tokens), side="right") - 1


def _together(found: "list[np.ndarray]") -> np.ndarray:
    """The documents that have most of the words; of one word all of its documents."""
    some = [one for one in found if len(one)]
    if not some:
        return np.zeros(0, dtype=np.int32)
    numbers, counts = np.unique(np.concatenate(some), return_counts=True)
    return numbers[counts == counts.max()]
