"""The work of `mi-crow steer --auto`: the recipe and the strength that make a feature happen.

Each recipe's strength is found by bisection on development prompts and a seed of their own; what is
reported is measured afterwards, on other prompts and another seed.
"""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from mi_crow.errors import UserError
from mi_crow.mechanistic.steering.loading import LoadedSae
from mi_crow.mechanistic.steering.measure.arms import Arm, best_of
from mi_crow.mechanistic.steering.measure.bench import Bench
from mi_crow.mechanistic.steering.measure.checks import check_auto, feature_for
from mi_crow.mechanistic.steering.measure.config import AutoConfig
from mi_crow.mechanistic.steering.measure.controls import matched_features
from mi_crow.mechanistic.steering.measure.indexed import Indexed
from mi_crow.mechanistic.steering.measure.recipes import Aim, Recipe, recipes_named
from mi_crow.mechanistic.steering.measure.results import (
    Measurement,
    measurement_id,
    open_measurement,
)
from mi_crow.mechanistic.steering.measure.rivals import rivals_of
from mi_crow.mechanistic.steering.measure.setup import PROMPTS, make_bench, prompts_of
from mi_crow.mechanistic.steering.measure.sweep import control_of
from mi_crow.progress import NullProgress, Progress, raise_if_stopped
from mi_crow.store.workspace import Workspace

_DEVELOPMENT_SEED = 1_000_003  # added to the seed: no continuation is measured twice
_FIRST, _LEAST, _MOST = 0.3, 0.01, 6.0  # norms
_STEP = 1.6
_CLOSE = 1.1  # strengths nearer than this are not told apart
# Of what the perplexity may rise by: a ratio of few continuations may be above that of many.
_MARGIN = 0.85


def run_auto(
    workspace: Workspace,
    config: AutoConfig,
    progress: Progress | None = None,
    loaded: LoadedSae | None = None,
) -> dict[str, Any]:
    """Tries every recipe, and reports the best of each on fresh prompts and a fresh seed.

    `recipe` and `strength` (in norms of the residual stream) name the winner: the greatest share on
    development continuations at a ratio of perplexities of at most `most_ratio`. `arms` has all,
    the winner first, with the same figures as a sweep's, and `interventions` is the winner's stack.
    What was measured before it was stopped is not measured again. Raises UserError, NotFoundError.
    """
    progress = progress or NullProgress()
    check_auto(workspace, config)
    indexed = Indexed.open(workspace, config.sae_id)
    feature = feature_for(indexed, config)
    trial = config.trial
    prompts = list(prompts_of(trial, indexed, 2 * PROMPTS))
    development, fresh = prompts[1::2], prompts[::2]
    bench = make_bench(
        workspace, config.sae_id, indexed, config.judging, feature, trial, config.device, loaded
    )
    name = config.name or measurement_id("auto", asdict(config), bench.loaded.weights_hash())
    measurement = open_measurement(workspace, name, "auto", asdict(config))
    aim = Aim(feature, rivals_of(indexed.store, feature))
    search = _Search(bench, config, development, measurement, progress)
    built = [
        (recipe, arm) for recipe in recipes_named(config.recipes) if (arm := recipe.build(aim))
    ]
    search.total = len(built) * (config.tries + 1)
    found = [(recipe, search.best(recipe, arm)) for recipe, arm in built]
    usable = [(recipe, best) for recipe, best in found if best is not None]
    if not usable:
        raise UserError(
            f"no recipe moves feature {feature} at a ratio of perplexities of at most "
            f"{config.most_ratio:g}",
            hint="allow a higher --most-ratio, or choose another feature",
        )
    order = sorted(usable, key=lambda one: (-one[1][1]["share"], one[1][1]["perplexity_ratio"]))
    others = (
        matched_features(indexed.store, [feature], trial.seed, aim.rivals) if trial.control else {}
    )
    rows = []
    for recipe, (arm, tried) in order:
        rows.append(search.report(recipe, arm, tried, fresh, others))
    winner = rows[0]
    result = {
        "measurement": name,
        "sae_id": config.sae_id,
        "model_id": bench.loaded.lm.model_id,
        "feature": feature,
        "label": config.label,
        **bench.judge.as_json(),
        "recipe": winner["recipe"],
        "strength": winner["strength"],
        "unit": "norm",
        **{
            key: winner.get(key)
            for key in ("share", "share_baseline", "share_random", "perplexity_ratio", "kl")
        },
        "ce_added": winner["ce_added"],
        "most_ratio": config.most_ratio,
        "prompts": fresh,
        "development_prompts": development,
        "n": trial.n,
        "seed": trial.seed,
        "control_features": {str(one): other for one, other in others.items()},
        "interventions": winner["interventions"],
        "plausible": winner["plausible"],
        "kl_budget": winner["kl_budget"],
        "arms": rows,
        "preset": config.preset,
    }
    measurement.finish(result)
    if config.preset is not None:
        _save_preset(workspace, config.preset, winner["interventions"])
    return result


class _Search:
    """The tries of all recipes."""

    def __init__(
        self,
        bench: Bench,
        config: AutoConfig,
        prompts: Sequence[str],
        measurement: Measurement,
        progress: Progress,
    ) -> None:
        self._bench, self._config, self._prompts = bench, config, list(prompts)
        self._measurement, self._progress = measurement, progress
        self._done = 0
        self.total = 0

    def best(self, recipe: Recipe, arm: Arm) -> tuple[Arm, dict[str, Any]] | None:
        """The best strength of a recipe on the development prompts, with its figures there; None
        where every strength costs too much."""
        limit = 1 + _MARGIN * (self._config.most_ratio - 1)
        tried: list[tuple[float, dict[str, Any]]] = []
        for _ in range(self._config.tries):
            strength = next_strength([(s, row["perplexity_ratio"]) for s, row in tried], limit)
            if strength is None:
                break
            tried.append((strength, self._try(recipe, arm.scaled(strength), strength)))
        place = best_of([(row["share"], row["perplexity_ratio"]) for _, row in tried], limit)
        if place is None:
            return None
        strength, row = tried[place]
        return arm.scaled(strength), {**row, "strength": strength, "tried": _short(tried)}

    def _try(self, recipe: Recipe, arm: Arm, strength: float) -> dict[str, Any]:
        config = self._config
        key = f"{recipe.name} {strength:.6g}"
        row = self._measurement.part(key)
        if row is None:
            raise_if_stopped(self._progress)
            seed = (config.trial.seed + _DEVELOPMENT_SEED) % 2**32
            row = self._bench.quick(arm, config.trial, self._prompts, config.development, seed)
            self._measurement.keep(key, row)
            self._progress.checkpoint(key)
        self._step(recipe)
        return row

    def _step(self, recipe: Recipe) -> None:
        self._done += 1
        self._progress.update(min(self._done, self.total), self.total, "try")

    def report(
        self,
        recipe: Recipe,
        arm: Arm,
        tried: dict[str, Any],
        prompts: list[str],
        others: dict[int, int],
    ) -> dict[str, Any]:
        """The figures of a recipe at its best strength, on fresh prompts and a fresh seed."""
        key = f"{recipe.name} fresh"
        row = self._measurement.part(key)
        if row is None:
            raise_if_stopped(self._progress)
            config = self._config
            row = {
                **arm.as_json(config.sae_id),
                "recipe": recipe.name,
                "strength": tried["strength"],
                "development": {k: tried[k] for k in ("share", "perplexity_ratio", "tried")},
                **self._bench.figures(
                    arm, config.trial, prompts, config.trial.n, config.trial.seed
                ),
                **(control_of(self._bench, arm, config, prompts, others) if others else {}),
            }
            self._measurement.keep(key, row)
            self._progress.checkpoint(key)
        self._step(recipe)
        return row


def next_strength(tried: Sequence[tuple[float, float]], most_ratio: float) -> float | None:
    """The next strength to try after some (strength, ratio of perplexities): between the strongest
    that fits and the weakest that does not, or a step further; None where nothing is left between.
    """
    if not tried:
        return _FIRST
    fitting = [strength for strength, ratio in tried if ratio <= most_ratio]
    above = [strength for strength, ratio in tried if ratio > most_ratio]
    low = max((one for one in fitting if not above or one < min(above)), default=None)
    high = min(above, default=None)
    if high is None:
        following = max(fitting) * _STEP
        return following if following <= _MOST else None
    if low is None:
        following = high / _STEP
        return following if following >= _LEAST else None
    return (low * high) ** 0.5 if high / low > _CLOSE else None


def _short(tried: Sequence[tuple[float, dict[str, Any]]]) -> list[dict[str, float]]:
    return [
        {"strength": s, "share": row["share"], "perplexity_ratio": row["perplexity_ratio"]}
        for s, row in sorted(tried, key=lambda one: one[0])
    ]


def _save_preset(workspace: Workspace, name: str, interventions: list[dict[str, Any]]) -> None:
    from mi_crow.mechanistic.concepts.annotations import Annotations

    annotations = Annotations(workspace.annotations_path)
    try:
        annotations.save_preset(name, interventions)
    finally:
        annotations.close()
