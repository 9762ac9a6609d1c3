"""Features for a description in words, and the texts that it is about. Torch-free.

Two rankings are joined by the sums of their reciprocal ranks (Cormack, Clarke and Büttcher 2009,
"Reciprocal rank fusion outperforms Condorcet"): the features that `like:` finds for the words, and
those that tell the texts that match from others.
"""

import math
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from mi_crow.errors import NotFoundError, UserError
from mi_crow.mechanistic.features.meaning.words import question_words, stem, words_of
from mi_crow.mechanistic.features.queries import FeatureStore
from mi_crow.mechanistic.features.query_language import Condition, FeatureQuery
from mi_crow.mechanistic.steering.measure.aims.allies import told_apart
from mi_crow.mechanistic.steering.measure.texts import Document, IndexedTexts

MOST = 8  # candidates
_K1, _B = 1.2, 0.75  # of BM25
_RANKS = 60.0  # of the fusion
_MATCHING = 64  # texts that a description is about
_FEWEST = 5
_STRONG, _WEAK = 0.5, 0.1  # of the best match: texts that are about it, texts that are not


@dataclass(frozen=True)
class DescribedFeature:
    """A feature, and its ranks from 1 in the rankings that it is in."""

    feature: int
    score: float
    ranks: Mapping[str, int]  # words | contrast

    def as_json(self) -> dict[str, Any]:
        return {"feature": self.feature, "score": self.score, "ranks": dict(self.ranks)}


def match_scores(description: str, corpus: Sequence[str]) -> np.ndarray:
    """How well each text matches the words of a description: float64 [texts], 0 without any.

    BM25 (Robertson and Zaragoza 2009, "The probabilistic relevance framework", equation 3.15); a
    word counts in all its forms, and by how few of the texts have it.
    """
    wanted = frozenset(question_words(description))
    counts = [_counts(text, wanted) for text in corpus]
    lengths = np.array([len(text.split()) for text in corpus], dtype=np.float64)
    damped = _K1 * (1 - _B + _B * lengths / max(lengths.mean() if len(corpus) else 0.0, 1.0))
    scores = np.zeros(len(corpus))
    for word in sorted(wanted):
        here = np.array([one[word] for one in counts], dtype=np.float64)
        texts = np.count_nonzero(here)
        rarity = math.log((len(corpus) - texts + 0.5) / (texts + 0.5) + 1)
        scores += rarity * here * (_K1 + 1) / (here + damped)
    return scores


def _counts(text: str, wanted: frozenset[str]) -> Counter[str]:
    """How often each of the wanted words is in a text, in any form."""
    lower = text.casefold()
    if not any(word in lower for word in wanted):
        return Counter()
    stems = (stem(word) for word in words_of(text))
    return Counter(word for word in stems if word in wanted)


def texts_described(texts: IndexedTexts, description: str) -> tuple[list[Document], list[Document]]:
    """The indexed texts that match a description best, and those that hardly do.

    Raises UserError where too few match.
    """
    documents = texts.documents
    scores = match_scores(description, [one.text for one in documents])
    order = np.argsort(-scores, kind="stable")
    best = [int(at) for at in order[:_MATCHING] if scores[at] > 0]
    if len(best) < _FEWEST:
        raise UserError(
            f"the words of {description[:60]!r} are in {len(best)} indexed texts: too few to learn "
            "what it is about",
            hint="describe it in words that such texts have, or give a feature or a regex",
        )
    greatest = scores[best[0]]
    about = [at for at in best if scores[at] >= _STRONG * greatest]
    about = about if len(about) >= _FEWEST else best[:_FEWEST]
    pairs = zip(documents, scores, strict=True)
    others = [one for one, score in pairs if score < _WEAK * greatest]
    return [documents[at] for at in about], others


def features_described(
    store: FeatureStore, texts: IndexedTexts, description: str, most: int = MOST
) -> tuple[DescribedFeature, ...]:
    """The features that a description is about, the best first; none that never fires.

    Raises UserError for one without words, NotFoundError where no feature matches.
    """
    if not words_of(description):
        raise UserError("the description is empty", hint="say in words what should happen")
    like = FeatureQuery(conditions=(Condition("like", ":", description),))
    rankings = {
        "words": store.find(like)[: 2 * most].tolist(),
        "contrast": _contrasting(store, texts, description, 2 * most),
    }
    scores: defaultdict[int, float] = defaultdict(float)
    ranks: defaultdict[int, dict[str, int]] = defaultdict(dict)
    for name, ranking in rankings.items():
        for rank, feature in enumerate(ranking, 1):
            scores[feature] += 1 / (_RANKS + rank)
            ranks[feature][name] = rank
    if not scores:
        raise NotFoundError(
            f"no feature is about {description.strip()[:60]!r}",
            hint="use other words, or give a feature's number or a label",
        )
    best = sorted(scores, key=lambda feature: (-scores[feature], feature))
    living = [row.feature for row in store.rows(best) if row.max_act]
    return tuple(DescribedFeature(one, scores[one], ranks[one]) for one in living[:most])


def _contrasting(
    store: FeatureStore, texts: IndexedTexts, description: str, most: int
) -> list[int]:
    """The features that tell the texts that match a description from others, the best first; none
    where few texts match: its words may be in names alone."""
    try:
        sides = texts_described(texts, description)
    except UserError:
        return []
    weight = told_apart(store, [[one.number for one in side if not one.heldout] for side in sides])
    order = np.argsort(-weight, kind="stable")[:most]
    return [int(feature) for feature in order if weight[feature] > 0]
