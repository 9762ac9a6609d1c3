"""The work of `mi-crow explain --explainer`: explanations, then their scores, both resumable."""

import hashlib
import math
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

from mi_crow.errors import MiCrowError, UserError
from mi_crow.language_model.endpoint import RubbishError, check_endpoint
from mi_crow.mechanistic.explain.explanations.answers import KeptAnswers, asker
from mi_crow.mechanistic.explain.explanations.config import (
    ANSWER_S,
    LOCAL,
    ExplanationsConfig,
)
from mi_crow.mechanistic.explain.explanations.nearness import EmbeddingJudge
from mi_crow.mechanistic.explain.explanations.questions import explain_question, explanation_in
from mi_crow.mechanistic.explain.explanations.scores import (
    TRIALS,
    Ask,
    Score,
    detection,
    fuzzing,
    intruder,
)
from mi_crow.mechanistic.explain.explanations.texts import (
    TESTED,
    Material,
    Passage,
    material_of,
    silent_passages,
)
from mi_crow.mechanistic.features.beside.explanations import (
    UNTRAINED_NAME,
    add_explanations,
    explanations_path,
    kept_explanations,
    weights_of,
)
from mi_crow.mechanistic.features.queries import FeatureStore
from mi_crow.mechanistic.features.query_language import parse_query
from mi_crow.mechanistic.features.records import SCORES, Explanation
from mi_crow.progress import NullProgress, Progress, raise_if_stopped
from mi_crow.store.json_object import JsonRecord
from mi_crow.store.workspace import Workspace
from mi_crow.visible import visible

_KEPT_EVERY = 8  # features between two writes
_LEAST_SHOWN = 3  # examples without which nothing is explained
_CHARACTERS_A_TOKEN = 4
_ANSWER_TOKENS = 60  # of a question, about
UNTRAINED = 10  # features of an SAE with random weights that are explained and scored too


@dataclass(frozen=True)
class Estimate(JsonRecord):
    """What a job will ask, as far as it can be said before."""

    features: int
    requests: int
    tokens_in: int  # of all questions
    tokens_out: int
    seconds: float  # at ANSWER_S an answer
    cost: float | None  # where prices are known


def chosen_features(store: FeatureStore, config: ExplanationsConfig) -> list[int]:
    """The features to explain, without dead ones. Raises UserError for a query that finds none."""
    found = store.find(parse_query(config.where))
    fires = store.columns().fires
    chosen = [one for one in found.tolist() if fires[one] > 0][: config.most]
    if not chosen:
        raise UserError(f"no feature that fires matches {config.where!r}", hint="try fewer words")
    return chosen


def estimate(
    workspace: Workspace, config: ExplanationsConfig, prices: tuple[float, float] | None = None
) -> Estimate:
    """How many questions of how many tokens `explain_with` will ask, by three of the features; how
    long that takes, and what it costs at `prices` of a million tokens in and out."""
    store = FeatureStore.open(workspace, config.sae_id)
    chosen = chosen_features(store, config)
    some = [material_of(store, one, config.seed) for one in chosen[:3]]
    explain = sum(len(explain_question(one)) for one in some) / len(some)
    test = sum(len(text.text) for one in some for text in one.held_out) / len(some)
    # Detection, the same with another's explanation, and fuzzing: two questions and one; then the
    # intruders, five texts each.
    asks = config.scores and not config.embeddings
    scored = 2 * (2 * test + 800) + 2 * test + 1600 + test + 800 if asks else 0.0
    scored += TRIALS * (test / 2 + 500) if asks else 0.0
    beside = config.scores and indexed_run(workspace, store) is not None
    features = len(chosen) + (UNTRAINED if beside else 0)
    requests = features * (6 + TRIALS if asks else 1)
    tokens = features * (explain + scored) / _CHARACTERS_A_TOKEN
    answers = requests * _ANSWER_TOKENS
    seconds = ANSWER_S * math.ceil(requests / (1 if config.is_local else config.parallel))
    if config.per_minute is not None:
        seconds = max(seconds, 60 * requests / config.per_minute)
    cost = None
    if prices is not None and not config.is_local:
        cost = (tokens * prices[0] + answers * prices[1]) / 1e6
    return Estimate(len(chosen), requests, round(tokens), answers, seconds, cost)


def indexed_run(workspace: Workspace, store: FeatureStore) -> Path | None:
    """The folder of the run that was indexed first; None where its activations are not stored."""
    sources = store.meta().sources
    run_id = sources[0].get("run_id") if sources else None
    try:
        return workspace.run_dir(run_id) if run_id else None
    except MiCrowError:
        return None


def check_explanations(workspace: Workspace, config: ExplanationsConfig) -> None:
    """Raises UserError for an explainer or a query that makes no sense, NotFoundError without an
    index."""
    if config.is_local:
        if not config.explainer.removeprefix(LOCAL):
            hint = "e.g. local:HuggingFaceTB/SmolLM2-360M-Instruct"
            raise UserError("local: needs the name of a model", hint=hint)
    else:
        check_endpoint(config.explainer)
        if not config.model:
            raise UserError("the endpoint needs the name of a model", hint="give --explainer-model")
    if config.embeddings:
        EmbeddingJudge.open(Path(config.embeddings))
    chosen_features(FeatureStore.open(workspace, config.sae_id), config)


def explain_with(
    workspace: Workspace,
    config: ExplanationsConfig,
    progress: Progress | None = None,
    ask: Ask | None = None,
) -> dict[str, Any]:
    """Explains features with a chat model and scores the explanations on unseen documents.

    Beside each detection score is that of another feature's explanation on the same texts, and
    beside all scores those of an untrained SAE's features, where the activations are stored. What
    is finished is kept and not asked again, also by a later job with the same explainer and seed.
    `ask` answers a question in place of the explainer. Raises UserError, NotFoundError,
    MachineError where the endpoint stays silent, and CancelledError.
    """
    progress = progress or NullProgress()
    begun = time.perf_counter()
    check_explanations(workspace, config)
    store = FeatureStore.open(workspace, config.sae_id)
    chosen = chosen_features(store, config)
    path, seed = explanations_path(workspace, config.sae_id), config.seed
    who = hashlib.sha256(f"{config.endpoint} {config.named}".encode()).hexdigest()[:12]
    answers = path.with_name(f"explanations-answers-{who}.jsonl")
    asked = KeptAnswers(answers, asker(config, ask))
    texts = Texts(
        lambda feature: material_of(store, feature, seed),
        lambda material: silent_passages(store, material, seed),
    )
    work = _Work(path, store, texts, config, progress, asked)
    work.start()
    work.each(chosen, work.explain, "explaining")
    explained = [one for one in chosen if one in work.held]
    if work.in_few_texts == len(chosen):
        raise UserError(
            f"none of the features fires in {_LEAST_SHOWN} texts that can be shown",
            hint="index more texts, or more examples of a feature (index --top-examples)",
        )
    if not explained and asked.unread:
        raise UserError(
            f"no answer of {visible(config.named)} could be read: {asked.trouble}",
            hint="correct the address or the name of the model, or ask another model",
        )
    if config.scores:
        others = dict(zip(explained, [*explained[1:], *explained[:1]], strict=True))
        work.each(explained, lambda one: work.score(one, others[one]), "scoring")
    found = [work.held[one] for one in explained]
    untrained = _untrained(workspace, store, config, progress, asked) if config.scores else []
    if not asked.unread:
        asked.forget()
    return {
        "sae_id": config.sae_id,
        "explainer": config.named,
        "features": len(chosen),
        "explained": len(found),
        "in_few_texts": work.in_few_texts,
        "unread": asked.unread,
        "of_earlier_index": sum(one.index_built_at != store.meta().built_at for one in found),
        **{name: _median([getattr(one, name) for one in found]) for name in SCORES},
        "untrained": {
            name: _median([getattr(one, name) for one in untrained])
            for name in SCORES
            if "shuffled" not in name
        },
        "seconds": time.perf_counter() - begun,
    }


def _untrained(
    workspace: Workspace,
    store: FeatureStore,
    config: ExplanationsConfig,
    progress: Progress,
    ask: KeptAnswers,
) -> list[Explanation]:
    """Explanations of an untrained SAE's features with their scores; none without activations."""
    from mi_crow.mechanistic.explain.explanations.untrained import untrained_features

    try:
        run_dir = indexed_run(workspace, store)
        if run_dir is None:
            raise UserError("the activations that were indexed are not stored")
        sae_dir = workspace.sae_dir(config.sae_id)
        found = untrained_features(run_dir, sae_dir, store, UNTRAINED, config.seed)
    except MiCrowError as error:
        progress.log(f"no untrained SAE beside it: {error}")
        return []
    path = explanations_path(workspace, config.sae_id).with_name(UNTRAINED_NAME)
    texts = Texts(found.material, found.silent)
    work = _Work(path, store, texts, config, progress, ask)
    work.start(earlier=False)  # its features are those of one index
    work.each(found.latents, work.explain, "explaining an untrained SAE")
    known = [one for one in found.latents if one in work.held]
    work.each(known, lambda one: work.score(one, one), "scoring it")
    return [work.held[one] for one in known]


class Texts(NamedTuple):
    """Where the texts of a feature come from, and those in which it is silent."""

    material: Callable[[int], Material]
    silent: Callable[[Material], Sequence[Passage]]


class _Work:
    """The state of one job: what is explained so far, and who is asked."""

    def __init__(
        self,
        path: Path,
        store: FeatureStore,
        texts: Texts,
        config: ExplanationsConfig,
        progress: Progress,
        ask: KeptAnswers,
    ) -> None:
        self._path = path
        self._built_at = store.meta().built_at
        other = store.meta().other
        # An index of before says the weights only together with its settings: that fits no other.
        self._weights = str(other.get("weights_content") or "")
        self._known_as = weights_of(other)
        self._texts = texts
        self._config = config
        self._progress = progress
        self._ask = ask
        self._judge = (
            EmbeddingJudge.open(Path(config.embeddings))
            if config.embeddings and config.scores
            else None
        )
        self.in_few_texts = 0  # features of which there is too little to explain them
        self.held: dict[int, Explanation] = {}

    def start(self, *, earlier: bool = True) -> None:
        """Begins with what is kept of this explainer and seed, also from `earlier` indexes."""
        for one in kept_explanations(self._path):
            before = self.held.get(one.feature)
            now = one.index_built_at == self._built_at
            usable = now or (earlier and self._is_done(one))
            latest = now or before is None or before.index_built_at <= one.index_built_at
            if usable and latest and self._is_mine(one):
                self.held[one.feature] = one

    def _is_mine(self, one: Explanation) -> bool:
        mine = self._config.named, self._config.seed
        return (
            (one.explainer, one.seed) == mine
            and one.endpoint in ("", self._config.endpoint)
            and (not self._known_as or one.weights in ("", *self._known_as))
        )

    def _is_done(self, one: Explanation) -> bool:
        """Whether nothing is left to ask: texts of another index may be those that it saw."""
        if not self._config.scores:
            return True
        return one.scored if self._judge is None else one.embedded_by == self._judge.name

    def each(
        self, features: Sequence[int], work: Callable[[int], Explanation | None], what: str
    ) -> None:
        """Calls `work` for each feature in threads, and keeps what it finds."""
        self._progress.log(what)
        pool = ThreadPoolExecutor(1 if self._config.is_local else self._config.parallel)
        try:
            for number, found in enumerate(pool.map(work, features), 1):
                if found is not None and found != self.held.get(found.feature):
                    self.held[found.feature] = found
                if number % _KEPT_EVERY == 0 or number == len(features):
                    self._keep()
                self._progress.update(number, len(features), "feature")
                raise_if_stopped(self._progress)
        finally:
            pool.shutdown(cancel_futures=True)
            self._keep()

    def _keep(self) -> None:
        add_explanations(self._path, self.held.values(), self._built_at)
        self._progress.checkpoint(f"{len(self.held)} features")

    def explain(self, feature: int) -> Explanation | None:
        """What the model says of a feature; None where it has too few texts, or says nothing."""
        if feature in self.held or self._progress.should_stop():
            return None
        material = self._texts.material(feature)
        if len(material.shown) < _LEAST_SHOWN:
            self.in_few_texts += 1
            return None
        question = explain_question(material)
        try:
            text = self._ask.in_form(lambda: explanation_in(self._ask(question)))
        except RubbishError:
            return None
        return Explanation(
            feature,
            text,
            self._config.named,
            self._config.seed,
            scored=False,
            endpoint=self._config.endpoint,
            made=time.time(),
            index_built_at=self._built_at,
            weights=self._weights,
        )

    def score(self, feature: int, other: int) -> Explanation | None:
        """The same explanation with its scores. What an answer could not be read for stays open,
        for a later job."""
        known = self.held[feature]
        judge, seed = self._judge, self._config.seed
        if self._is_done(known) or self._progress.should_stop():
            return None
        material = self._texts.material(feature)
        firing = material.held_out
        silent = self._texts.silent(material)[: len(firing)]
        ask, text, rival = self._ask, known.text, self.held[other].text
        if judge is not None:
            near = judge.score(text, firing, silent)
            by_chance = judge.score(rival, firing, silent) if other != feature else None
            return replace(
                known,
                embedded_by=judge.name,
                nearness=near and near.accuracy,
                nearness_interval=near and near.interval,
                nearness_shuffled=by_chance and by_chance.accuracy,
            )
        wanted: dict[str, Callable[[], Score | None]] = {
            "detection": lambda: detection(ask, text, firing, silent, seed),
            "fuzzing": lambda: fuzzing(ask, text, firing[:TESTED], seed),
            "intruder": lambda: intruder(ask, firing, silent, seed),
        }
        if other != feature:
            wanted["shuffled"] = lambda: detection(ask, rival, firing, silent, seed)
        found: dict[str, float | None] = {}
        whole = True
        for name, work in wanted.items():
            if getattr(known, name) is not None:
                continue
            try:
                score = ask.in_form(work)
            except RubbishError:
                whole = False
                continue
            found[name] = score and score.accuracy
            if name != "shuffled":
                found[f"{name}_interval"] = score and score.interval
        return replace(known, scored=whole, **found)


def _median(values: Sequence[float | None]) -> float | None:
    known = [one for one in values if one is not None]
    return float(median(known)) if known else None
