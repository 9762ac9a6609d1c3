"""`mi-crow steer evaluate`, `--sweep` and `--auto`: measured steering; `steer results` shows it."""

from argparse import ArgumentParser, ArgumentTypeError, Namespace
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from mi_crow.bounds import AMOUNT, COUNT, FACTOR, FEATURE, SHARE, SIZE, TEMPERATURE, TOP_P, Bounds
from mi_crow.cli.arguments import (
    add_interventions,
    add_job,
    add_sae,
    add_setting,
    add_switch,
    device_of,
    llm_of,
    number_within,
    open_workspace,
    pick_sae,
)
from mi_crow.cli.commands.steer.prompts import prompts_of
from mi_crow.cli.formatting import moment, number, share
from mi_crow.cli.running import run_job
from mi_crow.cli.tables import (
    print_facts,
    print_line,
    print_list,
    print_result,
    print_table,
)
from mi_crow.errors import UserError
from mi_crow.language_model.endpoint import KEYS
from mi_crow.mechanistic.steering.measure.arms import alike, kinds_beside
from mi_crow.mechanistic.steering.measure.config import (
    CONTROL,
    OPERATIONS,
    STRENGTHS,
    AutoConfig,
    Judging,
    Rating,
    SweepConfig,
    Trial,
)
from mi_crow.mechanistic.steering.measure.results import by_pattern
from mi_crow.same_fields import same_fields

if TYPE_CHECKING:
    from mi_crow.mechanistic.steering.measure.stacks import NamedStack


def add_arguments(parser: ArgumentParser, command: str) -> None:
    if command == "steer results":
        parser.add_argument("measurement", nargs="?", help="which one to show (default: list them)")
        return
    add_sae(parser)
    {"steer evaluate": _add_sweep, "steer auto": _add_auto}[command](parser)
    group = parser.add_argument_group("continuations")
    group.add_argument(
        "--prompts",
        metavar="FILE",
        help="prompts, one a line (default: the commonest openings of the indexed texts)",
    )
    group.add_argument("--prompt", action="append", default=[], help="a prompt; repeatable")
    add_setting(group, "--n", 64, "continuations, over all prompts", type=number_within(SIZE))
    add_setting(group, "--max-new-tokens", 48, "tokens", type=number_within(COUNT))
    add_setting(
        group,
        "--temperature",
        0.8,
        "sampling temperature; 0 is greedy",
        type=number_within(TEMPERATURE),
    )
    add_setting(group, "--top-p", 1.0, "nucleus sampling", type=number_within(TOP_P))
    group.add_argument(
        "--documents",
        type=number_within(AMOUNT),
        default=16,
        help="held-out texts for the loss that the stack adds (default: 16; 0: not measured)",
    )
    add_switch(group, "--no-control", f"do not measure the same beside it with random {CONTROL}")
    add_setting(
        parser,
        "--most-ratio",
        1.5,
        "of the perplexity to the baseline's: what the best may cost",
        type=number_within(FACTOR),
    )
    judge = parser.add_argument_group("chat model that rates what is reported (0 to 2, as AxBench)")
    judge.add_argument(
        "--endpoint",
        metavar="URL",
        nargs="?",
        const="",
        help="OpenAI-compatible, e.g. http://localhost:8000/v1; the key is taken from "
        f"{' or '.join(KEYS)} in the environment (without URL: llm.url of the config file)",
    )
    judge.add_argument("--judge-model", metavar="NAME", help="its name there")
    judge.add_argument(
        "--concept", default="", help="what texts should be about, in words (default: the label)"
    )
    parser.add_argument("--name", help="name of the measurement")
    add_job(parser)


def _add_sweep(parser: ArgumentParser) -> None:
    parser.add_argument(
        "preset", nargs="?", help="a saved preset, an earlier measurement or a JSON file"
    )
    add_interventions(parser, "intervention, as for steer: '42=floor 0.3norm'; repeatable")
    judge = parser.add_argument_group(
        "judge", "by default the topic of the steered feature, or what a vector was made for"
    )
    judge.add_argument("--label", help="texts that words tell to have this label of the corpus")
    judge.add_argument(
        "--judge-feature",
        type=number_within(FEATURE),
        metavar="N",
        help="texts with the words of the texts in which feature N is strong",
    )
    judge.add_argument(
        "--about", metavar="WORDS", help="texts like the indexed ones that a description matches"
    )
    judge.add_argument("--regex", help="texts that match this regular expression")
    sweep = parser.add_argument_group("sweep (every combination is measured)")
    add_switch(
        sweep,
        "--sweep",
        f"strengths {', '.join(f'{one:g}' for one in STRENGTHS)}, where none are given",
    )
    sweep.add_argument(
        "--strengths",
        type=_numbers(FACTOR),
        default=(),
        metavar="S,S,..",
        help="multiply the stack's amounts by each",
    )
    sweep.add_argument(
        "--operations", type=_words, default=(), metavar="O,O,..", help=", ".join(OPERATIONS)
    )
    sweep.add_argument(
        "--schedules",
        type=_words,
        default=(),
        metavar="S,S,..",
        help="constant, decay 16, feedback",
    )
    sweep.add_argument(
        "--plausible",
        type=_numbers(SHARE),
        default=(),
        metavar="B,B,..",
        help="plausible shares; 0: without",
    )
    sweep.add_argument(
        "--kl-budget",
        type=_numbers(Bounds(0, 1e9)),
        default=(),
        metavar="N,N,..",
        help="nats a token; 0: without",
    )


def _add_auto(parser: ArgumentParser) -> None:
    add_switch(parser, "--auto", "find how to make a feature happen")
    parser.add_argument(
        "--feature", type=number_within(FEATURE), metavar="N", help="the feature to make happen"
    )
    parser.add_argument("--label", help="the label to make happen, by its best feature")
    parser.add_argument(
        "--label-free", action="store_true", help="judge only by the feature's texts"
    )
    parser.add_argument(
        "--about",
        dest="description",
        metavar="WORDS",
        help="what to make happen, in words: its features are found by their names and texts",
    )
    parser.add_argument("--regex", help="judge by this regular expression")
    parser.add_argument(
        "--recipes", type=_words, default=(), metavar="R,R,..", help="ways to try (default: all)"
    )
    add_setting(parser, "--tries", 5, "strengths of each", type=number_within(COUNT))
    add_setting(
        parser,
        "--development",
        32,
        "continuations of each try, which are not reported",
        type=number_within(SIZE),
    )
    parser.add_argument("--save", metavar="PRESET", help="save the winner as a preset")


def _words(text: str) -> tuple[str, ...]:
    return tuple(word.strip() for word in text.split(",") if word.strip())


def _numbers(bounds: Bounds) -> Callable[[str], tuple[float, ...]]:
    def read(text: str) -> tuple[float, ...]:
        try:
            return tuple(float(bounds.read(word)) for word in _words(text))
        except UserError as error:
            raise ArgumentTypeError(str(error)) from error

    return read


def run(options: Namespace) -> int:
    workspace = open_workspace(options)
    if options.command == "steer results":
        return _results(workspace, options)
    stack = None if options.command == "steer auto" else _stack(workspace, options)
    sae_id = pick_sae(workspace, options.sae or _only_sae(stack))
    trial = same_fields(Trial, options, prompts=prompts_of(options), control=not options.no_control)
    shared: dict[str, Any] = {
        "sae_id": sae_id,
        "trial": trial,
        "most_ratio": options.most_ratio,
        "rating": _rating(options),
        "device": device_of(options),
        "name": options.name,
    }
    if stack is None:
        config: Any = same_fields(
            AutoConfig, options, pattern=options.regex, preset=options.save, **shared
        )
        return run_job(workspace, "steer-auto", config, options, show_auto)
    config = _sweep(stack, options, shared)
    return run_job(workspace, "steer-sweep", config, options, show_sweep)


def _only_sae(stack: "NamedStack | None") -> str | None:
    """The SAE that a stack names, where it is one."""
    interventions = stack.interventions if stack is not None else ()
    saes = {one["sae"] for one in interventions if one.get("sae")}
    return str(*saes) if len(saes) == 1 else None


def _stack(workspace: Any, options: Namespace) -> "NamedStack":
    """What is measured. Raises UserError, and NotFoundError for an unknown preset."""
    from mi_crow.mechanistic.steering.interventions import parse_intervention
    from mi_crow.mechanistic.steering.measure.stacks import NamedStack, stack_named

    if bool(options.feature) == (options.preset is not None):
        raise UserError("give a preset or --feature", hint="e.g. --feature '42=floor 0.3norm'")
    if options.preset is not None:
        return stack_named(workspace, options.preset)
    return NamedStack(tuple(parse_intervention(text).as_json() for text in options.feature))


def _sweep(stack: "NamedStack", options: Namespace, shared: dict[str, Any]) -> SweepConfig:
    plausible = options.plausible or ((stack.plausible,) if stack.plausible else ())
    budgets = options.kl_budget or ((stack.kl_budget,) if stack.kl_budget else ())
    varied = options.strengths or options.operations or options.schedules
    return same_fields(
        SweepConfig,
        options,
        interventions=stack.interventions,
        strengths=STRENGTHS if options.sweep and not varied else options.strengths,
        plausible=plausible,
        kl_budgets=budgets,
        judging=Judging(options.label, options.judge_feature, options.regex, options.about),
        **shared,
    )


def _rating(options: Namespace) -> Rating | None:
    if options.endpoint is None:
        if options.judge_model or options.concept:
            raise UserError("--judge-model and --concept need an --endpoint")
        return None
    return Rating(*llm_of(options.endpoint, options.judge_model), options.concept)


def show_sweep(result: dict[str, Any]) -> None:
    _show_arms(result["arms"], best=result["best"])
    for arm in result.get("refused", ()):
        print_line(f"{arm['name']}: not measured, {arm['refused']}")
    ratio = number(result["most_ratio"])
    if result["best"] is None:
        words = f"none at a ratio of perplexities of at most {ratio}"
    else:
        most = "the best ratings" if _is_rated(result) else "the most hits"
        words = f"{result['best']}: {most} at a ratio of at most {ratio}"
    print_facts({"best": words, **_told(result)})


def show_auto(result: dict[str, Any]) -> None:
    _show_arms(result["arms"], best=result["arms"][0]["name"])
    facts = {
        "feature": f"{result['feature']}" + (f" ({result['label']})" if result["label"] else ""),
        "winner": f"{result['recipe']} at {number(result['strength'], 3)} {result['unit']}, chosen "
        f"on other prompts; all figures are of fresh ones",
        **_told(result),
    }
    if result["preset"]:
        facts["preset"] = result["preset"]
    print_facts(facts)


def _show_arms(arms: list[dict[str, Any]], best: str | None) -> None:
    rated = all("overall" in arm for arm in arms)
    columns = ["", "stack…", *([">overall", ">plain"] if rated else ())]
    columns += [">hits", ">baseline", ">random", ">ppl x", ">KL", ">act", ">rep", ">dist-2"]
    columns += [">CE +"]
    rows = [
        [
            "*" if arm["name"] == best else "·" if arm.get("front") else "",
            f"{arm['recipe']}: {arm['name']}" if arm["recipe"] else arm["name"],
            *((number(arm[key], 3) for key in ("overall", "overall_baseline")) if rated else ()),
            share(arm["share"]),
            share(arm["share_baseline"]),
            share(arm.get("share_random")),
            number(arm["perplexity_ratio"], 3),
            number(arm["kl"], 2),
            number(arm["activation"], 2),
            number(arm["repetition"], 2),
            number(arm["distinct_2"], 2),
            number(arm["ce_added"], 2),
        ]
        for arm in arms
    ]
    print_table(columns, rows)


def _told(result: dict[str, Any]) -> dict[str, str]:
    """How hits were judged, on what, and where it is kept."""
    judge, found, alarms = result["judge"], result["hits_heldout"], result["false_alarms"]
    if by_pattern(result):
        judge += "" if alarms is None else f"; {share(alarms)} of held-out texts match it"
    else:
        judge += ", by words"
        judge += "" if found is None else f"; finds {share(found)} of such held-out texts"
        judge += "" if alarms is None else f", and {share(alarms)} of others"
    rated = (
        f"by {result['rated_by']}, 0 to 2: {result['rated_concept']}" if _is_rated(result) else ""
    )
    kinds = dict.fromkeys(
        kind
        for arm in result["arms"]
        if arm.get("share_random") is not None
        for kind in kinds_beside(arm, result.get("control_targets") or {})
    )
    return {
        "judge": judge,
        **({"random": alike([*kinds])} if kinds else {}),
        **({"ratings": rated} if rated else {}),
        "prompts": f"{len(result['prompts'])}, {result['n']} continuations, seed {result['seed']}",
        "measurement": result["measurement"],
    }


def _is_rated(result: dict[str, Any]) -> bool:
    """Whether a chat model rated the texts."""
    return "rated_by" in result


def _results(workspace: Any, options: Namespace) -> int:
    from mi_crow.mechanistic.steering.measure.results import list_measurements, read_measurement

    if options.measurement is not None:
        result = read_measurement(workspace, options.measurement)
        return print_result(options.json, result, show_auto if "recipe" in result else show_sweep)
    found = list_measurements(workspace)
    columns = ["measurement…", "when", "SAE…", "best…", ">hits", ">ppl x"]
    rows = [
        [
            one["name"],
            moment(one["updated"]),
            one["result"]["sae_id"],
            one["result"].get("recipe") or one["result"].get("best") or "-",
            share(one["result"].get("share")),
            number(one["result"].get("perplexity_ratio"), 3),
        ]
        for one in found
    ]
    print_list(options.json, found, columns, rows, "nothing measured yet; mi-crow steer evaluate")
    return 0
