"""`mi-crow train --estimate`: what a training would take, with nothing trained."""

from argparse import ArgumentParser, Namespace

from mi_crow.bounds import FACTOR
from mi_crow.cli.arguments import add_setting, add_switch, number_within
from mi_crow.cli.formatting import count, duration, size
from mi_crow.cli.tables import print_facts, print_json
from mi_crow.errors import MiCrowError, UserError
from mi_crow.language_model.outline import Outline, outline_of
from mi_crow.mechanistic.sae.config import CROSSCODER, NONE, TrainConfig
from mi_crow.mechanistic.sae.estimate.training import (
    ExpectedTime,
    TrainingCost,
    expected_time,
    training_cost,
    width_read,
)
from mi_crow.store.runs.manifest import RunManifest
from mi_crow.store.workspace import SaeSummary, Workspace, read_sae_summary


def add_estimate_flags(parser: ArgumentParser) -> None:
    group = parser.add_argument_group("estimate")
    add_switch(group, "--estimate", "print memory, disk and time of this training, train nothing")
    speeds = number_within(FACTOR)
    add_setting(group, "--tflops", 50.0, "10^12 operations a second of the device", type=speeds)


def print_estimate(workspace: Workspace, config: TrainConfig, options: Namespace) -> None:
    """Raises UserError where the width of the layer or of the SAE to go on from is not known."""
    run = None if config.stream else RunManifest.load(workspace.run_dir(config.run_id))
    outline = _outline(config, run)
    width = width_read(config, run, outline)
    if width is None:
        raise UserError(
            f"the width of {config.layer!r} is not known: the model's files are not here",
            hint="download the model, or capture a run of it",
        )
    start = None if config.init is None else _start(workspace, config.init)
    cost = training_cost(config, width, run, outline, start)
    if not cost.steps:
        raise UserError("it is not known how many tokens there are", hint="give --steps")
    expected = expected_time(config, cost, workspace.list_saes(), run)
    if options.json:
        measured = None if expected is None else expected.seconds
        seconds = cost.seconds(options.tflops)
        print_json({**cost.as_json(), "seconds": seconds, "measured_seconds": measured})
    else:
        print_facts(_facts(config, cost, expected, options.tflops))


def _outline(config: TrainConfig, run: RunManifest | None) -> Outline | None:
    """Of the model that the training runs; None where it runs none."""
    if config.stream is not None:
        model = config.stream.model
        return outline_of(model.model, model.revision, model.gguf_file)
    if config.finetune == NONE or run is None:
        return None
    return outline_of(run.model_id, run.revision, run.settings.get("gguf_file"))


def _start(workspace: Workspace, init: str) -> SaeSummary:
    try:
        return read_sae_summary(workspace.sae_or_path(init))
    except UserError:
        raise
    except MiCrowError as error:
        raise UserError(
            f"it is not known how many latents {init!r} has: {error}",
            hint="import it first (mi-crow import), and name what that made",
        ) from error


def _facts(
    config: TrainConfig, cost: TrainingCost, expected: ExpectedTime | None, tflops: float
) -> dict[str, str]:
    times = cost.seconds(tflops)
    read = f"{count(cost.steps)} of {count(cost.batch_size)} tokens"
    if cost.epochs is not None:
        read += f", {cost.epochs:.1f} epochs"
    memory = {"memory": f"{size(cost.memory)} beside torch itself"}
    if cost.model_memory:
        memory["  of it the model"] = size(cost.model_memory)
    if cost.whitening_memory:
        memory["  of it whitening"] = size(cost.whitening_memory)
    layers, here = len(config.layers), {}
    if expected is not None:
        about = "at least" if expected.at_least else "about"
        here["time here"] = f"{about} {duration(expected.seconds)}, {expected.why}"
    return {
        "steps": read,
        "latents": ", ".join(count(one) for one in cost.latents)
        + (f" for each of {layers} layers" if layers > 1 and config.family != CROSSCODER else ""),
        **memory,
        "SAE on disk": size(cost.disk),
        "checkpoints meanwhile": f"{size(cost.checkpoints)} at most",
        **here,
        f"time at {tflops:g} TFLOPS, at least": duration(sum(times.values())),
        **{f"  {part}": duration(seconds) for part, seconds in times.items() if len(times) > 1},
    }
