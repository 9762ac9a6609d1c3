"""`mi-crow explain`: proposed names for the features of an index, or what a chat model says."""

from argparse import ArgumentParser, Namespace
from collections.abc import Mapping
from typing import Any

from mi_crow.cli.arguments import (
    add_device,
    add_job_flags,
    add_sae,
    add_seed,
    device_of,
    llm_of,
    open_workspace,
    positive,
    sae_to_read,
)
from mi_crow.cli.formatting import count, duration, number, print_json
from mi_crow.cli.running import run_job
from mi_crow.cli.tables import print_facts
from mi_crow.errors import UserError
from mi_crow.jobs.spec import config_as_json
from mi_crow.mechanistic.explain.config import ExplainConfig
from mi_crow.mechanistic.explain.explanations.config import ExplanationsConfig
from mi_crow.store.workspace import Workspace


def add_arguments(parser: ArgumentParser, command: str) -> None:
    add_sae(parser)
    group = parser.add_argument_group("explanations by a chat model")
    group.add_argument(
        "--explainer",
        metavar="URL",
        nargs="?",
        const="",
        help="address of an OpenAI-compatible endpoint (key: MI_CROW_LLM_KEY or OPENAI_API_KEY), "
        "or local:MODEL (without URL: llm.url of the config file)",
    )
    group.add_argument("--explainer-model", metavar="NAME", help="the model's name at the endpoint")
    group.add_argument(
        "--where", metavar="QUERY", help="which features, as for `features` (default: the densest)"
    )
    group.add_argument(
        "--most", type=positive, default=100, help="at most so many features (default: 100)"
    )
    group.add_argument(
        "--no-scores", action="store_true", help="do not ask how well an explanation predicts"
    )
    group.add_argument(
        "--parallel", type=positive, default=4, help="requests at the same time (default: 4)"
    )
    group.add_argument("--per-minute", type=positive, help="at most so many requests a minute")
    group.add_argument(
        "--dry-run", action="store_true", help="only say how many requests and tokens it would be"
    )
    add_device(parser)
    add_seed(parser)
    add_job_flags(parser)


def run(options: Namespace) -> int:
    workspace = open_workspace(options)
    sae_id = sae_to_read(workspace, options)
    if options.explainer is None:
        if options.explainer_model or options.where or options.dry_run:
            raise UserError(
                "only a chat model takes a name, a query or --dry-run", hint="give --explainer"
            )
        config = ExplainConfig(sae_id, options.seed)
        return run_job(workspace, "explain", config_as_json(config), options, show_result)
    explainer, model = llm_of(options.explainer, options.explainer_model)
    config = ExplanationsConfig(
        sae_id,
        explainer,
        model,
        options.where or "",
        options.most,
        not options.no_scores,
        options.parallel,
        options.per_minute,
        options.seed,
        device_of(options),
    )
    if options.dry_run:
        return _estimate(workspace, config, options)
    return run_job(workspace, "explanations", config_as_json(config), options, _show_explanations)


def _estimate(workspace: Workspace, config: ExplanationsConfig, options: Namespace) -> int:
    from mi_crow.mechanistic.explain.explanations.job import check_explanations, estimate

    check_explanations(workspace, config)
    found = estimate(workspace, config)
    if options.json:
        print_json(found.as_json())
    else:
        print_facts(
            {
                "features": count(found.features),
                "requests": f"about {count(found.requests)}",
                "tokens": f"about {count(found.tokens_in)} in, {count(found.tokens_out)} out",
            }
        )
    return 0


def _show_explanations(result: dict[str, Any]) -> None:
    scores = [
        f"{name} {number(result[name], 2)}"
        for name in ("detection", "fuzzing", "shuffled")
        if result[name] is not None
    ]
    print_facts(
        {
            "SAE": result["sae_id"],
            "explained": f"{count(result['explained'])} of {count(result['features'])} features, "
            f"by {result['explainer']}",
            "scores": f"median {', '.join(scores)} (.5: chance)" if scores else "none",
            "time": duration(result["seconds"]),
        }
    )


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
