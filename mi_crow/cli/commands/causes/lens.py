"""`mi-crow lens`: what the model would say after each block."""

from argparse import ArgumentParser, Namespace
from functools import partial
from typing import Any

from mi_crow.bounds import Bounds
from mi_crow.cli.arguments import (
    TakesArguments,
    add_device,
    add_model_flags,
    add_switch,
    device_of,
    number_within,
    open_workspace,
    pick_sae,
    positive,
)
from mi_crow.cli.commands.causes.inspections import add_save, check_save, save
from mi_crow.cli.commands.causes.text import text_of
from mi_crow.cli.formatting import number, share
from mi_crow.cli.tables import print_line, print_result, print_table
from mi_crow.cli.text_flags import (
    OF_A_MODEL,
    add_bos,
    fill_in,
    leave_out,
    model_of,
    refuse_given,
)
from mi_crow.errors import UserError
from mi_crow.jobs.checks import check_model

_POSITION = Bounds(-(10**9), 10**9, whole=True)


def add_arguments(parser: ArgumentParser, command: str) -> None:
    add_model_or_sae(parser)
    parser.add_argument("text", help="the text, or `-` for standard input")
    add_token(
        parser,
        "print the token N of the text, counted from 0 with BOS where it is added, or from the end "
        "with -1 (default: the last; --json has all)",
    )
    parser.add_argument("--top", type=positive, default=3, help="next tokens to list (default: 3)")
    add_windows(parser)
    add_device(parser)
    add_bos(parser)
    add_save(parser)


def add_windows(parser: TakesArguments) -> None:
    """--windows, where a text that is too long is refused without it."""
    add_switch(
        parser,
        "--windows",
        "read a text longer than the model's context in windows, as `inspect` does",
    )


def add_token(parser: TakesArguments, help: str) -> None:
    """--token: a token of the text by its number."""
    within = number_within(_POSITION, "--token")
    parser.add_argument("--token", type=within, metavar="N", help=help)


def add_model_or_sae(parser: ArgumentParser) -> None:
    """Which model: one that is named, or that of an SAE."""
    parser.add_argument("--sae", help="use this SAE's model; optional when there is only one")
    add_model_flags(parser, default=None)
    leave_out(parser, OF_A_MODEL)


def model_and_sae(options: Namespace, *, with_sae: bool = False) -> Any:
    """The model that the flags name, and the SAE whose model it is (None for a named model).
    Raises UserError."""
    from mi_crow.language_model import LanguageModel
    from mi_crow.mechanistic.steering.loading import load_for_work

    if options.model is None:
        refuse_given(options, "is for --model: an SAE names its model", "leave it out")
    if options.model is not None and not with_sae:
        if options.sae is not None:
            raise UserError("--model and --sae were both given", hint="give one of them")
        fill_in(options)
        spec = model_of(options)
        check_model(spec)
        return LanguageModel.from_spec(spec), None
    workspace = open_workspace(options)
    loaded = load_for_work(workspace, pick_sae(workspace, options.sae), device_of(options))
    return loaded.lm, loaded


def run(options: Namespace) -> int:
    text = text_of(options.text)
    check_save(options)
    lm, loaded = model_and_sae(options)
    from mi_crow.mechanistic.attribution.lens import text_lens
    from mi_crow.mechanistic.attribution.passage import passages_of

    bos = loaded.sae.metadata.bos(options.bos) if loaded is not None else options.bos
    passages = passages_of(lm, text, bos, options.windows)
    _, place, start = passages.at(options.token)
    place += start
    result = text_lens(lm, passages, options.top)
    code = print_result(options.json, result, partial(_show, place=place))
    save(options, "lens", text, result, [loaded.sae_id] if loaded is not None else [])
    return code


def _show(result: dict[str, Any], place: int) -> None:
    print_line(f"after token {place} {result['tokens'][place]!r}", "bold")
    rows = [
        [
            one["point"],
            number(one["entropy"][place], 3),
            number(one["kl"][place], 3),
            "  ".join(f"{token!r} {share(p)}" for token, p in one["top"][place]),
        ]
        for one in result["layers"]
    ]
    print_table(["after", ">entropy", ">KL", "next token…"], rows)
    print_line("entropy of the lens and KL(output || lens), in nats", "dim")
