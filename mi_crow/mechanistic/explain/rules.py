"""The rule that tells a feature's firings from other tokens, and how well it does elsewhere.

A rule looks at one thing (a scope) and holds where it sees one of its ids, or, as a phrase, both.
Its score is the AUROC of a yes-or-no rule: (1 + hits - false alarms) / 2, where hits are the share
of the feature's activation on which it holds, so that strong firings count for more, and false
alarms the share of the tokens without an activation.
"""

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

MOST_IDS = 6  # of one rule: a longer name says no more
PHRASE = len(SCOPES)  # the kind of rule after the scopes: a word and the one before it
NONE = -1
# What a rule must be better by to be preferred to one on the word itself: what a reader takes in at
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
_PER_ID = 0.02  # what each further id must add
_PHRASE_GAIN = 0.005  # what a phrase must add to its last word
_LEAST_QUALITY = 0.55  # of a rule: below it nothing stands out
_LEAST_FIRINGS = 3


@dataclass(frozen=True)
class Rules:
    """One rule a feature. Arrays are indexed by feature."""

    kind: np.ndarray  # int8: index in SCOPES, PHRASE or NONE
    ids: np.ndarray  # int64 [features, MOST_IDS], -1 where there are fewer
    naming_auroc: np.ndarray  # on the documents that it was chosen on

    def permuted(self, order: np.ndarray) -> "Rules":
        return Rules(self.kind[order], self.ids[order], self.naming_auroc[order])


@dataclass(frozen=True)
class Scores:
    """How well rules hold. Arrays are indexed by feature; NaN where nothing could be measured."""

    auroc: np.ndarray
    hits: np.ndarray  # the share of the activation on which the rule holds
    false_alarms: np.ndarray  # the share of other tokens on which it holds
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
    kind = np.full(n, NONE, dtype=np.int8)
    ids = np.full((n, MOST_IDS), -1, dtype=np.int64)
    auroc, best = np.full(n, np.nan), np.full(n, -np.inf)
    found: dict[Scope, np.ndarray] = {}
    for scope in SCOPES:
        allowed = promoted if scope == "next" else None
        found[scope] = candidates(corpus, scope, firings, background, MOST_IDS, allowed)
        some, quality = _best_of(corpus, scope, found[scope], firings, background, density)
        value = quality - _HANDICAP[scope] - _PER_ID * (some >= 0).sum(axis=1)
        better = (some >= 0).any(axis=1) & (quality >= _LEAST_QUALITY) & (value > best)
        kind[better], ids[better] = SCOPES.index(scope), some[better]
        auroc[better], best[better] = quality[better], value[better]
    few = firings.per_feature() < _LEAST_FIRINGS
    kind[few], ids[few], auroc[few] = NONE, -1, np.nan
    rules = Rules(kind, ids, auroc)
    return _with_phrases(corpus, rules, found, firings, background, density), found


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
    hits = np.zeros(firings.n_features)
    seen = np.zeros(firings.n_features)
    for kind in range(len(SCOPES) + 1):
        of = rules.kind == kind
        if not of.any():
            continue
        some = firings.only(of[firings.feature])
        chosen = np.where(of[:, None], rules.ids, -1)
        found = _holds(corpus, kind, chosen, some)
        hits += some.share(found)
        seen[of] = background.share(_bits(background, kind, rules.ids[of]))
    measured = (total >= least) & (rules.kind != NONE) & (background.size > 0)
    hits = np.where(measured, hits, np.nan)
    wrong = np.where(measured, false_alarms(seen, hits, density), np.nan)
    return Scores((1 + hits - wrong) / 2, hits, wrong, total)


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
    narrow = (rules.kind == SCOPES.index("on")) & (rules.ids[:, 1] < 0)
    narrow &= found["before"][:, 0] > NO_WORD
    ids = np.full_like(rules.ids, -1)
    ids[:, 0], ids[:, 1] = found["before"][:, 0], rules.ids[:, 0]
    kind = np.where(narrow, PHRASE, NONE).astype(np.int8)
    phrases = score(corpus, Rules(kind, ids, rules.naming_auroc), firings, background, density)
    better = narrow & (phrases.auroc > rules.naming_auroc + _PHRASE_GAIN)
    return Rules(
        np.where(better, PHRASE, rules.kind).astype(np.int8),
        np.where(better[:, None], ids, rules.ids),
        np.where(better, phrases.auroc, rules.naming_auroc),
    )
