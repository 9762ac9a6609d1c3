"""The share of a topic against what it costs in perplexity, method by method, on fresh prompts.

Every method has its strength moved until the ratio of perplexities lies around the limits; its
share at a limit is interpolated between the two measurements beside it, linear in the logarithm of
the ratio. So all methods are compared at equal ratios, and no one gains by a lucky strength. The
summary also has, as `at most`, the greatest share that each reaches within the limit.
"""

import argparse
import json
import math
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mi_crow.errors import UserError
from mi_crow.mechanistic.steering.interventions import Intervention
from mi_crow.mechanistic.steering.loading import LoadedSae
from mi_crow.mechanistic.steering.measure.aims.topic_vector import topic_vector
from mi_crow.mechanistic.steering.measure.arms import Arm
from mi_crow.mechanistic.steering.measure.auto import run_auto
from mi_crow.mechanistic.steering.measure.bench import Bench
from mi_crow.mechanistic.steering.measure.checks import features_for
from mi_crow.mechanistic.steering.measure.config import AutoConfig, Judging, Trial
from mi_crow.mechanistic.steering.measure.controls import control_of_stack
from mi_crow.mechanistic.steering.measure.indexed import Indexed
from mi_crow.mechanistic.steering.measure.judges import (
    FALSE_ALARMS,
    Judge,
    WordProbe,
    cut_texts,
    tested_judge,
)
from mi_crow.mechanistic.steering.measure.setup import WORDS_A_TOKEN, make_bench
from mi_crow.mechanistic.steering.measure.texts import IndexedTexts
from mi_crow.store.atomic import write_json
from mi_crow.store.workspace import Workspace
from tests.benchmarks.steer_points import most_within, next_on_curve, share_at

# Of four words each, which nearly every tokenizer makes four tokens: one batch.
FRESH = (
    *("I think that the", "When I was a", "There is a new", "She said that the"),
    *("One of the most", "In the middle of", "He did not know", "This is a story"),
)
DEVELOPMENT = (
    *("It was a very", "We have always been", "They went to the", "What I like about"),
    *("You can see that", "At the end of", "My friend told me", "If you want to"),
)
FRESH_SEED, DEVELOPMENT_SEED = 77_000, 55_000
FIRST = 0.3
_CLOSE = 0.05  # strengths nearer than this are not told apart
CURVES = ("auto", "add", "dom")


def one_against_others(label: str, texts: IndexedTexts, words: int) -> Judge:
    """A bag-of-words classifier of `label` against all other labels, which lets 5% of the other
    training texts pass: of those that it was not fitted to, cut to `words` words."""
    own, others = texts.labelled(label, 0)
    fitted = [one for one in (*own, *others[::2]) if not one.heldout]
    names = ["own" if one.label == label else "other" for one in fitted]
    probe = WordProbe([one.text for one in fitted], names)
    place = probe.labels.index("own")

    def apart(some: Sequence[str]) -> np.ndarray:
        scores = probe.scores(some)
        return scores[:, place] - scores[:, 1 - place]

    seen = cut_texts([one for one in others[1::2] if not one.heldout], words, 1)
    limit = float(np.quantile(apart(seen), 1 - FALSE_ALARMS))
    heldout = [one for one in (*own, *others) if one.heldout]
    return tested_judge(
        f"label {label!r} at 5% false alarms",
        lambda some: apart(some) - limit,
        (fitted, heldout),
        lambda one: one.label == label,
        words,
        0,
    )


def searched(prompts: Sequence[str], tokens: int) -> Trial:
    """What a search writes after it has chosen: as little as it can, each prompt once for either
    half. What it reports itself is not used; it is measured like the others, on other prompts."""
    return Trial(
        prompts=tuple(one for prompt in prompts for one in (prompt, prompt)),
        n=1,
        max_new_tokens=tokens,
        documents=0,
        control=False,
        seed=DEVELOPMENT_SEED,
    )


def random_for(arm: Arm, others: Mapping[int, int]) -> dict[str, str]:
    """The first of `others` in place of the vectors of an arm: all labels have a random feature."""
    first = f"feature:{next(iter(others.values()))}"
    return {one.aim.text: first for one in arm.interventions if one.aim.kind == "vector"}


class Curves:
    """The methods on one label after another, each figure written as soon as it is there."""

    def __init__(
        self, workspace: Workspace, loaded: LoadedSae, indexed: Indexed, options: argparse.Namespace
    ) -> None:
        self._workspace, self._loaded, self._indexed = workspace, loaded, indexed
        self._options = options
        self._baselines: dict[Any, Any] = {}
        self._trial = Trial(n=options.n, max_new_tokens=options.tokens, documents=0, control=False)
        self._started, self._measured = time.monotonic(), 0
        self.rows: dict[str, Any] = {}
        out: Path = options.out
        if options.resume and out.is_file():
            self.rows = json.loads(out.read_text("utf-8"))["labels"]

    def run(self, labels: Sequence[str]) -> None:
        """All labels: first constant addition and the difference of means of each, then the search
        of each, then what stands beside it. So an early end leaves whole columns."""
        stages = (self._plain, self._searched, self._beside)
        done, total = 0, len(stages) * len(labels)
        for stage in stages:
            for label in labels:
                before = self._measured
                stage(label, self.rows.setdefault(label, {"methods": {}}))
                done += 1
                if self._measured > before:
                    self._save()
                    self._tell(done, total)
        for label in labels:
            print_row(label, self.rows[label], self._options.limits)

    def _tell(self, done: int, total: int) -> None:
        spent = time.monotonic() - self._started
        left = spent / done * (total - done) / 60
        print(f"{done} of {total}, about {left:.0f} min left", file=sys.stderr, flush=True)

    def _save(self) -> None:
        options = self._options
        head = {"sae_id": self._loaded.sae_id, "model": self._loaded.lm.model_id}
        asked = {key: getattr(options, key) for key in ("n", "tokens", "development", "recipes")}
        ready = {
            label: row
            for label, row in self.rows.items()
            if "prompting" in row and row["methods"].keys() >= {*CURVES}
        }
        report = {**head, **asked, "prompts": FRESH, "development_prompts": DEVELOPMENT}
        write_json(
            options.out,
            report | {"labels": self.rows, "summary": summary(ready, options.limits)},
        )

    def _bench(self, label: str) -> Bench:
        bench = make_bench(
            *(self._workspace, self._loaded.sae_id, self._indexed, Judging(label=label), None),
            self._trial,
            loaded=self._loaded,
            baselines=self._baselines,
        )
        bench.judge = self._judge(label)
        return bench

    def _judge(self, label: str) -> Judge:
        words = int(self._trial.max_new_tokens * WORDS_A_TOKEN)
        return one_against_others(label, self._indexed.texts, words)

    def _plain(self, label: str, row: dict[str, Any]) -> None:
        """The baseline, constant addition of the label's feature and a difference of means."""
        if "dom" in row["methods"]:
            return
        bench, trial = self._bench(label), self._trial
        feature = self._feature(label)
        told = bench.baseline(trial, FRESH, trial.n, FRESH_SEED, None, whole=False)
        row |= {"feature": feature, **bench.judge.as_json()}
        row |= {"share_baseline": bench.judge.share(told.texts), "texts_baseline": told.texts}
        sides = self._indexed.texts.labelled(label, 0)
        vector = topic_vector(self._workspace, self._loaded, sides, feature, label)
        add = Intervention(f"feature:{feature}", "add", 1.0, "norm")
        self._curve(bench, label, row, "add", Arm((add,), recipe="add"))
        dom = Intervention(f"vector:{vector}", "add", 1.0, "norm")
        self._curve(bench, label, row, "dom", Arm((dom,), recipe="means"))

    def _searched(self, label: str, row: dict[str, Any]) -> None:
        """What the search finds, on the fresh prompts."""
        if "auto" not in row["methods"]:
            try:
                arm = self._auto(label, row)
            except UserError as error:  # nothing that fits: the texts stay as they are
                row["auto"] = {"recipe": "none", "refused": str(error)}
                at = dict.fromkeys(row["methods"]["add"]["at"], row["share_baseline"])
                row["methods"]["auto"] = {"points": [], "at": at}
                self._measured += 1
                return
            if (feature := row["auto"]["feature"]) != row["feature"]:
                # Constant addition is of the same feature as the search's.
                row["feature"] = feature
                del row["methods"]["add"]
                add = Intervention(f"feature:{feature}", "add", 1.0, "norm")
                self._curve(self._bench(label), label, row, "add", Arm((add,), recipe="add"))
            same = {"add": "add", "means": "dom"}.get(arm.recipe)
            if same:
                row["methods"]["auto"] = row["methods"][same]
                self._measured += 1
            else:
                self._curve(self._bench(label), label, row, "auto", arm)

    def _beside(self, label: str, row: dict[str, Any]) -> None:
        """A random feature in place of the one of the search, and prompting."""
        bench, trial = self._bench(label), self._trial
        if "random" not in row and row["auto"]["recipe"] != "none":
            auto = self._auto(label, row)
            changed = {n for one in auto.interventions for n, _ in one.features}
            rivals = {n for one in auto.interventions for n, _ in one.rival_features}
            others = control_of_stack(
                self._indexed.store, sorted(changed or {row["feature"]}), sorted(rivals), 0
            )
            points = row["methods"]["auto"]["points"]
            dearest = math.log(max(self._options.limits))
            near = min(points, key=lambda p: abs(math.log(p["perplexity_ratio"]) - dearest))
            arm = auto.of_other_features(others, random_for(auto, others))
            arm = arm.scaled(near["strength"])
            row["random"] = self._measure(bench, label, arm) | {
                "features": {n: others[n] for n in others if n not in rivals}
            }
            self._save()
        if "prompting" not in row:
            plain = bench.baseline(trial, FRESH, trial.n, FRESH_SEED, None, whole=False)
            asked = [f"Write about {label.rpartition(':')[2]}: {prompt}" for prompt in FRESH]
            told = bench.baseline(trial, asked, trial.n, FRESH_SEED, None, whole=False)
            ratio = told.perplexity / plain.perplexity
            share = bench.judge.share(told.texts)
            row["prompting"] = {"share": share, "perplexity_ratio": ratio, "texts": told.texts}
            self._measured += 1

    def _measure(self, bench: Bench, label: str, arm: Arm) -> dict[str, Any]:
        started = time.monotonic()
        trial = self._trial
        steered = bench.read(arm, trial, FRESH, trial.n, FRESH_SEED, whole=False)
        plain = bench.baseline(trial, FRESH, trial.n, FRESH_SEED, arm.plausible, whole=False)
        found: dict[str, Any] = {
            "share": bench.judge.share(steered.texts),
            "perplexity_ratio": steered.perplexity / plain.perplexity,
            "texts": steered.texts,
        }
        self._measured += 1
        seconds = time.monotonic() - started
        what = f"  {label} {arm.name[:60]}: {_figures(found)} {seconds:.0f} s"
        print(what, file=sys.stderr, flush=True)
        return found

    def _curve(self, bench: Bench, label: str, row: dict[str, Any], name: str, arm: Arm) -> None:
        if name in row["methods"]:
            return
        points = row.setdefault("begun", {}).setdefault(name, [])
        self._points(points, name, arm, lambda one: self._measure(bench, label, one))
        limits = self._options.limits
        at = {f"{one:g}": share_at(points, row["share_baseline"], one) for one in limits}
        held = arm.as_json(self._loaded.sae_id)
        row["methods"][name] = {"arm": held, "points": points, "at": at}
        del row["begun"][name]
        self._save()

    def _feature(self, label: str) -> int:
        return features_for(self._indexed, AutoConfig(self._loaded.sae_id, label=label))[0]

    def _points(
        self,
        points: list[dict[str, Any]],
        name: str,
        arm: Arm,
        measure: Callable[[Arm], dict[str, Any]],
    ) -> None:
        """Adds to `points`, which an earlier run may have begun, the weakest first."""
        known = [
            one
            for row in self.rows.values()
            for one in row["methods"].get(name, {}).get("points", [])
            if row["methods"][name]["arm"]["recipe"] == arm.recipe
        ]
        while len(points) < self._options.points:
            # The strengths of other labels say where to begin.
            so_far = points or known
            strength = next_on_curve(so_far, self._options.limits) if so_far else FIRST
            if any(abs(one["strength"] / strength - 1) < _CLOSE for one in points):
                break
            points.append({"strength": strength, **measure(arm.scaled(strength))})
            points.sort(key=lambda one: one["strength"])
            self._save()

    def _auto(self, label: str, row: dict[str, Any]) -> Arm:
        """What the search finds on development prompts and seeds, at strength 1."""
        if "auto" not in row:
            options = self._options
            config = AutoConfig(
                self._loaded.sae_id,
                label=label,
                recipes=tuple(options.recipes),
                most_ratio=max(options.limits),
                tries=options.tries,
                development=options.development,
                trial=searched(DEVELOPMENT, options.tokens),
            )
            started = time.monotonic()
            found = run_auto(
                self._workspace,
                config,
                loaded=self._loaded,
                baselines=self._baselines,
                judge=self._judge(label),
            )
            self._measured += 1
            row["auto"] = {key: found[key] for key in ("feature", "recipe", "strength", "tried")}
            row["auto"]["seconds"] = time.monotonic() - started
            row["auto"]["arm"] = found["arms"][0]
            self._save()
        held = row["auto"]["arm"]
        stack = tuple(Intervention.from_json(one) for one in held["interventions"])
        arm = Arm(stack, held["plausible"], held["kl_budget"], held["recipe"])
        return arm.scaled(1 / row["auto"]["strength"])


def summary(rows: dict[str, Any], limits: Sequence[float]) -> dict[str, Any]:
    """Means over the labels that are ready, and how far `auto` is ahead of each other method."""
    if not rows:
        return {}
    found: dict[str, Any] = {"labels": len(rows)}
    for limit in limits:
        for way, share in (("", share_at), (" at most", most_within)):
            shares = {
                name: [
                    share(row["methods"][name]["points"], row["share_baseline"], limit)
                    for row in rows.values()
                ]
                for name in CURVES
            }
            found[f"{limit:g}{way}"] = _beside_others(shares)
    for name in ("random", "prompting"):
        held = [row[name] for row in rows.values() if name in row]
        if held:
            found[name] = {
                key: statistics.mean(one[key] for one in held)
                for key in ("share", "perplexity_ratio")
            }
    found["share_baseline"] = statistics.mean(row["share_baseline"] for row in rows.values())
    return found


def _beside_others(shares: dict[str, list[float]]) -> dict[str, Any]:
    """The mean of each method, and how far the search is ahead of the others."""
    found: dict[str, Any] = {name: statistics.mean(some) for name, some in shares.items()}
    for name in CURVES[1:]:
        ahead = [a - b for a, b in zip(shares["auto"], shares[name], strict=True)]
        behind = sum(one < 0 for one in ahead)
        found[f"auto - {name}"] = {"mean": statistics.mean(ahead), "behind": behind}
    return found


def print_row(label: str, row: dict[str, Any], limits: Sequence[float]) -> None:
    """The shares of all methods at each limit, on one line."""
    cells = [f"{label:<22} plain {row['share_baseline']:.2f}"]
    for limit in (f"{limit:g}" for limit in limits):
        shares = " ".join(f"{name} {row['methods'][name]['at'][limit]:.2f}" for name in CURVES)
        cells.append(f"x{limit} {shares}")
    cells += [f"{name} {_figures(row[name])}" for name in ("random", "prompting") if name in row]
    print(" | ".join([*cells, row["auto"]["recipe"]]), flush=True)


def print_summary(found: dict[str, Any]) -> None:
    """The summary as JSON of rounded numbers."""
    print(json.dumps(json.loads(json.dumps(found), parse_float=lambda x: round(float(x), 3))))


def _figures(found: dict[str, Any]) -> str:
    return f"{found['share']:.2f} x{found['perplexity_ratio']:.2f}"
