"""How well steering works: `--auto` beside constant addition, a difference of means and prompting.

    python tests/benchmarks/steer.py WORKSPACE [--sae ID] [--labels N | --only NAME ..] [--n 128]
    python tests/benchmarks/steer.py WORKSPACE --speed
    python tests/benchmarks/steer.py WORKSPACE --model smollm2 --layer resid_post.15 --resume

The workspace has an SAE with its run and index, whose texts have labels: the demo's, or one that
`--model` (a folder, or `smollm2`, which is fetched) makes: see `steer_workspace`. For every label
one of the features that tell it best is steered. The search reads no label: it judges by the words
of the texts in which the feature is strong, on development prompts and seeds. What it finds is then
measured on `--sets` other sets of prompts (openings of the corpus), with fresh seeds and `--n`
continuations each, and judged by the label: a bag-of-words classifier on raw texts, never the SAE.
Beside it, at the same limits on the ratio of perplexities (1.25 and 1.5), with the same feature:
constant addition, a difference of means of the label's activations (`dom`), both with strengths
found by the same search; the prompt "Write about LABEL:"; and random features, against random
rivals, matched in density and norm. A label passes when its share goes from below 15% to above 60%
at a ratio of at most 1.5, on every set.

With `--model` or `--curves` the search knows the label, as `--auto --label` does, and all methods
are compared at equal ratios on prompts of their own: see `steer_curves`.

`--methods` leaves some of these out. The table goes to the terminal (of each set the shares, plain
> steered), the numbers to `--out`, after every label: `--resume` keeps those that are there.
`--speed` prints tokens/s of steered, paired and plausible generation beside plain ones.
"""

import argparse
import json
import statistics
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from mi_crow.language_model.capture_pass import run_to
from mi_crow.language_model.generation import Sampling, generate_sides
from mi_crow.mechanistic.steering.fits import feature_maxima
from mi_crow.mechanistic.steering.interventions import parse_intervention
from mi_crow.mechanistic.steering.loading import LoadedSae, load_for_work
from mi_crow.mechanistic.steering.measure.arms import Arm, best_of
from mi_crow.mechanistic.steering.measure.auto import run_auto
from mi_crow.mechanistic.steering.measure.bench import Bench
from mi_crow.mechanistic.steering.measure.config import (
    DEVELOPMENT,
    REPORTED,
    AutoConfig,
    Judging,
    Trial,
)
from mi_crow.mechanistic.steering.measure.controls import control_of_stack
from mi_crow.mechanistic.steering.measure.indexed import Indexed
from mi_crow.mechanistic.steering.measure.search import MARGIN, next_strength
from mi_crow.mechanistic.steering.measure.setup import make_bench
from mi_crow.mechanistic.steering.steer import steering
from mi_crow.mechanistic.vectors.stored import SteeringVector, save_vector
from mi_crow.store.atomic import write_json
from mi_crow.store.workspace import Workspace
from tests.benchmarks.steer_curves import (
    DEVELOPMENT_SEED,
    Curves,
    print_summary,
    random_for,
    searched,
    summary,
)
from tests.benchmarks.steer_workspace import SMOLLM2, STEPS, prepare, reported

LIMITS = (1.25, 1.5)
METHODS = ("auto", "add", "dom", "random", "prompting")
LOW, HIGH = 0.15, 0.6
FRESH_SEED = 77_000
MEAN_TEXTS = 64  # of each side of a difference of means


def main() -> None:
    options = _options()
    torch.set_flush_denormal(True)
    made = None
    if options.model:
        wanted = (options.layer, options.steps, options.device, options.dataset)
        made = prepare(Path(options.workspace), options.model, *wanted)
    workspace = Workspace.open(options.workspace, create=False)
    sae_id = options.sae or made or workspace.list_saes()[0].sae_id
    loaded = load_for_work(workspace, sae_id, options.device)
    if options.speed:
        _speed(workspace, loaded, options)
        return
    indexed = Indexed.open(workspace, sae_id)
    baselines: dict[Any, Any] = {}
    every = reported(indexed.texts) if options.model == SMOLLM2 else indexed.texts.labels
    labels = options.only or every[: options.labels]
    if options.model or options.curves:
        (curves := Curves(workspace, loaded, indexed, options)).run(labels)
        print_summary(summary(curves.rows, options.limits))
        return
    rows: dict[str, Any] = {}
    if options.resume and options.out.is_file():
        rows = json.loads(options.out.read_text())["labels"]
    for label in labels:
        if label not in rows:
            rows[label] = _label(workspace, loaded, indexed, label, options, baselines)
            report = {"sae_id": sae_id, "n": options.n, "sets": options.sets, "labels": rows}
            write_json(options.out, report | {"summary": _summary(rows)})
        _print_label(label, rows[label])
    _print_summary(_summary(rows))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("workspace")
    parser.add_argument("--sae")
    parser.add_argument("--model", help="a folder, or smollm2: make the workspace first")
    parser.add_argument("--layer", default="resid_post.15", help="with --model")
    parser.add_argument("--steps", type=int, default=STEPS, help="of the SAE, with --model")
    parser.add_argument("--dataset", type=Path, help="JSON lines of text and label, with --model")
    parser.add_argument("--curves", action="store_true")
    parser.add_argument("--points", type=int, default=3, help="strengths of a curve")
    parser.add_argument("--labels", type=int, default=1000, help="the first so many")
    parser.add_argument("--only", nargs="+", help="these labels")
    parser.add_argument("--n", type=int, default=128)
    parser.add_argument("--sets", type=int, default=3)
    parser.add_argument("--tokens", type=int, default=48)
    parser.add_argument("--tries", type=int, default=5)
    parser.add_argument("--development", type=int, default=32)
    parser.add_argument("--recipes", nargs="+", default=[])
    parser.add_argument("--methods", nargs="+", default=METHODS, choices=METHODS)
    parser.add_argument("--limits", nargs="+", type=float, default=LIMITS)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--speed", action="store_true")
    parser.add_argument("--rounds", type=int, default=7, help="of --speed, each way by turns")
    parser.add_argument("--resume", action="store_true")
    parser.add_argument("--out", type=Path, default=Path("steer-benchmark.json"))
    return parser.parse_args()


def _label(
    workspace: Workspace,
    loaded: LoadedSae,
    indexed: Indexed,
    label: str,
    options: argparse.Namespace,
    baselines: dict[Any, Any],
) -> dict[str, Any]:
    """The methods that are asked for, on one label."""
    common = REPORTED * (options.sets + 1)
    openings = indexed.texts.openings(common + DEVELOPMENT - REPORTED)
    sets = [openings[at : common : options.sets + 1] for at in range(options.sets + 1)]
    development, fresh = [*sets[-1], *openings[common:]], sets[:-1]
    trial = Trial(n=options.n, max_new_tokens=options.tokens, documents=0, control=False)

    def judged_by(judging: Judging, feature: int | None = None) -> Bench:
        return make_bench(
            workspace,
            loaded.sae_id,
            indexed,
            judging,
            feature,
            trial,
            loaded=loaded,
            baselines=baselines,
        )

    bench = judged_by(Judging(label=label))
    row: dict[str, Any] = {"limits": {}}
    for limit in options.limits:

        def search(
            recipes: Sequence[str], limit: float = limit, feature: int | None = None
        ) -> dict[str, Any]:
            config = AutoConfig(
                loaded.sae_id,
                feature=feature,
                label=label if feature is None else None,
                label_free=feature is None,
                recipes=tuple(recipes),
                most_ratio=limit,
                tries=options.tries,
                development=options.development,
                trial=searched(development, options.tokens),
            )
            return run_auto(workspace, config, loaded=loaded, baselines=baselines)

        found = search(options.recipes)
        feature, auto = found["feature"], _arm(found["arms"][0])
        changed = [n for one in auto.interventions for n, _ in one.features] or [feature]
        rivals = [n for one in auto.interventions for n, _ in one.rival_features]
        # Another draw for each set of prompts: a single random feature may happen to be near.
        others = [
            control_of_stack(indexed.store, changed, rivals, one) for one in range(len(fresh))
        ]
        methods: dict[str, Arm | Sequence[Arm] | None] = {
            "auto": auto,
            "random": [auto.of_other_features(one, random_for(auto, one)) for one in others],
        }
        if "add" in options.methods:
            methods["add"] = _arm(search(["add"], feature=feature)["arms"][0])
        if "dom" in options.methods:
            vector = _means(workspace, loaded, indexed, label)
            direction = Arm((parse_intervention(f"vector:{vector}=+1norm"),))
            topic = judged_by(Judging(feature=feature), feature)
            methods["dom"] = _bisect(topic, direction, trial, development, options, limit)
        row["limits"][f"{limit:g}"] = {
            "feature": feature,
            "recipe": found["recipe"],
            "strength": found["strength"],
            "random_features": [{one: other[one] for one in changed} for other in others],
            **{name: _measured(bench, arm, trial, fresh) for name, arm in methods.items() if arm},
        }
    if "prompting" in options.methods:
        row["prompting"] = _prompting(bench, label, trial, fresh)
    return row


def _arm(found: dict[str, Any]) -> Arm:
    from mi_crow.mechanistic.steering.interventions import Intervention

    stack = tuple(Intervention.from_json(one) for one in found["interventions"])
    return Arm(stack, found["plausible"], found["kl_budget"], found["recipe"])


def _bisect(
    bench: Bench,
    arm: Arm,
    trial: Trial,
    prompts: Sequence[str],
    options: argparse.Namespace,
    limit: float,
) -> Arm | None:
    """The strength of an arm as the search finds it."""
    limit = 1 + MARGIN * (limit - 1)
    tried: list[tuple[float, dict[str, Any]]] = []
    for _ in range(options.tries):
        strength = next_strength([(s, row["perplexity_ratio"]) for s, row in tried], limit)
        if strength is None:
            break
        scaled = arm.scaled(strength)
        tried.append(
            (strength, bench.quick(scaled, trial, prompts, options.development, DEVELOPMENT_SEED))
        )
    place = best_of([(row["effect"], row["perplexity_ratio"]) for _, row in tried], limit)
    return None if place is None else arm.scaled(tried[place][0])


def _measured(
    bench: Bench, arm: Arm | Sequence[Arm], trial: Trial, sets: Sequence[Sequence[str]]
) -> dict[str, Any]:
    """An arm on every set of prompts, or one of several on each."""
    arms = [arm] * len(sets) if isinstance(arm, Arm) else arm
    found = [
        bench.quick(arm, trial, prompts, trial.n, FRESH_SEED + number)
        | {
            "share_baseline": bench.judge.share(
                bench.baseline(
                    trial, prompts, trial.n, FRESH_SEED + number, arm.plausible, whole=False
                ).texts
            )
        }
        for number, (arm, prompts) in enumerate(zip(arms, sets, strict=True))
    ]
    numbers = [name for name, value in found[0].items() if isinstance(value, int | float)]
    return {
        "name": arms[0].name,
        **{name: statistics.mean(one[name] for one in found) for name in numbers},
        "sets": found,
    }


def _prompting(
    bench: Bench, label: str, trial: Trial, sets: Sequence[Sequence[str]]
) -> dict[str, Any]:
    """The plain model, told what to write about; perplexities are given the prompt as it is."""
    shares, ratios = [], []
    for number, prompts in enumerate(sets):
        seed = FRESH_SEED + number
        plain = bench.baseline(trial, prompts, trial.n, seed, None, whole=False)
        asked = [f"Write about {label.rpartition(':')[2]}: {prompt}" for prompt in prompts]
        told = bench.baseline(trial, asked, trial.n, seed, None, whole=False)
        shares.append(bench.judge.share(told.texts))
        ratios.append(told.perplexity / plain.perplexity)
    return {"share": statistics.mean(shares), "perplexity_ratio": statistics.mean(ratios)}


@torch.inference_mode()
def _means(workspace: Workspace, loaded: LoadedSae, indexed: Indexed, label: str) -> str:
    """Saves the difference of means of a label's activations as a vector of norm 1; its name."""
    train = [one for one in indexed.texts.documents if not one.heldout]
    sides = [[one.text for one in train if (one.label == label) == on] for on in (True, False)]
    means = []
    for texts in sides:
        total, count = torch.zeros(loaded.sae.n_inputs), 0
        for text in texts[:MEAN_TEXTS]:
            encoding = loaded.lm.encode([text], min(128, loaded.lm.context or 128))
            x = run_to(loaded.lm, [loaded.layer], encoding.input_ids, encoding.attention_mask)
            kept = x[loaded.layer][0][~encoding.special[0]].float().cpu()
            total, count = total + kept.sum(0), count + len(kept)
        means.append(total / max(count, 1))
    difference = means[0] - means[1]
    name = "benchmark-dom"
    vector = SteeringVector(name, {loaded.layer.name: difference / difference.norm()})
    save_vector(workspace, vector, replace=True)
    return name


def _passes(one: dict[str, Any], limit: float) -> bool:
    return all(
        found["share_baseline"] < LOW
        and found["share"] > HIGH
        and found["perplexity_ratio"] <= limit
        for found in one["sets"]
    )


def _summary(rows: dict[str, Any]) -> dict[str, Any]:
    summary: dict[str, Any] = {}
    for limit in next(iter(rows.values()))["limits"]:
        measured = [row["limits"][limit] for row in rows.values()]
        for name in ("auto", "add", "dom", "random"):
            found = [one[name] for one in measured if name in one]
            if found:
                summary[f"{name} at {limit}"] = {
                    "labels": len(found),
                    "share": statistics.mean(one["share"] for one in found),
                    "perplexity_ratio": statistics.mean(one["perplexity_ratio"] for one in found),
                    "passed": sum(_passes(one, float(limit)) for one in found),
                }
        ahead = [one["auto"]["share"] - one["add"]["share"] for one in measured if "add" in one]
        if ahead:
            summary[f"auto minus add at {limit}"] = {
                "mean": statistics.mean(ahead),
                "behind": sum(one < 0 for one in ahead),
            }
    told = [row["prompting"] for row in rows.values() if "prompting" in row]
    if told:
        summary["prompting"] = {
            key: statistics.mean(one[key] for one in told) for key in ("share", "perplexity_ratio")
        }
    return summary


def _print_label(label: str, row: dict[str, Any]) -> None:
    """One line a limit: of each set of prompts the share, plain -> steered."""
    for limit, found in row["limits"].items():
        cells = "  ".join(
            f"{name} {found[name]['share']:.2f} x{found[name]['perplexity_ratio']:.2f}"
            for name in ("auto", "add", "dom", "random")
            if name in found
        )
        sets = " ".join(
            f"{one['share_baseline']:.2f}>{one['share']:.2f}" for one in found["auto"]["sets"]
        )
        how = f"{found['recipe']} {found['strength']:.2f}"
        print(f"{label:<20} {limit:>5}  {sets}  {cells}  {how}", flush=True)
    if "prompting" in row:
        print(f"{'':<20} prompting {row['prompting']['share']:.2f}", flush=True)


def _print_summary(summary: dict[str, Any]) -> None:
    print()
    for name, figures in summary.items():
        print(f"{name:<24}", "  ".join(f"{key} {value:.3g}" for key, value in figures.items()))


def _speed(workspace: Workspace, loaded: LoadedSae, options: argparse.Namespace) -> None:
    """Tokens/s of each way to generate, as a share of a plain batch as large: both by turns, the
    fastest of each."""
    indexed = Indexed.open(workspace, loaded.sae_id)
    feature = int(indexed.store.ids("density")[0])
    every = [parse_intervention(f"{feature}=floor 1max")]
    maxima = feature_maxima(workspace, loaded.sae_id, every)
    prompt = indexed.texts.openings(1)[0]
    lm = loaded.lm

    def rate(change: str | None, count: int, sides: tuple[Any, ...], beta: float | None) -> float:
        sampling = Sampling(options.tokens, 0.8, seed=1, n=count, plausible=beta)
        stack = [] if change is None else [parse_intervention(f"{feature}={change}")]
        with steering(lm, loaded.sae, loaded.layer, stack, maxima):
            started = time.perf_counter()
            found = generate_sides(lm, prompt, sampling, sides)
            seconds = time.perf_counter() - started
        return sum(len(ids) for one in found.values() for ids in one.token_ids) / seconds

    steered, pair, floor = ("steered",), ("baseline", "steered"), "floor 0.3norm"
    ways: dict[str, tuple[str, int, tuple[Any, ...], float | None, int]] = {
        "steered, one": (floor, 1, steered, None, 1),
        "steered, 8 at once": (floor, 8, steered, None, 8),
        "feedback, one": (f"{floor}@feedback", 1, steered, None, 1),
        "A/B pair to a plain pair": (floor, 1, pair, None, 2),
        "plausible, one": (floor, 1, steered, 0.1, 1),
    }
    ratios, plain = {}, {}
    for name, (change, count, sides, beta, size) in ways.items():
        rates = [
            (rate(change, count, sides, beta), rate(None, size, ("baseline",), None))
            for _ in range(options.rounds)
        ]
        fastest, plain[name] = (max(one[at] for one in rates) for at in (0, 1))
        ratios[name] = fastest / plain[name]
        print(f"{name:<28}{ratios[name]:.2f}", flush=True)
    write_json(options.out, {"sae_id": loaded.sae_id, "plain_tokens_s": plain, "ratios": ratios})


if __name__ == "__main__":
    main()
