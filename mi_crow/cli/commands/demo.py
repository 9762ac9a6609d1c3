"""`mi-crow demo`: the whole workflow on the sample data, in a new workspace."""

import sys
from argparse import ArgumentParser, Namespace
from pathlib import Path
from shlex import quote
from typing import Any

from mi_crow.cli.arguments import add_job, device_of
from mi_crow.cli.commands.app import open_app
from mi_crow.cli.formatting import count, duration, number, share
from mi_crow.cli.running import run_job
from mi_crow.cli.tables import print_facts, print_line, print_table
from mi_crow.errors import UserError
from mi_crow.jobs.kinds import DemoConfig
from mi_crow.same_fields import same_fields
from mi_crow.store.workspace import DEFAULT_NAME, Workspace


def add_arguments(parser: ArgumentParser, command: str) -> None:
    parser.add_argument("--no-tui", action="store_true", help="do not open the app afterwards")
    add_job(parser, after=False)


def run(options: Namespace) -> int:
    workspace = fresh_workspace(options.workspace)
    if not options.json:
        print_line(f"workspace {workspace.root}")
    config = same_fields(DemoConfig, options, device=device_of(options))
    results: list[dict[str, Any]] = []

    def show(result: dict[str, Any]) -> None:
        results.append(result)
        show_result(result)

    code = run_job(workspace, "demo", config, options, show)
    if results and not options.no_tui and sys.stdin.isatty() and sys.stdout.isatty():
        return open_app(workspace, results[0]["sae_id"])
    return code


def fresh_workspace(path: str | None) -> Workspace:
    """The named workspace, which must have no runs or SAEs; else
    `mi-crow-workspace`, or the first of `mi-crow-workspace-2`, ... that does not exist.

    Raises UserError.
    """
    if path is not None:
        workspace = Workspace.plan(path)
        # Unfinished output of a failed job does not matter.
        if any([*workspace.scan_runs(), *workspace.scan_saes()]):
            raise UserError(
                f"workspace {str(workspace.root)!r} already has runs or SAEs",
                hint="give the demo a new one",
            )
        return workspace
    number_ = 1
    while (folder := Path(DEFAULT_NAME + (f"-{number_}" if number_ > 1 else ""))).exists():
        number_ += 1
    return Workspace.plan(folder)


def show_result(result: dict[str, Any]) -> None:
    """Prints what the demo found, for people."""
    from mi_crow.mechanistic.features.records import auroc_text, is_telling

    controls, steering = result["controls"], result["steering"]
    aurocs = [topic["auroc"] for topic in result["topics"]]
    mean = sum(aurocs) / len(aurocs) if aurocs else None
    print_facts(
        {
            "SAE": f"{result['sae_id']} on run {result['run_id']}",
            "tokens": count(result["tokens"]),
            "FVU": f"{number(result['fvu'])} (all tokens: {number(result['fvu_all'])})",
            "L0": number(result["l0"]),
            "dead": share(result["dead_share"]),
            "CE added": f"{number(result['ce_added'])} nats by the SAE",
            "loss recovered": share(result["loss_recovered"]),
        }
    )
    print_line()
    print_table(
        ["topic", ">feature", ">AUROC"],
        [
            [
                t["label"],
                str(t["feature"]) if is_telling(t["auroc"]) else "-",
                auroc_text(t["auroc"], 3),
            ]
            for t in result["topics"]
        ],
    )
    print_line()
    print_facts(
        {
            "mean AUROC": f"{number(mean, 3)} (random SAE "
            f"{number(controls['random_sae_auroc'], 3)}, best residual dimension "
            f"{number(controls['residual_auroc'], 3)})",
            "steering": f"feature {steering['feature']} ({steering['label']}) {_moved(steering)}: "
            f"on topic in {share(steering['share_steered'])} of continuations (baseline "
            f"{share(steering['share_baseline'])}, random feature "
            f"{share(steering['share_random'])}); perplexity × "
            f"{number(steering['perplexity_ratio'], 3)}",
            "found by": f"mi-crow steer --auto --label {quote(steering['label'])}",
            "prompt": steering["prompt"],
            "baseline": steering["baseline"].strip(),
            "steered": steering["steered"].strip(),
            "time": duration(result["seconds"]),
        }
    )


def _moved(steering: dict[str, Any]) -> str:
    """How the feature was steered: `raised, within the plausible set, at 1.2 norm`."""
    from mi_crow.mechanistic.steering.measure.recipes import recipes_named

    (recipe,) = recipes_named([steering["recipe"]])
    return f"{recipe.help}, at {number(steering['strength'], 3)} {steering['unit']}"
