"""The entry point: parses a command line, runs one command, reports any error in one line."""

import os
import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from importlib import import_module
from pathlib import Path
from shlex import join, quote
from types import ModuleType
from typing import Any

from mi_crow.clean_text import check_name, clean_text
from mi_crow.cli import streams
from mi_crow.cli.arguments import (
    Parser,
    ShowVersion,
    add_common,
    add_switch,
    as_sentence,
    fill_in_common,
)
from mi_crow.cli.error_line import report_error
from mi_crow.errors import UserError, exit_code_of, nearest
from mi_crow.ranks import launched_rank


@dataclass(frozen=True)
class Command:
    """One command: where it lives and its line in the help."""

    module: str  # has add_arguments(parser, command) and run(options)
    help: str


COMMANDS = {
    "demo": Command("demo", "run the whole workflow on the sample data"),
    "capture": Command("capture", "capture a model's activations on texts into a run"),
    "train": Command("train", "train SAEs on a run or on a running model"),
    "layers": Command("layers", "list a model's hook points"),
    "index": Command("index", "build the feature index of an SAE"),
    "explain": Command("meaning.explain", "propose a name for every feature, with its score"),
    "contrast": Command("meaning.contrast", "find the features that tell two sets of texts apart"),
    "runs": Command("workspace", "list, show, rename, annotate or delete runs"),
    "saes": Command("workspace", "list, show, compare, rename, annotate or delete SAEs"),
    "evaluate": Command("evaluate", "evaluate an SAE: reconstruction, sparsity, loss, probes"),
    "compare": Command("compare", "measure how many features two SAEs share"),
    "features": Command("features", "list an SAE's features from its index"),
    "feature": Command("features", "show a feature with its top examples, or compare two to four"),
    "inspect": Command("causes.inspect", "show which features fire on a text, or tell two apart"),
    "lens": Command("causes.lens", "show what the model would say after each block"),
    "patch": Command("causes.patch", "show where the difference of two prompts is decided"),
    "attribute": Command("causes.attribute", "find the features that made the model say a token"),
    "steer": Command("steering", "continue a prompt with and without interventions"),
    "steer evaluate": Command("steer.measuring", "measure a stack, or sweep over its strengths"),
    "steer auto": Command("steer.measuring", "find the stack that makes a feature happen"),
    "steer scores": Command("steer.scoring", "score how strongly each feature steers"),
    "steer results": Command("steer.measuring", "list or show what was measured"),
    "vector": Command("vectors.vector", "make, show, refine, import or export named directions"),
    "concepts": Command("concepts", "list, set, remove, import, export or undo concepts"),
    "neuronpedia": Command("meaning.neuronpedia", "exchange names and dashboards with Neuronpedia"),
    "report": Command("meaning.report", "write features to one HTML page or JSON file"),
    "publish": Command("meaning.publish", "push an SAE with its card to a hub repository"),
    "presets": Command("saved", "list, show or delete saved sets of interventions"),
    "generations": Command("saved", "list, show or delete saved generations"),
    "inspections": Command("causes.inspections", "list, show, export or delete saved inspections"),
    "library": Command("hub.library", "find published SAEs that can be imported"),
    "import": Command("exchange", "import a pretrained SAE into the workspace"),
    "export": Command("exchange", "export an SAE for other tools"),
    "app": Command("remote", "drive the open app: state, open-feature, filter, do, quit"),
    "jobs": Command("jobs", "list, watch, cancel, resume or delete jobs; what devices do"),
    "doctor": Command("doctor", "check this machine and the workspace"),
    "config": Command("config", "read or change the config file"),
}

# What may stand before a command. The app takes the last one.
BEFORE_COMMANDS = ("--workspace", "--json", "--debug", "--help", "--version", "--fresh")


def run_command_line(argv: Sequence[str] | None) -> int:
    """Runs the command line and gives the exit code: 0, 2 for user errors, 1 or 130 otherwise."""
    arguments = as_commands(sys.argv[1:] if argv is None else argv)
    streams.prepare()
    try:
        code = _run(parse(arguments))
        streams.finish()
        return code
    except BrokenPipeError:  # the reader of our output (head, less) is gone
        streams.abandon()
        return 1
    except (Exception, KeyboardInterrupt) as error:
        return _report(arguments, error)


def as_commands(arguments: Sequence[str]) -> list[str]:
    """The arguments with commands of two words as one: `steer evaluate`, `steer --auto`."""
    found = list(arguments)
    place = command_place(found)
    if place is None or found[place] != "steer":
        return found
    two = " ".join(found[place : place + 2])
    if two in COMMANDS:
        found[place : place + 2] = [two]
    elif "--auto" in found:
        found[place] = "steer auto"
    elif "--sweep" in found:
        found[place] = "steer evaluate"
    return found


def command_place(arguments: Sequence[str]) -> int | None:
    """Where the command's name stands; a workspace may be called like a command."""
    for place, word in enumerate(arguments):
        if word in COMMANDS and (place == 0 or not _takes_folder(arguments[place - 1])):
            return place
    return None


def _takes_folder(word: str) -> bool:
    """Whether the next word is the value of --workspace, which may be cut short as far as --w."""
    return len(word) > len("--") and "--workspace".startswith(word)


def _run(options: Namespace) -> int:
    if options.command is None:  # the app, which has the terminal to itself
        from mi_crow.cli.commands.app import run as run_app

        return run_app(options)
    with streams.silence_libraries(options.debug):
        return _module(options.command).run(options) or 0


def parse(arguments: Sequence[str]) -> Namespace:
    """The options of a command line; `command` is None for the app.

    Only the modules of commands named in it are imported. Raises UserError.
    """
    parser = Parser(
        prog="mi-crow",
        description="The terminal workbench for sparse autoencoders. Without a command, it opens "
        "the app.",
    )
    parser.add_argument("--version", action=ShowVersion, help="show the version and exit")
    add_common(parser)
    add_switch(parser, "--fresh", "open the app without what was open when it last ended")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND")
    children: dict[str, ArgumentParser] = {}
    asks_help = any(word == "-h" or word.startswith("--h") for word in arguments)
    for name, command in COMMANDS.items():
        if name not in arguments:
            if asks_help:  # only a line of it; each parser takes a part of a millisecond
                commands.add_parser(name, help=command.help, add_help=False)
            continue
        child = commands.add_parser(name, help=command.help, description=as_sentence(command.help))
        children[name] = child
        add_common(child)
        _module(name).add_arguments(child, name)
    _refuse_misplaced(arguments)
    for word in arguments:
        if not word.startswith("-") and word not in COMMANDS:
            _refuse_unknown(arguments, word)
            break
        if word in COMMANDS:
            break
    options, unknown = parser.parse_known_args(arguments)
    if unknown:  # the hint names the help of this command
        children.get(options.command, parser).error(f"unrecognized arguments: {' '.join(unknown)}")
    return _cleaned(fill_in_common(options))


def _cleaned(options: Namespace) -> Namespace:
    """The options with clean texts. Raises UserError for a path that is not clean."""
    for key, value in vars(options).items():
        if isinstance(value, list):
            setattr(options, key, [_clean(item) for item in value])
        elif key != "workspace":  # a folder that may not exist yet: Workspace looks at its name
            setattr(options, key, _clean(value))
    return options


def _clean(value: Any) -> Any:
    if isinstance(value, Path):
        check_name(str(value), "path")
    if not isinstance(value, str) or (cleaned := clean_text(value)) == value:
        return value
    if os.path.lexists(value):
        check_name(value, "path")
    return cleaned


def _refuse_misplaced(arguments: Sequence[str]) -> None:
    """Options of commands stand after the command's name. What no command takes is left alone."""
    place = command_place(arguments)
    before = arguments[:place]
    misplaced = [one for word in before if (one := _option(word)) and not _is_of_all(one)]
    if not misplaced:
        return
    if place is None:
        _refuse_misspelt(before)
    named = COMMANDS if place is None else [arguments[place]]
    takers = [name for name in named if {*misplaced} <= _options_of(name)]
    if not takers:
        return
    takers.sort(key=lambda name: name not in ("features", "steer"))  # which make nothing
    rest = [word for at, word in enumerate(arguments) if at != place and word != "--fresh"]
    hint = f"mi-crow {takers[0]} {join(rest)}"
    if len(takers) > 1:
        hint += f", or another command that takes it: {nearest('', takers[1:], 6)}"
    raise UserError(f"{misplaced[0]} goes after a command", hint=hint)


def _option(word: str) -> str:
    return word.partition("=")[0] if word.startswith("--") else ""


def _is_of_all(option: str) -> bool:
    """Whether it may stand before the command; it may be cut short."""
    return any(one.startswith(option) for one in BEFORE_COMMANDS)


def _refuse_misspelt(words: Sequence[str]) -> None:
    """Refuses a word that is nearly the name of a command, unless an option before it takes it."""
    for before, word in zip(("", *words), words, strict=False):
        if not (_option(before) or _option(word)) and get_close_matches(word, COMMANDS, n=1):
            _refuse_unknown(words, word)


def _options_of(command: str) -> set[str]:
    parser = Parser()
    _module(command).add_arguments(parser, command)
    return parser.options


def _refuse_unknown(arguments: Sequence[str], word: str) -> None:
    """The first bare word must be a command, unless it is the value of --workspace."""
    position = arguments.index(word)
    if position > 0 and arguments[position - 1] == "--workspace":
        rest = [w for w in arguments[position + 1 :] if not w.startswith("-")]
        if not rest or rest[0] in COMMANDS:
            return
        word = rest[0]
    close = get_close_matches(word, COMMANDS, n=1)
    if not close and os.path.isdir(word):
        raise UserError(
            f"{word!r} is a folder, not a command",
            hint=f"mi-crow --workspace {quote(word)} opens it as the workspace",
        )
    raise UserError(
        f"command {word!r} is not known",
        hint=f"did you mean {close[0]}?" if close else "mi-crow --help lists the commands",
    )


def _module(command: str) -> ModuleType:
    return import_module(f"mi_crow.cli.commands.{COMMANDS[command].module}")


def _report(arguments: Sequence[str], error: BaseException) -> int:
    if launched_rank():  # what fails on every rank is reported by rank 0
        return exit_code_of(error)
    try:
        return report_error(error, as_json="--json" in arguments, debug="--debug" in arguments)
    except BrokenPipeError:
        streams.abandon()
        return 1
