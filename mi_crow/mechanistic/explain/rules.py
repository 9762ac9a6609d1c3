"""The rule that tells a feature's firings from other tokens, and how well it does elsewhere.

A rule has one part or two. A part looks at one thing (a scope) and holds where it sees one of its
ids, or, as a phrase, both. The rule's score is the AUROC of the number of its parts that hold; of a
single part that is (1 + hits - false alarms) / 2. Hits are the share of the feature's activation on
which it holds, so that strong firings count for more, and false alarms the share of the tokens
without an activation.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from mi_crow.mechanistic.explain.evidence import (
    SCOPES,
    Background,
    Firings,
    Scope,
    candidates,
    holds,
)
from mi_crow.mechanistic.explain.words import NO_WORD, Corpus

MOST_IDS = 6  # of one part: a longer name says no more
_MOST_BESIDE = 3  # of the second part
PHRASE = len(SCOPES)  # the kind of part after the scopes: a word and the one before it
NONE = -1
# What a part must be better by to be preferred to one on the word itself: what a reader takes in at
# a glance comes first. A word after the token cannot be what made the feature fire.
_HANDICAP = {
    "on": 0.0,
    "before": 0.02,
    "after": 0.06,
    "around": 0.03,
    "next": 0.05,
    "label": 0.03,
    "start": 0.0,
}
_PER_ID = 0.015  # what each further id must add
_PHRASE_GAIN = 0.005  # what a phrase must add to its last word
_SECOND_GAIN = 0.015  # what a second part must add, and half of its handicap
_LEAST_QUALITY = 0.55  # of the first part: below it nothing stands out
_LEAST_FIRINGS = 3


@dataclass(frozen=True)
class Parts:
    """One part of each rule. Arrays are indexed by feature."""

    kind: np.ndarray  # int8: index in SCOPES, PHRASE or NONE
    ids: np.ndarray  # int64 [features, MOST_IDS], -1 where there are fewer

    @classmethod
    def none(cls, features: int) -> "Parts":
        """No part for any feature."""
        ids = np.full((features, MOST_IDS), -1, dtype=np.int64)
        return cls(np.full(features, NONE, dtype=np.int8), ids)

    def where(self, chosen: np.ndarray, other: "Parts") -> "Parts":
        """These where `chosen`, bool [features], and those of `other` elsewhere."""
        ids = np.where(chosen[:, None], self.ids, other.ids)
        return Parts(np.where(chosen, self.kind, other.kind).astype(np.int8), ids)

    def permuted(self, order: np.ndarray) -> "Parts":
        return Parts(self.kind[order], self.ids[order])

    def seen(
        self, corpus: Corpus, firings: Firings, background: Background
    ) -> tuple[np.ndarray, np.ndarray]:
        """Whether the part of its feature holds at each firing, bool [n], and on which tokens of
        the background the part of each feature does: uint8 [features, bytes]."""
        found = np.zeros(len(firings.token), dtype=bool)
        bits = np.zeros((firings.n_features, background.width), dtype=np.uint8)
        for kind in range(len(SCOPES) + 1):
            of = self.kind == kind
            if of.any():
                there = of[firings.feature]
                found[there] = _holds(corpus, kind, self.ids, firings.only(there))
                bits[of] = _bits(background, kind, self.ids[of])
        return found, bits


@dataclass(frozen=True)
class Rules:
    """One rule a feature."""

    first: Parts  # NONE where the feature has no rule
    second: Parts  # NONE where the first says enough
    naming_auroc: np.ndarray  # [features], on the documents that it was chosen on

    def parts(self, feature: int) -> list[tuple[int, list[int]]]:
        """The kind and the ids of each part of one rule; empty without a rule."""
        both = [(int(one.kind[feature]), one.ids[feature]) for one in (self.first, self.second)]
        return [(kind, ids[ids >= 0].tolist()) for kind, ids in both if kind != NONE]

    def permuted(self, order: np.ndarray) -> "Rules":
        return Rules(
            self.first.permuted(order), self.second.permuted(order), self.naming_auroc[order]
        )


@dataclass(frozen=True)
class Scores:
    """How well rules hold. Arrays are indexed by feature; NaN where nothing could be measured."""

    auroc: np.ndarray
    hits: np.ndarray  # the share of the activation on which a part of the rule holds
    false_alarms: np.ndarray  # the share of other tokens on which one holds
    firings: np.ndarray  # int64: on which it was measured


def choose(
    corpus: Corpus,
    firings: Firings,
    background: Background,
    density: np.ndarray,
    promoted: np.ndarray,
) -> tuple[Rules, dict[Scope, np.ndarray]]:
    """The best rule of each feature on its `firings`, and what each scope found: int64 [features,
    MOST_IDS]. `promoted`, int64 [features, k]: the token ids that a rule on the next token may
    name, -1 where there are fewer."""
    n = firings.n_features
    first, auroc, best = Parts.none(n), np.full(n, np.nan), np.full(n, -np.inf)
    found: dict[Scope, np.ndarray] = {}
    groups: dict[Scope, np.ndarray] = {}
    for scope in SCOPES:
        allowed = promoted if scope == "next" else None
        found[scope] = candidates(corpus, scope, firings, background, MOST_IDS, allowed)
        some, quality = _best_of(corpus, scope, found[scope], firings, background, density)
        groups[scope] = some
        value = quality - _HANDICAP[scope] - _PER_ID * (some >= 0).sum(axis=1)
        better = (some >= 0).any(axis=1) & (quality >= _LEAST_QUALITY) & (value > best)
        kind = np.full(n, SCOPES.index(scope), dtype=np.int8)
        first = Parts(kind, some).where(better, first)
        auroc[better], best[better] = quality[better], value[better]
    few = firings.per_feature() < _LEAST_FIRINGS
    auroc[few] = np.nan
    rules = Rules(Parts.none(n).where(few, first), Parts.none(n), auroc)
    rules = _with_phrases(corpus, rules, found, firings, background, density)
    return _with_second(corpus, rules, groups, firings, background, density), found


def score(
    corpus: Corpus,
    rules: Rules,
    firings: Firings,
    background: Background,
    density: np.ndarray,
    least: int = _LEAST_FIRINGS,
) -> Scores:
    """How well rules tell `firings` from the tokens of `background`."""
    total = firings.per_feature()
    first = rules.first.seen(corpus, firings, background)
    second = rules.second.seen(corpus, firings, background)
    auroc, hits, wrong = _measured(first, second, firings, background, density)
    measured = (total >= least) & (rules.first.kind != NONE) & (background.size > 0)
    auroc, hits, wrong = (np.where(measured, one, np.nan) for one in (auroc, hits, wrong))
    return Scores(auroc, hits, wrong, total)


def _measured(
    first: tuple[np.ndarray, np.ndarray],
    second: tuple[np.ndarray, np.ndarray],
    firings: Firings,
    background: Background,
    density: np.ndarray,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The AUROC of the number of two parts that hold; hits and false alarms of either."""
    hits = firings.share(first[0] | second[0])
    wrong = false_alarms(background.share(first[1] | second[1]), hits, density)
    both = firings.share(first[0] & second[0])
    wrong_both = false_alarms(background.share(first[1] & second[1]), both, density)
    wrong_both = np.minimum(wrong_both, wrong)
    # Trapezoids between the thresholds: no part, one, both.
    area = (1 - wrong) * (1 + hits) + (wrong - wrong_both) * (hits + both) + wrong_both * both
    return area / 2, hits, wrong


def false_alarms(seen: np.ndarray, hits: np.ndarray, density: np.ndarray) -> np.ndarray:
    """P(rule | the feature does not fire) from P(rule), P(rule | it fires) and its density, by the
    law of total probability."""
    share = np.clip(density, 0.0, 1.0 - 1e-6)
    return np.clip((seen - share * hits) / (1 - share), 0.0, 1.0)


def _holds(corpus: Corpus, kind: int, ids: np.ndarray, firings: Firings) -> np.ndarray:
    if kind != PHRASE:
        return np.logical_or.reduce(holds(corpus, SCOPES[kind], ids, firings), axis=1)
    before = holds(corpus, "before", ids[:, :1], firings)[:, 0]
    return before & holds(corpus, "on", ids[:, 1:2], firings)[:, 0]


def _bits(background: Background, kind: int, ids: np.ndarray) -> np.ndarray:
    if kind != PHRASE:
        return np.bitwise_or.reduce(background.bits(SCOPES[kind], ids), axis=1)
    return background.bits("before", ids[:, 0]) & background.bits("on", ids[:, 1])


def _best_of(
    corpus: Corpus,
    scope: Scope,
    ids: np.ndarray,
    firings: Firings,
    background: Background,
    density: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    """The first few of each feature's ids that together tell its firings best, and their AUROC."""
    found = holds(corpus, scope, ids, firings)
    # By hand: NumPy accumulates along an axis in the middle byte by byte.
    together, bits = found[:, 0], background.bits(scope, ids[:, 0])
    hits, seen = np.zeros(ids.shape), np.zeros(ids.shape)
    for k in range(ids.shape[1]):
        more = found[:, k], background.bits(scope, ids[:, k])
        # Of `start` an id contains those before it.
        together, bits = more if scope == "start" else (together | more[0], bits | more[1])
        hits[:, k], seen[:, k] = firings.share(together), background.share(bits)
    wrong = false_alarms(seen, hits, density[:, None])
    quality = np.where(ids >= 0, (1 + hits - wrong) / 2, 0.0)
    cost = np.zeros(MOST_IDS) if scope == "start" else _PER_ID * np.arange(MOST_IDS)
    last = np.argmax(quality - cost, axis=1)
    column = np.arange(MOST_IDS)
    keep = column == last[:, None] if scope == "start" else column <= last[:, None]
    return np.where(keep, ids, -1), quality[np.arange(len(last)), last]


def _with_phrases(
    corpus: Corpus,
    rules: Rules,
    found: dict[Scope, np.ndarray],
    firings: Firings,
    background: Background,
    density: np.ndarray,
) -> Rules:
    """The rules, those on one word narrowed to a phrase where the word before it helps."""
    first = rules.first
    narrow = (first.kind == SCOPES.index("on")) & (first.ids[:, 1] < 0)
    narrow &= found["before"][:, 0] > NO_WORD
    ids = np.full_like(first.ids, -1)
    ids[:, 0], ids[:, 1] = found["before"][:, 0], first.ids[:, 0]
    phrases = Parts(np.where(narrow, PHRASE, NONE).astype(np.int8), ids)
    scores = score(corpus, Rules(phrases, rules.second, ids), firings, background, density)
    better = narrow & (scores.auroc > rules.naming_auroc + _PHRASE_GAIN)
    auroc = np.where(better, scores.auroc, rules.naming_auroc)
    return Rules(phrases.where(better, first), rules.second, auroc)


def _with_second(
    corpus: Corpus,
    rules: Rules,
    groups: Mapping[Scope, np.ndarray],
    firings: Firings,
    background: Background,
    density: np.ndarray,
) -> Rules:
    """The rules, with a part of another scope beside the first where that tells more."""
    first = rules.first
    seen = first.seen(corpus, firings, background)
    n = firings.n_features
    second, auroc, best = Parts.none(n), rules.naming_auroc, np.zeros(n)
    for scope, ids in groups.items():
        some = ids.copy()
        if scope != "start":  # there the one id says how many
            some[:, _MOST_BESIDE:] = -1
        other = (first.kind != NONE) & (first.kind != SCOPES.index(scope))
        other &= (some >= 0).any(axis=1)
        other &= (first.kind != PHRASE) | np.bool_(scope not in ("on", "before"))
        parts = Parts(np.where(other, SCOPES.index(scope), NONE).astype(np.int8), some)
        beside = parts.seen(corpus, firings, background)
        area, _, _ = _measured(seen, beside, firings, background, density)
        value = area - rules.naming_auroc - _SECOND_GAIN - _HANDICAP[scope] / 2
        better = other & (value > best)
        second = parts.where(better, second)
        auroc, best = np.where(better, area, auroc), np.where(better, value, best)
    return Rules(first, second, auroc)
