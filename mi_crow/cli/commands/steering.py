"""`mi-crow steer`: continuing a prompt with and without interventions."""

from argparse import ArgumentParser, Namespace
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from mi_crow.bounds import FACTOR, TEMPERATURE, TOP_P
from mi_crow.cli.arguments import (
    add_device,
    add_interventions,
    add_sae,
    add_seed,
    add_setting,
    add_switch,
    device_of,
    number_within,
    open_workspace,
    plan_workspace,
    positive,
)
from mi_crow.cli.commands.causes.text import text_of
from mi_crow.cli.commands.steer.chatting import add_chat, check_chat, run_chat
from mi_crow.cli.commands.steer.model_alone import add_model_alone, sae_or_model
from mi_crow.cli.formatting import count, duration, number
from mi_crow.cli.tables import print_facts, print_line, print_result
from mi_crow.cli.text_flags import add_bos
from mi_crow.errors import UserError
from mi_crow.progress import counted

if TYPE_CHECKING:
    from mi_crow.mechanistic.steering.interventions import Intervention
    from mi_crow.store.workspace import Workspace


def add_arguments(parser: ArgumentParser, command: str) -> None:
    parser.epilog = (
        "What a stack does is measured by `mi-crow steer evaluate`, `steer auto` and `steer "
        "scores`, and kept for `steer results`; each has a --help of its own."
    )
    add_sae(parser)
    add_model_alone(parser)
    parser.add_argument("text", nargs="?", help="the prompt, or `-` for standard input")
    add_device(parser)
    add_bos(parser)
    add_interventions(
        parser,
        "intervention: 42=+8 adds to feature 42, 42=+0.8max adds in units of its maximum, "
        "42=x0 scales, 42=4 clamps, '42=floor 0.3norm' raises where it is below, '42=cap 1max' "
        "lowers where it is above, '42=project 0' removes the direction, 42=ablate, '42=swap "
        "0.3norm against 7+9' raises it and takes the others away; for 42 also other-sae/42, a "
        "group 3+0.5*7, tag:NAME, vector:NAME, layer:NAME, neuron:LAYER/7; then `on` prompt, "
        "generated, last 3, window 0:8, tokens 12,345 or role user; then @decay 16 or @feedback "
        "for its course over the new tokens, and ?7>2 to act only where feature 7 is above 2; "
        "repeatable",
    )
    parser.add_argument(
        "--preset", metavar="NAME", help="the interventions and constraints of a preset too"
    )
    add_switch(
        parser, "--allow-code", "run the Python functions of layer:NAME=call FILE.py:FUNCTION"
    )
    add_setting(parser, "--max-new-tokens", 64, "tokens to generate", type=positive)
    add_setting(
        parser,
        "--temperature",
        1.0,
        "sampling temperature; 0 is greedy",
        type=number_within(TEMPERATURE),
    )
    add_setting(parser, "--top-p", 1.0, "nucleus sampling", type=number_within(TOP_P))
    parser.add_argument(
        "--plausible",
        type=number_within(TOP_P),
        metavar="SHARE",
        help="only tokens to which the plain model gives at least SHARE of the probability of its "
        "likeliest one, e.g. 0.1",
    )
    parser.add_argument(
        "--kl-budget",
        type=number_within(FACTOR),
        metavar="NATS",
        help="how far each token's distribution may be from the plain model's (KL)",
    )
    add_seed(parser)
    add_chat(parser)


def run(options: Namespace) -> int:
    alone = options.model is not None and not options.preset
    workspace = plan_workspace(options) if alone else open_workspace(options)
    check_chat(options)
    device, stack = device_of(options), _stack(workspace, options)
    own = sae_or_model(workspace, options, stack, device)
    if options.chat:
        return run_chat(workspace, own, stack, device, _sampling(options), options)
    from mi_crow.mechanistic.steering.run import steer_prompt

    prompt, sampling = text_of(options.text), _sampling(options)
    result = steer_prompt(workspace, own, prompt, stack, device=device, **sampling)
    return print_result(options.json, result, _show_pair)


def _stack(workspace: "Workspace", options: Namespace) -> "list[Intervention]":
    """The interventions that were asked for. Raises UserError without any."""
    from mi_crow.mechanistic.steering.interventions import parse_intervention

    stack = [*_preset(workspace, options), *map(parse_intervention, options.feature)]
    if not stack:
        raise UserError("no intervention given", hint="e.g. --steer 42=+0.8max, or --preset NAME")
    return stack


def _sampling(options: Namespace) -> dict[str, Any]:
    """What `steer_loaded` takes by name."""
    names = ("max_new_tokens", "temperature", "top_p", "seed", "bos", "plausible", "kl_budget")
    return {name: getattr(options, name) for name in (*names, "allow_code")}


def _preset(workspace: "Workspace", options: Namespace) -> "list[Intervention]":
    """The interventions of a preset; its constraints become those of `options` where these have
    none. Raises NotFoundError, UserError."""
    if options.preset is None:
        return []
    from mi_crow.mechanistic.concepts.annotations import Annotations
    from mi_crow.mechanistic.steering.interventions import Intervention

    found = Annotations(workspace.annotations_path).preset(options.preset)
    if options.plausible is None and options.kl_budget is None:
        options.plausible, options.kl_budget = found.plausible, found.kl_budget
    return [Intervention.from_json(one) for one in found.interventions]


def _show_pair(result: dict[str, Any]) -> None:
    for side in ("baseline", "steered"):
        print_line(side, "bold")
        for line in str(result[side]).splitlines():
            print_line(line)
        print_line()
    metrics = result.get("metrics") or {}
    bos = ", BOS prepended" if result.get("bos_added") else ""
    print_line(f"prompt: {counted(result['prompt_tokens'], 'token')}{bos}", "dim")
    if (length := result.get("shortened_to")) is not None:
        context = count(result["context_length"])
        print_line(
            f"stopped after {count(length)} new tokens: the model's context of {context} is full",
            "yellow",
        )
    print_facts(_figures(metrics))


def _figures(metrics: Mapping[str, Any]) -> dict[str, str]:
    """What was written and what steering cost, in words."""
    found = {}
    if (tokens := metrics.get("tokens")) is not None:
        rate = f"{number(metrics['tokens_s'], 3)} tokens/s"
        found["new tokens"] = f"{count(tokens)} in {duration(metrics['seconds'])}, {rate}"
    if (kl := metrics.get("kl")) is not None:
        found["KL"] = f"{number(kl, 3)} nats a token from the plain model"
    if (perplexity := metrics.get("perplexity")) is not None:
        ratio = metrics.get("perplexity_ratio")
        beside = f", {number(ratio, 3)} times the baseline's" if ratio is not None else ""
        found["perplexity"] = f"{number(perplexity, 3)}{beside}"
    return found
