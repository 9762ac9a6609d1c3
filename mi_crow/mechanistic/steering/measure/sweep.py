"""The work of `mi-crow steer evaluate`: every arm of a sweep measured, with its control."""

from collections.abc import Mapping
from dataclasses import asdict
from types import MappingProxyType
from typing import Any

from mi_crow.errors import NotFiniteError
from mi_crow.mechanistic.steering.fits import looked_up
from mi_crow.mechanistic.steering.loading import LoadedSae
from mi_crow.mechanistic.steering.measure.arms import Arm, arms_of, best_of, front, in_groups
from mi_crow.mechanistic.steering.measure.bench import Bench
from mi_crow.mechanistic.steering.measure.checks import (
    check_sweep,
    features_of,
    judging_of,
    rater_of,
)
from mi_crow.mechanistic.steering.measure.config import SweepConfig
from mi_crow.mechanistic.steering.measure.controls import control_of_stack, of_other_saes
from mi_crow.mechanistic.steering.measure.indexed import Indexed
from mi_crow.mechanistic.steering.measure.results import measurement_id, open_measurement
from mi_crow.mechanistic.steering.measure.setup import LOWER, make_bench, prompts_of
from mi_crow.progress import NullProgress, Progress, raise_if_stopped
from mi_crow.store.free_space import explain_shortage
from mi_crow.store.workspace import Workspace


@explain_shortage("measuring steering", LOWER)
def run_sweep(
    workspace: Workspace,
    config: SweepConfig,
    progress: Progress | None = None,
    loaded: LoadedSae | None = None,
) -> dict[str, Any]:
    """Measures every arm of `config` (see `Bench.figures`) beside the same on random features,
    directions and neurons, writes the result to the workspace, and returns it.

    `best` is the arm with the greatest share at a ratio of perplexities of at most `most_ratio`;
    `front` marks those that no other beats in one without being worse in the other. `refused` has
    the arms whose predictions were not finite, each with the reason. A sweep that was stopped goes
    on after the last arm that it finished. Raises UserError, NotFoundError, and NotFiniteError
    where every arm was refused.
    """
    progress = progress or NullProgress()
    check_sweep(workspace, config)
    indexed = Indexed.open(workspace, config.sae_id)
    stack, trial = looked_up(workspace, config.stack(), config.sae_id), config.trial
    targets = [feature for one in stack for feature in features_of(one, config.sae_id)]
    rivals = [feature for one in stack for feature, _ in one.rival_features]
    target = targets[0] if targets else None
    prompts = list(prompts_of(trial, indexed))
    judging = judging_of(workspace, indexed, config.judging, stack, config.sae_id)
    bench = make_bench(
        workspace, config.sae_id, indexed, judging, target, trial, config.device, loaded
    )
    others = control_of_stack(indexed.store, targets, rivals, trial.seed) if trial.control else {}
    bench.vector = next((one.aim.name for one in stack if one.aim.kind == "vector"), "")
    instead: dict[str, str] = {}
    if trial.control:
        instead = bench.stand_ins(stack, trial.seed)
        instead |= of_other_saes(workspace, stack, config.sae_id, trial.seed)
    bench.rater = rater_of(config.rating, judging.label, judging.description)
    name = config.name or measurement_id("sweep", asdict(config), bench.loaded.weights_hash())
    measurement = open_measurement(workspace, name, "sweep", asdict(config))
    arms = arms_of(config, stack)
    rows: list[dict[str, Any]] = []
    for group in in_groups(arms):
        if any(measurement.part(arm.name) is None for arm in group):
            raise_if_stopped(progress)
            # Also those that are measured already: the rows of a batch change the last bits.
            moved = [arm.of_other_features(others, instead) for arm in group]
            if moved == group:
                moved = []
            bench.write_ahead(group, moved, trial, prompts)
        for arm in group:
            progress.update(len(rows), len(arms), "arm")
            row = measurement.part(arm.name)
            if row is None:
                raise_if_stopped(progress)
                row = _measured(bench, arm, config, prompts, others, instead)
                measurement.keep(arm.name, row)
                progress.checkpoint(arm.name)
            rows.append(row)
    refused = [row for row in rows if "refused" in row]
    if len(refused) == len(rows):
        raise NotFiniteError(refused[0]["refused"], hint="lower the interventions' values")
    result = {
        "measurement": name,
        "sae_id": config.sae_id,
        "model_id": bench.loaded.lm.model_id,
        **bench.judge.as_json(),
        **(bench.rater.as_json() if bench.rater is not None else {}),
        "prompts": prompts,
        "n": trial.n,
        "seed": trial.seed,
        "control_features": {str(one): others[one] for one in targets if one in others},
        "control_targets": instead,
        "refused": refused,
        **judged([row for row in rows if "refused" not in row], config.most_ratio),
    }
    measurement.finish(result)
    return result


def judged(rows: list[dict[str, Any]], most_ratio: float) -> dict[str, Any]:
    """The arms with the front marked, and the best of them: by `overall` where a chat model rated
    the texts, else by the share of hits."""
    by = "overall" if rows and all("overall" in row for row in rows) else "share"
    points = [(row[by], row["perplexity_ratio"]) for row in rows]
    place = best_of(points, most_ratio)
    marked = [row | {"front": on} for row, on in zip(rows, front(points), strict=True)]
    best = None if place is None else marked[place]
    shown = best or (marked[0] if len(marked) == 1 else None)
    keys = ("share", "share_baseline", "share_random", "perplexity_ratio", "kl", "ce_added")
    keys = (*keys, *(("overall", "overall_baseline") if by == "overall" else ()))
    return {
        "most_ratio": most_ratio,
        "best": best["name"] if best else None,
        **({key: shown.get(key) for key in keys} if shown else {}),
        "arms": marked,
    }


def _measured(
    bench: Bench,
    arm: Arm,
    config: SweepConfig,
    prompts: list[str],
    others: dict[int, int],
    instead: dict[str, str],
) -> dict[str, Any]:
    trial = config.trial
    head = arm.as_json(config.sae_id)
    try:
        row = head | bench.figures(arm, trial, prompts, trial.n, trial.seed)
    except NotFiniteError as error:
        return head | {"refused": str(error)}
    if not others and not instead:
        return row
    return row | control_of(bench, arm, config, prompts, others, instead)


def control_of(
    bench: Bench,
    arm: Arm,
    config: Any,
    prompts: list[str],
    others: dict[int, int],
    instead: Mapping[str, str] = MappingProxyType({}),
) -> dict[str, Any]:
    """The figures of an arm on random features and on what stands in for its vectors and neurons,
    and the share beside its own; None where their predictions were not finite, or nothing is left
    to compare: there is no other layer like a whole layer."""
    trial = config.trial
    moved = arm.of_other_features(others, instead)
    if moved == arm:
        return {"share_random": None, "random": None}
    try:
        figures = bench.figures(moved, trial, prompts, trial.n, trial.seed)
    except NotFiniteError as error:
        return {"share_random": None, "random": {"refused": str(error)}}
    return {"share_random": figures["share"], "random": figures}
