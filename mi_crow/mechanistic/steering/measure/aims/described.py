"""Features for a description in words, and the texts that it is about. Torch-free.

Three rankings are joined by the sums of their reciprocal ranks (Cormack, Clarke and Büttcher 2009,
"Reciprocal rank fusion outperforms Condorcet"): what features are called, the texts that they are
strongest in, both by BM25 (Robertson and Zaragoza 2009, "The probabilistic relevance framework",
equation 3.15), and the contrast of the texts that match with others.
"""

import math
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from mi_crow.errors import NotFoundError, UserError
from mi_crow.mechanistic.features.queries import FeatureStore
from mi_crow.mechanistic.steering.measure.aims.allies import told_apart
from mi_crow.mechanistic.steering.measure.texts import Document, IndexedTexts

MOST = 8  # candidates
_K1, _B = 1.2, 0.75  # of BM25
_RANKS = 60.0  # of the fusion
_FOUND = 200  # features that a word finds
_MATCHING = 64  # texts that a description is about
_FEWEST = 5
_STRONG, _WEAK = 0.5, 0.1  # of the best match: texts that are about it, texts that are not
_WORDS = re.compile(r"\w+")
_ENDINGS = re.compile(r"(?<=\w{3})(?:ings?|ed|es|s|y|ies)$")


@dataclass(frozen=True)
class Candidate:
    """A feature, and its ranks from 1 in the rankings that it is in."""

    feature: int
    score: float
    ranks: Mapping[str, int]  # names | texts | contrast

    def as_json(self) -> dict[str, Any]:
        return {"feature": self.feature, "score": self.score, "ranks": dict(self.ranks)}


def words_of(text: str) -> list[str]:
    """The words of a text without case and the commonest endings: `ships` is `ship`."""
    return [_ENDINGS.sub("", word) for word in _WORDS.findall(text.lower())]


class Bm25:
    """How well texts match the words of a query, given how often these stand in a corpus."""

    def __init__(self, query: str, corpus: Sequence[str]) -> None:
        self._words = frozenset(words_of(query))
        bags = [self._bag(text) for text in corpus]
        lengths = [len(text.split()) for text in corpus]
        self._length = max(sum(lengths) / max(len(corpus), 1), 1.0)
        counts = Counter(word for bag in bags for word in bag)
        self._weights = {
            word: math.log((len(corpus) - counts[word] + 0.5) / (counts[word] + 0.5) + 1)
            for word in self._words
        }
        pairs = zip(bags, lengths, strict=True)
        self.scores: np.ndarray = np.array([self._value(bag, length) for bag, length in pairs])

    def score(self, text: str) -> float:
        """Of a text, of the corpus or not; 0: no word of the query is in it."""
        return self._value(self._bag(text), len(text.split()))

    def tells(self, word: str) -> bool:
        """Whether a word of the query is about as rare in the corpus as its rarest one."""
        most = max(self._weights.values(), default=0.0)
        return any(self._weights.get(one, 0.0) >= _STRONG * most for one in words_of(word))

    def _bag(self, text: str) -> Counter[str]:
        """How often each word of the query stands in a text."""
        lower = text.lower()
        if not any(word in lower for word in self._words):
            return Counter()
        return Counter(word for word in words_of(text) if word in self._words)

    def _value(self, bag: Counter[str], length: int) -> float:
        damped = _K1 * (1 - _B + _B * length / self._length)
        return sum(
            self._weights[word] * count * (_K1 + 1) / (count + damped)
            for word, count in bag.items()
        )


def texts_described(
    texts: IndexedTexts, description: str
) -> tuple[list[Document], list[Document], Bm25]:
    """The indexed texts that match a description best, those that hardly do, and what matched
    them. Raises UserError where too few match."""
    documents = texts.documents
    matched = Bm25(description, [one.text for one in documents])
    order = np.argsort(-matched.scores, kind="stable")
    best = [int(at) for at in order[:_MATCHING] if matched.scores[at] > 0]
    if len(best) < _FEWEST:
        raise UserError(
            f"the words of {description[:60]!r} are in {len(best)} indexed texts: too few to learn "
            "what it is about",
            hint="describe it in words that such texts have, or give a feature or a regex",
        )
    greatest = matched.scores[best[0]]
    about = [at for at in best if matched.scores[at] >= _STRONG * greatest]
    about = about if len(about) >= _FEWEST else best[:_FEWEST]
    pairs = zip(documents, matched.scores, strict=True)
    others = [one for one, score in pairs if score < _WEAK * greatest]
    return [documents[at] for at in about], others, matched


def features_described(
    store: FeatureStore, texts: IndexedTexts, description: str, most: int = MOST
) -> tuple[Candidate, ...]:
    """The features that a description is about, the best first.

    Raises UserError for one without words, NotFoundError where no feature matches.
    """
    words = list(dict.fromkeys(_WORDS.findall(description.lower())))
    if not words:
        raise UserError("the description is empty", hint="say in words what should happen")
    contrast: list[int] = []
    try:
        about, others, matched = texts_described(texts, description)
    except UserError:  # its words may stand in names alone
        matched = Bm25(description, [one.text for one in texts.documents])
    else:
        sides = [[one.number for one in some if not one.heldout] for some in (about, others)]
        weight = told_apart(store, sides)
        order = np.argsort(-weight, kind="stable")[: 2 * most]
        contrast = [int(feature) for feature in order if weight[feature] > 0]
    telling = [word for word in words if matched.tells(word)]
    found = {row.feature for word in telling for row in store.search(word, _FOUND)}
    pool = sorted({*found, *contrast})
    rankings = {
        "names": _ranked(_by_names(store, pool, description)),
        "texts": _ranked(_by_texts(store, pool, matched)),
        "contrast": {feature: rank for rank, feature in enumerate(contrast, 1)},
    }
    scores: defaultdict[int, float] = defaultdict(float)
    for ranking in rankings.values():
        for feature, rank in ranking.items():
            scores[feature] += 1 / (_RANKS + rank)
    if not scores:
        raise NotFoundError(
            f"no feature is about {description.strip()[:60]!r}",
            hint="use other words, or give a feature's number or a label",
        )
    best = sorted(scores, key=lambda feature: (-scores[feature], feature))
    living = {row.feature for row in store.rows(best) if row.max_act}
    return tuple(
        Candidate(
            feature,
            scores[feature],
            {name: ranking[feature] for name, ranking in rankings.items() if feature in ranking},
        )
        for feature in best
        if feature in living
    )[:most]


def _by_names(store: FeatureStore, pool: Sequence[int], description: str) -> dict[int, float]:
    """How well what the features are called matches; an own name counts twice."""
    rows = store.rows(list(pool))
    concepts = store.concepts()
    called = {}
    for row in rows:
        own = concepts.get(row.feature, ())
        notes = [f"{one.name} {one.name} {one.note or ''}" for one in own]
        called[row.feature] = " ".join([*notes, row.proposed, row.top_label or ""])
    matched = Bm25(description, list(called.values()))
    return _positive(zip(called, matched.scores.tolist(), strict=True))


def _by_texts(store: FeatureStore, pool: Sequence[int], matched: Bm25) -> dict[int, float]:
    """How well the texts of the features' greatest activations match, the mean."""
    rows = store.connection.rows(
        "SELECT feature, document FROM idx.examples WHERE band = 0 "
        "AND feature IN (SELECT unnest(?::INTEGER[]))",
        [list(pool)],
    )
    texts = store.connection.rows(
        "SELECT document, text FROM idx.stored_documents "
        "WHERE document IN (SELECT unnest(?::INTEGER[]))",
        [sorted({document for _, document in rows})],
    )
    scores = {document: matched.score(text) for document, text in texts}
    found: dict[int, list[float]] = {}
    for feature, document in rows:
        found.setdefault(feature, []).append(scores.get(document, 0.0))
    return _positive((feature, sum(own) / len(own)) for feature, own in found.items())


def _positive(pairs: Iterable[tuple[int, float]]) -> dict[int, float]:
    return {feature: score for feature, score in pairs if score > 0}


def _ranked(scores: Mapping[int, float]) -> dict[int, int]:
    """Ranks from 1, the greatest score first."""
    order = sorted(scores, key=lambda feature: (-scores[feature], feature))
    return {feature: rank for rank, feature in enumerate(order, 1)}
