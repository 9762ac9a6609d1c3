"""`mi-crow index --estimate`: what an index would take, counted, with nothing built."""

from argparse import ArgumentParser, Namespace
from dataclasses import replace

from mi_crow.bounds import COUNT, FACTOR, LATENTS
from mi_crow.cli.arguments import add_setting, add_switch, number_within
from mi_crow.cli.formatting import count, duration, size
from mi_crow.cli.tables import print_facts, print_json
from mi_crow.errors import UserError
from mi_crow.language_model.outline import outline_of
from mi_crow.mechanistic.features.config import IndexConfig
from mi_crow.mechanistic.features.index.estimate import (
    IndexPlan,
    IndexSizes,
    expected_sizes,
    plan_index,
)
from mi_crow.store.runs.manifest import RunManifest
from mi_crow.store.workspace import SaeSummary, Workspace, read_sae_summary


def add_estimate_flags(parser: ArgumentParser) -> None:
    group = parser.add_argument_group("estimate")
    add_switch(group, "--estimate", "print memory, disk and time of this index, build nothing")
    group.add_argument(
        "--for-tokens",
        type=number_within(COUNT),
        help="number of tokens to plan for (default: the run's)",
    )
    group.add_argument(
        "--for-latents",
        type=number_within(LATENTS),
        help="number of latents to plan for (default: the SAE's)",
    )
    speeds = number_within(FACTOR)
    add_setting(group, "--tflops", 50.0, "10^12 operations a second of the device", type=speeds)
    add_setting(group, "--disk-speed", 2.0, "10^9 bytes a second of the disk", type=speeds)


def refuse_without_estimate(options: Namespace) -> None:
    """Raises UserError for sizes that were given and would have no effect."""
    for name in ("for_tokens", "for_latents"):
        if getattr(options, name) is not None:
            raise UserError(f"--{name.replace('_', '-')} is for --estimate", hint="add --estimate")


def print_estimate(workspace: Workspace, config: IndexConfig, options: Namespace) -> None:
    """Raises UserError where it is not known how many tokens there are."""
    sae = read_sae_summary(workspace.sae_dir(config.sae_id))
    sizes = _sizes(workspace, config, sae)
    sizes = replace(
        sizes,
        tokens=options.for_tokens or sizes.tokens,
        latents=options.for_latents or sizes.latents,
        documents=round(sizes.documents * (options.for_tokens or sizes.tokens) / sizes.tokens)
        if sizes.tokens
        else 0,
    )
    if not sizes.tokens:
        raise UserError("it is not known how many tokens there are", hint="give --for-tokens")
    plan = plan_index(config, sizes, options.tflops, options.disk_speed)
    if options.json:
        print_json(plan.as_json())
    else:
        print_facts(_facts(config.sae_id, plan))


def _sizes(workspace: Workspace, config: IndexConfig, sae: SaeSummary) -> IndexSizes:
    """Those of the SAE, of the run that would be read, and of its model."""
    outline = outline_of(sae.model_id)
    if config.live is not None:
        sizes = expected_sizes(sae, None, outline)
        return replace(sizes, tokens=config.live.dataset.token_limit or 0)
    run_id = config.run_id or sae.run_id
    run = None if run_id is None else RunManifest.load(workspace.run_dir(run_id))
    return expected_sizes(sae, run, outline)


def _facts(sae_id: str, plan: IndexPlan) -> dict[str, str]:
    sizes, times = plan.sizes, plan.seconds
    at_once = {f"  {name}": duration(seconds) for name, seconds in times.items()}
    return {
        "SAE": sae_id,
        "for": f"{count(sizes.tokens)} tokens, {count(sizes.latents)} latents of "
        f"{count(sizes.width)} inputs, {sizes.l0:g} active",
        "memory": size(plan.memory),
        "activations read": size(plan.activations),
        "temporary files": size(plan.temporary),
        "index, without labels": size(plan.index),
        "pairs counted": count(round(plan.pairs)),
        "time, at least": duration(sum(times.values())),
        **at_once,
    }
