"""`mi-crow explain`: proposed names for the features of an index, or what a chat model says."""

from argparse import ArgumentParser, Namespace
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from mi_crow.cli.arguments import (
    add_job,
    add_sae,
    add_setting,
    add_switch,
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
from mi_crow.mechanistic.explain.config import ExplainConfig
from mi_crow.mechanistic.explain.explanations.config import (
    ANSWER_S,
    EXPLAINER,
    ExplanationsConfig,
    judge_named,
)
from mi_crow.mechanistic.features.records import SCORES
from mi_crow.same_fields import same_fields
from mi_crow.store.settings import UserSettings, read_prices
from mi_crow.store.workspace import Workspace

if TYPE_CHECKING:
    from mi_crow.mechanistic.explain.explanations.job import Estimate

_CHANCE = "by chance .5, intruder .2"


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
    add_setting(group, "--most", 100, "maximum number of features", type=positive)
    add_switch(group, "--no-scores", "do not ask how well an explanation predicts")
    group.add_argument(
        "--judge",
        metavar="WHO",
        default=EXPLAINER,
        help="who scores: explainer (default), or embeddings, which asks nothing: the model2vec "
        "folder of semantic.model, or another as embeddings:FOLDER",
    )
    add_setting(group, "--parallel", 4, "requests at the same time", type=positive)
    group.add_argument("--per-minute", type=positive, help="maximum number of requests a minute")
    group.add_argument(
        "--price",
        metavar="IN,OUT",
        help="what a million tokens in and out cost (default: llm.price of the config file)",
    )
    add_switch(group, "--dry-run", "only say how many requests and tokens it would be, how long")
    add_job(parser, ranked=True)


def run(options: Namespace) -> int:
    workspace = open_workspace(options)
    sae_id = sae_to_read(workspace, options)
    if options.explainer is None:
        judged = options.judge != EXPLAINER
        asked = options.explainer_model or options.where or options.dry_run or options.price
        if asked or judged:
            raise UserError(
                "only a chat model takes a name, a query, a judge, a price or --dry-run",
                hint="give --explainer",
            )
        config = ExplainConfig(sae_id, options.seed)
        return run_job(workspace, "explain", config, options, show_result)
    explainer, model = llm_of(options.explainer, options.explainer_model)
    config = same_fields(
        ExplanationsConfig,
        options,
        sae_id=sae_id,
        explainer=explainer,
        model=model,
        where=options.where or "",
        scores=not options.no_scores,
        judge=judge_named(options.judge),
        device=device_of(options),
    )
    price = options.price or UserSettings.load().text("llm.price")
    prices = read_prices(price) if price else None
    if options.dry_run:
        return _estimate(workspace, config, prices, options)
    if not options.json and not options.after:
        print_facts(_expected(config, _asked(workspace, config, prices)))
    return run_job(workspace, "explanations", config, options, show_explanations)


def _estimate(
    workspace: Workspace,
    config: ExplanationsConfig,
    prices: tuple[float, float] | None,
    options: Namespace,
) -> int:
    found = _asked(workspace, config, prices)
    if options.json:
        print_json(found.as_json())
    else:
        print_facts(_expected(config, found))
    return 0


def _asked(
    workspace: Workspace, config: ExplanationsConfig, prices: tuple[float, float] | None
) -> "Estimate":
    """What the job will ask, after the checks that it begins with."""
    from mi_crow.mechanistic.explain.explanations.job import check_explanations, estimate

    check_explanations(workspace, config)
    return estimate(workspace, config, prices)


def _expected(config: ExplanationsConfig, found: "Estimate") -> dict[str, str]:
    once = "one" if config.is_local else str(config.parallel)
    asked = f"{ANSWER_S:g} s an answer, {once} at once"
    paced = "" if config.per_minute is None else f", {config.per_minute} a minute"
    cost = "unknown; --price IN,OUT" if found.cost is None else f"about {number(found.cost, 2)}"
    return {
        "features": count(found.features),
        "requests": f"about {count(found.requests)}",
        "tokens": f"about {count(found.tokens_in)} in, {count(found.tokens_out)} out",
        "time": f"about {duration(found.seconds)}, at {asked}{paced}",
        **({} if config.is_local else {"cost": cost}),
    }


def show_explanations(result: dict[str, Any]) -> None:
    scores, beside = _listed(result), _listed(result["untrained"])
    few = f"; {count(result['in_few_texts'])} fire in too few texts"
    few = few if result["in_few_texts"] else ""
    print_facts(
        {
            "SAE": result["sae_id"],
            "explained": f"{count(result['explained'])} of {count(result['features'])} features, "
            f"by {result['explainer']}{few}",
            **_notes(result),
            "scores": f"median {', '.join(scores)} ({_CHANCE})" if scores else "none",
            **({"an untrained SAE": f"median {', '.join(beside)}"} if beside else {}),
            "time": duration(result["seconds"]),
        }
    )


def _notes(result: Mapping[str, Any]) -> dict[str, str]:
    """What else is to be known of the features that were explained."""
    unread, earlier = result.get("unread"), result.get("of_earlier_index")
    said = {}
    if unread:
        answers = "answer" if unread == 1 else "answers"
        said["missing"] = (
            f"{count(unread)} {answers} could not be read; run it again to ask for "
            f"{'this' if unread == 1 else 'these'}"
        )
    if earlier:
        said["kept"] = f"{count(earlier)} of them were made on an earlier index"
    return said


def _listed(values: Mapping[str, Any]) -> list[str]:
    """The scores that were measured."""
    known = {said: values.get(name) for name, said in SCORES.items()}
    return [f"{said} {number(value, 2)}" for said, value in known.items() if value is not None]


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
