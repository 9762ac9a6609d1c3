"""`mi-crow explain`: proposed names for the features of an index."""

from argparse import ArgumentParser, Namespace
from collections.abc import Mapping
from typing import Any

from mi_crow.cli.arguments import add_job_flags, add_sae, add_seed, open_workspace, sae_to_read
from mi_crow.cli.formatting import count, duration, number
from mi_crow.cli.running import run_job
from mi_crow.cli.tables import print_facts
from mi_crow.jobs.spec import config_as_json
from mi_crow.mechanistic.explain.config import ExplainConfig


def add_arguments(parser: ArgumentParser, command: str) -> None:
    add_sae(parser)
    add_seed(parser)
    add_job_flags(parser)


def run(options: Namespace) -> int:
    workspace = open_workspace(options)
    config = ExplainConfig(sae_to_read(workspace, options), options.seed)
    return run_job(workspace, "explain", config_as_json(config), options, show_result)


def show_result(result: dict[str, Any]) -> None:
    kinds = sorted(result["kinds"].items(), key=lambda pair: -pair[1])
    print_facts(
        {
            "SAE": result["sae_id"],
            "names": f"{count(result['named'])} of {count(result['features'])} features",
            "score": _scores(result),
            "kinds": ", ".join(f"{kind} {count(n)}" for kind, n in kinds),
            "time": duration(result["seconds"]),
            "next": f"mi-crow features --sae {result['sae_id']} sort:score "
            "--columns feature,proposed,kind,score",
        }
    )


def names_fact(names: Mapping[str, Any] | None) -> dict[str, str]:
    """One line about the names that an index job proposed, if it did."""
    if not names:
        return {}
    proposed = f"{count(names['named'])} proposed"
    return {"names": proposed if names["score"] is None else f"{proposed}, {_scores(names)}"}


def _scores(result: Mapping[str, Any]) -> str:
    if result["score"] is None:
        return "no feature fires often enough to score its name"
    return (
        f"median AUROC {number(result['score'], 2)} on unseen texts, "
        f"{number(result['chance'], 2)} with another feature's name"
    )
