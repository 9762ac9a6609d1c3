"""What stands out where a feature fires: words on, before, after and around the token, the tokens
that follow, the labels of its documents, and its place in the text.

A candidate must be frequent there beyond chance: the log-odds ratio with an informative Dirichlet
prior (Monroe, Colaresi and Quinn 2008, "Fightin' Words", equations 16, 19 and 22), with the corpus
as the prior.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from mi_crow.mechanistic.explain.words import NO_WORD, Corpus

Scope = Literal["on", "before", "after", "around", "next", "label", "start"]
SCOPES: tuple[Scope, ...] = ("on", "before", "after", "around", "next", "label", "start")
REACH = 16  # tokens either side of the firing in which `around` looks
STARTS = (1, 2, 4, 8)  # how many first tokens of a text `start` may mean
LEAST_Z = 2.58  # of a candidate: one in two hundred by chance
_DRAWN = 4096  # tokens of the background
_PRIOR = 50.0  # words that the prior counts for, about as many as firings are known


@dataclass(frozen=True)
class Firings:
    """Tokens on which features fire, by feature."""

    feature: np.ndarray  # int64 [n]: counted from the first of the block
    token: np.ndarray  # int64 [n]: its place in the corpus
    activation: np.ndarray  # float64 [n]
    n_features: int

    def per_feature(self) -> np.ndarray:
        """How many each feature has: int64 [n_features]."""
        return np.bincount(self.feature, minlength=self.n_features)

    def only(self, keep: np.ndarray) -> "Firings":
        return Firings(self.feature[keep], self.token[keep], self.activation[keep], self.n_features)

    def share(self, found: np.ndarray) -> np.ndarray:
        """The share of each feature's activation where `found`, bool [n]: float64 [n_features]."""
        n = self.n_features
        there = np.bincount(self.feature, weights=self.activation * found, minlength=n)
        total = np.bincount(self.feature, weights=self.activation, minlength=n)
        return there / np.where(total > 0, total, 1.0)


def seen_at(corpus: Corpus, scope: Scope, token: np.ndarray) -> np.ndarray:
    """What `scope` looks at on each token: int64 [n, k]; negative or NO_WORD where there is
    nothing. Words, token ids for `next`, labels, and for `start` the place in the document."""
    if scope == "on":
        return corpus.words[token][:, None]
    if scope == "before":
        return corpus.before[token][:, None]
    if scope == "after":
        return corpus.after[token][:, None]
    document = corpus.document[token]
    if scope == "label":
        return corpus.labels[document][:, None]
    if scope == "start":
        return (token - corpus.starts[document])[:, None]
    reach = np.arange(-REACH, REACH + 1) if scope == "around" else np.ones(1, dtype=np.int64)
    place = token[:, None] + reach
    inside = (place >= corpus.starts[document][:, None]) & (
        place < corpus.starts[document + 1][:, None]
    )
    place = np.where(inside, place, 0)
    what = corpus.words if scope == "around" else corpus.tokens
    return np.where(inside, what[place], -1 if scope == "next" else NO_WORD)


def holds(corpus: Corpus, scope: Scope, ids: np.ndarray, firings: Firings) -> np.ndarray:
    """Whether one of its feature's `ids` [n_features, k] is seen at each firing: bool [n, k], the
    ids one by one. Negative ids are never seen; for `start` an id is a number of first tokens."""
    wanted = ids[firings.feature]  # [n, k]
    seen = seen_at(corpus, scope, firings.token)
    if scope == "start":
        return (seen < wanted) & (wanted > 0)
    found = np.zeros(wanted.shape, dtype=bool)
    for one in range(wanted.shape[1]):
        found[:, one] = ((seen == wanted[:, one : one + 1]) & (wanted[:, one : one + 1] >= 0)).any(
            axis=1
        )
    return found


class Background:
    """What a scope sees on tokens drawn from documents, features aside.

    One bit a token and word: the share of tokens on which any of some words is seen is a few bytes
    of work.
    """

    def __init__(self, corpus: Corpus, documents: np.ndarray, rng: np.random.Generator) -> None:
        """`documents`: bool, those that tokens are drawn from."""
        among = np.flatnonzero(documents[corpus.document])
        draws = rng.choice(among, min(len(among), _DRAWN), replace=False)
        self._tokens = np.sort(draws)
        self.size: int = len(draws)
        self.width: int = -(-self.size // 8)  # bytes of as many bits
        self._bits: dict[Scope, tuple[np.ndarray, np.ndarray]] = {}
        self._rates: dict[Scope, np.ndarray] = {}
        for scope in SCOPES:
            self._bits[scope] = self._bits_of(seen_at(corpus, scope, self._tokens), scope)
            self._rates[scope] = self.share(self._bits[scope][1])

    def _bits_of(self, seen: np.ndarray, scope: Scope) -> tuple[np.ndarray, np.ndarray]:
        """The ids that are seen, sorted, and for each the tokens as bits; a row of zeros last."""
        row = np.repeat(np.arange(self.size), seen.shape[1])
        flat = seen.reshape(-1)
        if scope == "start":
            row = np.concatenate([np.flatnonzero(flat < n) for n in STARTS])
            flat = np.repeat(STARTS, [int((seen < n).sum()) for n in STARTS])
        known, number = np.unique(flat, return_inverse=True)
        bits = np.zeros((len(known) + 1, self.width), dtype=np.uint8)
        np.bitwise_or.at(bits, (number, row >> 3), (1 << (row & 7)).astype(np.uint8))
        return known, bits

    def bits(self, scope: Scope, ids: np.ndarray) -> np.ndarray:
        """The tokens on which each id is seen: uint8 [..., bytes]."""
        return self._bits[scope][1][self._rows(scope, ids)]

    def rate(self, scope: Scope, ids: np.ndarray) -> np.ndarray:
        """The share of the tokens on which each id is seen: [...]."""
        return self._rates[scope][self._rows(scope, ids)]

    def _rows(self, scope: Scope, ids: np.ndarray) -> np.ndarray:
        known, _ = self._bits[scope]
        if not len(known):
            return np.zeros(ids.shape, dtype=np.int64)
        place = np.minimum(np.searchsorted(known, ids), len(known) - 1)
        return np.where((known[place] == ids) & (ids >= 0), place, len(known))

    def share(self, bits: np.ndarray) -> np.ndarray:
        """The share of the tokens that are set: [...]."""
        return np.bitwise_count(bits).sum(axis=-1, dtype=np.int64) / max(self.size, 1)


def candidates(
    corpus: Corpus,
    scope: Scope,
    firings: Firings,
    background: Background,
    most: int,
    allowed: np.ndarray | None = None,
) -> np.ndarray:
    """The ids that tell each feature's firings best, one by one: int64 [n_features, most], the best
    first, -1 where there are fewer. `allowed`, int [n_features, k]: only these of each feature."""
    chosen = np.full((firings.n_features, most), -1, dtype=np.int64)
    if scope == "start":
        chosen[:, : len(STARTS)] = STARTS
        return chosen[:, :most]
    seen = seen_at(corpus, scope, firings.token)
    feature = np.repeat(firings.feature, seen.shape[1])
    flat = seen.reshape(-1).astype(np.int64)
    keep = flat > NO_WORD if scope not in ("label", "next") else flat >= 0
    if scope == "around":
        keep &= corpus.is_name[flat]
    width = int(flat.max(initial=0)) + 1
    key = (feature * width + flat)[keep]
    if allowed is not None:
        rows = np.arange(firings.n_features)[:, None] * width + allowed
        ours = np.isin(key, rows[(allowed >= 0) & (allowed < width)])
        keep[keep] = ours
        key = key[ours]
    total = firings.per_feature()
    if scope == "around":  # a word counts once a document: several firings share their words
        document, n = corpus.document[firings.token].astype(np.int64), len(corpus.labels)
        each = np.sort(key * n + np.repeat(document, seen.shape[1])[keep])
        key = each[_first_of_equal(each)] // max(n, 1)
        pairs = np.sort(firings.feature * n + document)
        there = pairs[_first_of_equal(pairs)] // max(n, 1)
        total = np.bincount(there, minlength=firings.n_features)
    total = np.maximum(total, 1)
    key.sort()
    first = np.flatnonzero(_first_of_equal(key))
    keys, counts = key[first], np.diff(np.append(first, len(key)))
    of, ids = keys // width, keys % width
    rate = background.rate(scope, ids)
    gain = counts / total[of] - rate
    telling = (log_odds(counts, total[of], rate, background.size) >= LEAST_Z) & (counts > 1)
    of, ids, gain = of[telling], ids[telling], gain[telling]
    order = np.lexsort((ids, -gain, of))
    of, ids = of[order], ids[order]
    rank = np.arange(len(of)) - np.searchsorted(of, of)
    chosen[of[rank < most], rank[rank < most]] = ids[rank < most]
    return chosen


def _first_of_equal(values: np.ndarray) -> np.ndarray:
    """Where a value differs from the one before it, in sorted `values`; NumPy's own `unique` hashes
    them, which takes five times as long."""
    return np.concatenate([np.ones(min(len(values), 1), dtype=bool), values[1:] != values[:-1]])


def log_odds(count: np.ndarray, total: np.ndarray, rate: np.ndarray, size: int) -> np.ndarray:
    """How far `count` of `total` lies above `rate`, seen on `size` tokens: the z-score of the
    log-odds ratio with the prior `rate`."""
    prior = _PRIOR * np.maximum(rate, 0.5 / max(size, 1))
    there, elsewhere = count + prior, rate * size + prior
    ratio = np.log(there / np.maximum(total + _PRIOR - there, 1e-9)) - np.log(
        elsewhere / np.maximum(size + _PRIOR - elsewhere, 1e-9)
    )
    return ratio / np.sqrt(1 / there + 1 / elsewhere)
