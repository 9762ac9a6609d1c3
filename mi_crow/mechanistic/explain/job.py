"""Names all features of an index: `saes/<id>/names.parquet`, whole or not at all."""

import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from mi_crow.mechanistic.explain.config import ExplainConfig
from mi_crow.mechanistic.explain.evidence import Background, Firings
from mi_crow.mechanistic.explain.naming import Facts, kind_of, name_of
from mi_crow.mechanistic.explain.rules import NONE, Rules, choose, score
from mi_crow.mechanistic.explain.words import Corpus, read_corpus
from mi_crow.mechanistic.features.beside.proposals import (
    Proposals,
    proposals_path,
    read_proposals,
    write_proposals,
)
from mi_crow.mechanistic.features.queries import FeatureStore
from mi_crow.progress import NullProgress, Progress, raise_if_stopped
from mi_crow.ranks import ALONE, Ranks
from mi_crow.share import Share, shared
from mi_crow.store.json_object import JsonRecord
from mi_crow.store.workspace import Workspace

_FEATURES_AT_ONCE = 4096
_PROMOTED = 10  # tokens of each feature
_LEAST_FIRES = 50  # of the features whose scores are summed up


@dataclass(frozen=True)
class ExplainResult(JsonRecord):
    """The names of one SAE's features in figures."""

    sae_id: str
    features: int
    named: int
    score: float | None  # median held-out AUROC of the names of features that fire often enough
    chance: float | None  # the same with names of other features
    scored: int  # features that these medians are over
    kinds: dict[str, int]
    seconds: float


def explain_features(
    workspace: Workspace,
    config: ExplainConfig,
    progress: Progress | None = None,
    ranks: Ranks = ALONE,
) -> ExplainResult:
    """Proposes a name for every feature of an index, each with its evidence and its score.

    Names are chosen on one half of the documents and scored on the other; beside each score is
    that of another feature's name. Nothing is written among the concepts. Several processes
    (`ranks`) share the features, and the first one writes what a single process would write.

    Raises NotFoundError without an index, UserError for one of another schema, CorruptDataError,
    CancelledError when asked to stop, RankLostError when another process is gone; then nothing is
    written.
    """
    progress = progress or NullProgress()
    begun = time.perf_counter()
    store = FeatureStore.open(workspace, config.sae_id)
    progress.log("reading the documents")
    corpus = read_corpus(store.connection, config.seed)
    naming = _Naming(store, corpus, config.seed)
    path = proposals_path(workspace, config.sae_id)
    with shared(ranks, path.parent, "names") as share:
        found = _together(share, list(_named(naming, share, store.meta().n_features, progress)))
        if share.is_first:
            write_proposals(path, found, store.meta().built_at)
    return _result(config.sae_id, store, found, time.perf_counter() - begun)


def _named(naming: "_Naming", share: Share, total: int, progress: Progress) -> Iterator[Proposals]:
    """The names of this process's blocks of features, in order."""
    # NumPy lets go of the interpreter, so that two blocks keep two cores busy.
    with ThreadPoolExecutor(2) as pool:
        firsts = (first for _, first in share.own(range(0, total, _FEATURES_AT_ONCE)))
        try:
            for part in pool.map(
                lambda f: naming.block(f, min(f + _FEATURES_AT_ONCE, total)), firsts
            ):
                raise_if_stopped(progress, resumable=False)
                yield part
                progress.update(int(part.feature[-1]) + 1, total, "feature")
        finally:
            pool.shutdown(cancel_futures=True)


def _together(share: Share, own: list[Proposals]) -> Proposals:
    """The names of all features, from what each process has found."""
    if not share.alone:
        for part in own:
            write_proposals(share.folder / f"{int(part.feature[0]):012d}.parquet", part, 0.0)
        share.ranks.wait()
        own = [read_proposals(path) for path in sorted(share.folder.glob("*.parquet"))]
    return Proposals.joined(own)


class _Naming:
    """Names features block by block."""

    def __init__(self, store: FeatureStore, corpus: Corpus, seed: int) -> None:
        self._store = store
        self._corpus = corpus
        self._seed = seed
        rng = np.random.default_rng(seed)
        self._seen = Background(corpus, ~corpus.unseen, rng)
        self._unseen = Background(corpus, corpus.unseen, rng)
        found = store.connection.columns("SELECT token_id, token FROM idx.tokens")
        size = int(max(found["token_id"].max(initial=0), corpus.tokens.max(initial=0))) + 1
        self._token_text = [""] * size
        for token, text in zip(found["token_id"].tolist(), found["token"].tolist(), strict=True):
            self._token_text[token] = text

    def block(self, first: int, last: int) -> Proposals:
        """The names of the features from `first` to before `last`."""
        corpus, columns = self._corpus, self._store.columns()
        density, fires = columns.density[first:last], columns.fires[first:last]
        firings = self._firings(first, last)
        unseen = corpus.unseen[corpus.document[firings.token]]
        promoted = self._promoted(first, last)
        rules, found = choose(corpus, firings.only(~unseen), self._seen, density, promoted)
        held_out = firings.only(unseen)
        scores = score(corpus, rules, held_out, self._unseen, density)
        chance = score(corpus, self._others(rules, first), held_out, self._unseen, density)
        best = [columns.labels[one] if one >= 0 else None for one in columns.best[first:last]]
        telling = [[corpus.label_names[label] for label in _known(row)] for row in found["label"]]
        facts = [
            Facts(
                rules.parts(one),
                _known(found["around"][one]),
                best[one] if best[one] in telling[one] else None,
                float(columns.auroc[first + one]),
                int(fires[one]),
                float(density[one]),
            )
            for one in range(last - first)
        ]
        words = [[corpus.texts[word] for word in _known(row)] for row in found["on"]]
        around = [[corpus.texts[word] for word in _known(row)] for row in found["around"]]
        return Proposals(
            feature=np.arange(first, first + len(facts), dtype=np.int32),
            name=[name_of(one, corpus, self._token_text) for one in facts],
            kind=[kind_of(one, corpus) for one in facts],
            score=scores.auroc.astype(np.float32),
            chance=chance.auroc.astype(np.float32),
            hits=scores.hits.astype(np.float32),
            false_alarms=scores.false_alarms.astype(np.float32),
            firings=scores.firings.astype(np.int32),
            words=words,
            around=around,
        )

    def _others(self, rules: Rules, first: int) -> Rules:
        """Every feature with the rule of another one of its block that has a rule."""
        order = np.arange(len(rules.first.kind))
        named = np.flatnonzero(rules.first.kind != NONE)
        shuffled = np.random.default_rng([self._seed, first]).permutation(named)
        order[shuffled] = np.roll(shuffled, 1)
        return rules.permuted(order)

    def _firings(self, first: int, last: int) -> Firings:
        """The examples of some features, those in documents that are held."""
        found = self._store.connection.columns(
            "SELECT feature, document, position, activation FROM idx.examples "
            "WHERE feature >= ? AND feature < ?",
            [first, last],
        )
        document = found["document"].astype(np.int64)
        starts = self._corpus.starts
        known = document < len(starts) - 1
        document = np.where(known, document, 0)
        token = starts[document] + found["position"]
        known &= token < starts[document + 1]
        feature = found["feature"].astype(np.int64) - first
        order = np.argsort(feature[known], kind="stable")
        activation = found["activation"].astype(np.float64)
        feature, token, activation = (
            column[known][order] for column in (feature, token, activation)
        )
        return Firings(feature, token, activation, last - first)

    def _promoted(self, first: int, last: int) -> np.ndarray:
        """The token ids that some features promote most: int64 [features, _PROMOTED]."""
        found = self._store.connection.columns(
            "SELECT feature, rank, token_id FROM idx.logits "
            "WHERE sign = 1 AND rank < ? AND feature >= ? AND feature < ?",
            [_PROMOTED, first, last],
        )
        tokens = np.full((last - first, _PROMOTED), -1, dtype=np.int64)
        tokens[found["feature"] - first, found["rank"]] = found["token_id"]
        return tokens


def _result(sae_id: str, store: FeatureStore, found: Proposals, seconds: float) -> ExplainResult:
    fires = store.columns().fires
    scored = (fires >= _LEAST_FIRES) & ~np.isnan(found.score)
    kinds = Counter(found.kind)
    return ExplainResult(
        sae_id,
        len(found.feature),
        sum(map(bool, found.name)),
        _median(found.score[scored]),
        _median(found.chance[scored]),
        int(scored.sum()),
        dict(kinds.most_common()),
        seconds,
    )


def _median(values: np.ndarray) -> float | None:
    known = values[~np.isnan(values)]
    return float(np.median(known)) if len(known) else None


def _known(ids: np.ndarray) -> list[int]:
    return [one for one in ids.tolist() if one >= 0]
