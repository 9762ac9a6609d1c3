"""The work of `mi-crow steer --auto`: the recipe and the strength that make a feature happen.

They are chosen on development prompts with seeds of their own (see `search`); what is reported is
measured afterwards, on other prompts and another seed.
"""

from collections.abc import Mapping, Sequence, Set
from contextlib import suppress
from dataclasses import asdict, replace
from typing import Any

from mi_crow.errors import UserError
from mi_crow.mechanistic.steering.loading import LoadedSae
from mi_crow.mechanistic.steering.measure.aims.allies import allies_of
from mi_crow.mechanistic.steering.measure.aims.described import texts_described
from mi_crow.mechanistic.steering.measure.aims.own_texts import (
    MOST,
    others_of,
    own_vector,
    worthy,
)
from mi_crow.mechanistic.steering.measure.aims.rivals import rivals_of
from mi_crow.mechanistic.steering.measure.aims.spare import remove_spare, vectors_before
from mi_crow.mechanistic.steering.measure.aims.topic_vector import topic_vector
from mi_crow.mechanistic.steering.measure.arms import Arm
from mi_crow.mechanistic.steering.measure.bench import ArmTexts, Bench
from mi_crow.mechanistic.steering.measure.checks import check_auto, features_for, rater_of
from mi_crow.mechanistic.steering.measure.config import DEVELOPMENT, REPORTED, AutoConfig
from mi_crow.mechanistic.steering.measure.controls import control_of_stack
from mi_crow.mechanistic.steering.measure.indexed import Indexed
from mi_crow.mechanistic.steering.measure.judges import Judge
from mi_crow.mechanistic.steering.measure.recipes import Aim, Recipe, recipes_named
from mi_crow.mechanistic.steering.measure.results import (
    Measurement,
    measurement_id,
    open_measurement,
)
from mi_crow.mechanistic.steering.measure.search import (
    Finalist,
    Search,
    development_seed,
    short,
)
from mi_crow.mechanistic.steering.measure.setup import LOWER, make_bench, prompts_of
from mi_crow.mechanistic.steering.measure.sweep import control_of
from mi_crow.progress import NullProgress, Progress, raise_if_stopped
from mi_crow.store.free_space import explain_shortage
from mi_crow.store.workspace import Workspace


@explain_shortage("measuring steering", f"{LOWER}, and --development")
def run_auto(
    workspace: Workspace,
    config: AutoConfig,
    progress: Progress | None = None,
    loaded: LoadedSae | None = None,
    baselines: dict[Any, ArmTexts] | None = None,
    judge: Judge | None = None,
) -> dict[str, Any]:
    """Tries every recipe, and reports the best few on fresh prompts and a fresh seed.

    `recipe` and `strength` (in norms of the residual stream) name the winner: the greatest effect
    (see `Judge.effect`) on development continuations at a ratio of perplexities of at most
    `most_ratio`, or one that is as much on the topic as the corpus's own texts. Of several features
    that tell a label equally well the one that steers best is taken. `arms` has the finalists, the
    winner first, with the same figures as a sweep's, `tried` what every recipe did at each
    strength, and `interventions` is the winner's stack.
    What was measured before it was stopped is not measured again. `baselines` are kept from call to
    call where one is given. `judge`: one to judge by in place of that of the config. Raises
    UserError, NotFoundError.
    """
    progress = progress or NullProgress()
    check_auto(workspace, config)
    indexed = Indexed.open(workspace, config.sae_id)
    features = features_for(indexed, config)
    trial = config.trial
    prompts = list(prompts_of(trial, indexed, REPORTED + DEVELOPMENT))
    every = 2 if trial.prompts else 1 + DEVELOPMENT // REPORTED
    fresh = prompts[::every]
    development = [one for place, one in enumerate(prompts) if place % every]
    bench = make_bench(
        workspace,
        config.sae_id,
        indexed,
        config.judging,
        features[0],
        trial,
        config.device,
        loaded,
        baselines,
    )
    bench.judge = judge or bench.judge
    bench.rater = rater_of(config.rating, config.label, config.description)
    name = config.name or measurement_id("auto", asdict(config), bench.loaded.weights_hash())
    measurement = open_measurement(workspace, name, "auto", asdict(config))
    enough = bench.judge.own_effect
    search = Search(bench, config, development, measurement, progress, enough)
    feature = search.choose(features)
    (row,) = indexed.store.rows([feature])
    bench.target, bench.greatest = feature, row.max_act
    recipes = recipes_named(config.recipes)
    before = vectors_before(workspace, measurement)
    aim = _aim(bench, indexed, config, feature, {recipe.name for recipe in recipes})
    built = [(recipe, arm) for recipe in recipes if (arm := recipe.build(aim))]
    learnt = _Learnt(bench, config, feature, development, recipes, measurement)
    tried, finalists = search.run(built, learnt)
    made = {aim.vector, aim.spread, learnt.vector} - {"", *before}
    if not finalists:
        remove_spare(workspace, made)
        raise UserError(
            f"no recipe moves feature {feature} at a ratio of perplexities of at most "
            f"{config.most_ratio:g}",
            hint="allow a higher --most-ratio, or choose another feature",
        )
    changed = dict.fromkeys([feature, *(ally for ally, _ in aim.allies)])
    others = (
        control_of_stack(indexed.store, changed, aim.rivals, trial.seed) if trial.control else {}
    )
    rows = []
    for one in finalists:
        rows.append(_report(bench, config, one, fresh, others, measurement, progress))
        search.step()
    winner = rows[0]
    result = {
        "measurement": name,
        "sae_id": config.sae_id,
        "model_id": bench.loaded.lm.model_id,
        "feature": feature,
        "features": list(features),  # the one that steers was chosen among these
        "label": config.label,
        "description": config.description,
        **bench.judge.as_json(),
        **(bench.rater.as_json() if bench.rater is not None else {}),
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
        "control_features": {str(one): others[one] for one in changed if one in others},
        "control_targets": {
            target: other
            for row in rows
            for target, other in row.get("control_targets", {}).items()
        },
        "interventions": winner["interventions"],
        "plausible": winner["plausible"],
        "kl_budget": winner["kl_budget"],
        "arms": rows,
        "tried": {one.recipe.name: short(one) for one in tried if one.tries},
        "preset": config.preset,
    }
    # Before it is finished: a search that is stopped from here on does all of this again.
    if config.preset is not None:
        _save_preset(workspace, config.preset, winner)
    remove_spare(workspace, made, [one["target"] for row in rows for one in row["interventions"]])
    measurement.finish(result)
    return result


def _aim(
    bench: Bench, indexed: Indexed, config: AutoConfig, feature: int, recipes: Set[str]
) -> Aim:
    """What the recipes need to know of a feature or a label; what is found in texts only where
    there are enough of them."""
    rivals = rivals_of(indexed.store, feature) if "swap" in recipes else ()
    allies: tuple[tuple[int, float], ...] = ()
    vector = spread = ""
    with suppress(UserError):
        texts, seed, label = indexed.texts, config.trial.seed, config.judging.label
        if config.judging.description is not None:
            sides = texts_described(texts, config.judging.description)
        else:
            sides = texts.about(feature, seed) if label is None else texts.labelled(label, seed)
        if recipes & {"group", "group-decay"}:
            allies = allies_of(indexed.store, sides, feature)
        if recipes & {"means", "means-floor", "means-decay", "means-plausible"}:
            vector = topic_vector(bench.workspace, bench.loaded, sides, feature, label)
        if "means-layers" in recipes:
            at_layers = (bench.workspace, bench.loaded, sides, feature, label)
            spread = topic_vector(*at_layers, spread=True)
    rivals = tuple(one for one in rivals if one not in dict(allies))
    return Aim(feature, rivals, allies, vector, spread)


class _Learnt:
    """The recipes that learn from what the model wrote on the topic."""

    def __init__(
        self,
        bench: Bench,
        config: AutoConfig,
        feature: int,
        prompts: Sequence[str],
        recipes: Sequence[Recipe],
        measurement: Measurement,
    ) -> None:
        self._bench, self._config, self._feature = bench, config, feature
        self._prompts, self._measurement = list(prompts), measurement
        self._recipes = [one for one in recipes if one.own]
        self.vector: str = ""

    def __call__(self, written: list[tuple[str, float]]) -> list[tuple[Recipe, Arm]]:
        """Nothing where too few texts are on the topic."""
        if not self._recipes:
            return []
        bench, config, n = self._bench, self._config, 2 * self._config.development
        seed = development_seed(config.trial, 1)
        plain = bench.baseline(config.trial, self._prompts, n, seed, None, whole=False)
        others = others_of(bench.judge, plain)
        found = [*written, *self._asked(plain, n, seed)]
        of = (self._feature, config.label)
        with suppress(UserError):
            self.vector = own_vector(bench.workspace, bench.loaded, found, others, *of)
        aim = Aim(self._feature, own=self.vector)
        return [(one, arm) for one in self._recipes if (arm := one.build(aim))]

    def _asked(self, plain: ArmTexts, n: int, seed: int) -> list[tuple[str, float]]:
        """What the model writes where it is asked to, if it can be said what about."""
        about = self._config.description or (self._config.label or "").rpartition(":")[2]
        if self._config.label_free or not about.strip():
            return []
        kept = self._measurement.part("asked")
        if kept is None:
            asked = {f"Write about {about.strip()}: {one}": one for one in self._prompts}
            told = self._bench.read(Arm(()), self._config.trial, [*asked], n, seed, whole=False)
            told = replace(told, prompts=[asked[one] for one in told.prompts])
            kept = worthy(self._bench.judge, told, plain, MOST)
            self._measurement.keep("asked", kept)
        return [(text, worth) for text, worth in kept]


def _without_texts(row: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in row.items() if key != "own"}


def _report(
    bench: Bench,
    config: AutoConfig,
    one: Finalist,
    prompts: list[str],
    others: dict[int, int],
    measurement: Measurement,
    progress: Progress,
) -> dict[str, Any]:
    """The figures of a finalist on fresh prompts and a fresh seed."""
    name, trial, arm = one.tried.recipe.name, config.trial, one.arm
    key = f"{name} fresh"
    row = measurement.part(key)
    if row is None:
        raise_if_stopped(progress)
        instead = bench.stand_ins(arm.interventions, trial.seed) if trial.control else {}
        row = {
            **arm.as_json(config.sae_id),
            "recipe": name,
            "strength": one.strength,
            "development": {**_without_texts(one.row), "tried": short(one.tried)},
            **bench.figures(arm, trial, prompts, trial.n, trial.seed),
            **(control_of(bench, arm, config, prompts, others, instead) if others else {}),
            "control_targets": instead,
        }
        measurement.keep(key, row)
        progress.checkpoint(key)
    return row


def _save_preset(workspace: Workspace, name: str, arm: Mapping[str, Any]) -> None:
    from mi_crow.mechanistic.concepts.annotations import Annotations

    annotations = Annotations(workspace.annotations_path)
    try:
        annotations.save_preset(name, arm["interventions"], arm["plausible"], arm["kl_budget"])
    finally:
        annotations.close()
