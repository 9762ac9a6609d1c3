"""The pieces of command lines that several commands share."""

import re
from argparse import SUPPRESS, Action, ArgumentParser, ArgumentTypeError, Namespace
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, NamedTuple, NoReturn, Protocol

from mi_crow.bounds import COUNT, FEATURE, PROCESSES, SEED, SIZE, Bounds, Limits
from mi_crow.errors import UserError, nearest
from mi_crow.language_model.config import MODEL_DTYPES, QUANTIZED
from mi_crow.paths import check_folder_of
from mi_crow.store.workspace import DEFAULT_NAME, ENVIRONMENT_NAME, Workspace


class Parser(ArgumentParser):
    """An ArgumentParser that reports a mistake in one sentence."""

    def __init__(self, *args: Any, **settings: Any) -> None:
        super().__init__(*args, **settings)
        self.forms: dict[str, Callable[[], str]] = {}  # option -> what may follow it

    @property
    def options(self) -> set[str]:
        """The options that it takes: `--sae`, `-h`."""
        return set(self._option_string_actions)

    def error(self, message: str) -> NoReturn:
        # What begins with a dash is taken for an option, so that nothing seems to follow.
        for option, forms in self.forms.items():
            if option in message and message.endswith("expected one argument"):
                raise UserError(message, hint=forms())
        raise UserError(message, hint=f"see {self.prog} --help")

    def _parse_optional(self, arg_string: str) -> Any:
        """argparse's own; but where a query is taken, `-label:weather` is one."""
        is_option = bool({arg_string, f"-{arg_string}"} & self.options)
        takes_query = any(one.dest == "query" for one in self._get_positional_actions())
        if takes_query and not is_option and re.match(r'-[A-Za-z_"]', arg_string):
            return None
        return super()._parse_optional(arg_string)


def add_interventions(parser: ArgumentParser, help: str) -> None:
    """Declares `--feature`, also called `--steer`: interventions."""
    parser.add_argument(
        "--feature", "--steer", action="append", default=[], metavar="TARGET=CHANGE", help=help
    )
    if isinstance(parser, Parser):
        parser.forms["--steer"] = _interventions


def _interventions() -> str:
    from mi_crow.mechanistic.steering.interventions import EXAMPLES

    return EXAMPLES


def intermix(parser: ArgumentParser) -> None:
    """Lets options stand between the positional arguments of a command, of which the first may be
    left out. As a command's parser `parse_intermixed_args` itself is never called."""
    plain = parser.parse_known_args

    def parse(*given: Any, **settings: Any) -> Any:
        parser.parse_known_args = plain
        try:
            return parser.parse_known_intermixed_args(*given, **settings)
        finally:
            parser.parse_known_args = parse

    parser.parse_known_args = parse


class ShowVersion(Action):
    """--version; argparse's own action wants the version before anybody asked for it."""

    def __init__(self, option_strings: Sequence[str], dest: str, help: str | None = None) -> None:
        super().__init__(option_strings, dest, nargs=0, default=SUPPRESS, help=help)

    def __call__(self, parser: ArgumentParser, *_: object) -> None:
        from mi_crow import __version__

        print(f"mi-crow {__version__}")
        parser.exit()


class TakesArguments(Protocol):
    """A parser, or a group of one."""

    def add_argument(self, *names: str, **settings: Any) -> Action: ...


def add_setting(
    parser: TakesArguments, name: str, default: Any, help: str, **settings: Any
) -> None:
    """An option with a default, which its help ends with."""
    shown = f"{default:g}" if isinstance(default, float) else str(default)
    parser.add_argument(name, default=default, help=f"{help} (default: {shown})", **settings)


def add_switch(parser: TakesArguments, name: str, help: str) -> None:
    """An option without a value: off where it is not given."""
    parser.add_argument(name, action="store_true", help=help)


def add_fields(parser: TakesArguments, kind: type, helps: Mapping[str, str]) -> None:
    """Options for fields of a config, each with its help: what they are without the option, and
    what they may be, are those of the config. A help that does not say the default ends with it."""
    defaults = {one.name: one.default for one in fields(kind)}
    limits: Limits = getattr(kind, "LIMITS", {})
    for name, help in helps.items():
        option, default = f"--{name.replace('_', '-')}", defaults[name]
        _, limit = limits.get(name, ("", None))
        settings: dict[str, Any] = {}
        if isinstance(limit, Bounds):
            settings["type"] = number_within(limit)
        elif limit is not None:
            settings["choices"] = limit.known
        if default is False:
            add_switch(parser, option, help)
        elif default is None or "(default" in help or "default)" in help:
            parser.add_argument(option, default=default, help=help, **settings)
        else:
            add_setting(parser, option, default, help, **settings)


def add_common(parser: ArgumentParser) -> None:
    """--workspace, --json and --debug, accepted before and after the command's name."""
    group = parser.add_argument_group("common options")
    group.add_argument(
        "--workspace",
        metavar="DIR",
        default=SUPPRESS,
        help=f"workspace folder (default: {ENVIRONMENT_NAME}, the config file or ./{DEFAULT_NAME})",
    )
    group.add_argument("--json", action="store_true", default=SUPPRESS, help="print JSON")
    group.add_argument(
        "--debug",
        action="store_true",
        default=SUPPRESS,
        help="print the traceback when an error occurs",
    )


def fill_in_common(options: Namespace) -> Namespace:
    """Fills in the common options that were left out."""
    defaults = {"workspace": None, "json": False, "debug": False, "command": None}
    for key, value in defaults.items():
        if not hasattr(options, key):
            setattr(options, key, value)
    return options


def add_model_flags(parser: ArgumentParser, default: str | None = "sample") -> None:
    """Which model and how it is loaded."""
    group = parser.add_argument_group("model")
    group.add_argument(
        "--model",
        default=default,
        help="Hugging Face id, folder, .gguf file, or `sample` "
        f"({'the default' if default else 'default: that of the SAE, or of the run'}); prefix it "
        "with `random:` for random weights, as a control",
    )
    group.add_argument("--revision", help="branch, tag or commit of a Hub model")
    group.add_argument("--gguf-file", metavar="FILE", help=".gguf file in the model's folder")
    kinds = [name for name in MODEL_DTYPES if name not in QUANTIZED]
    add_setting(group, "--model-dtype", "auto", "dtype the model runs in", choices=kinds)
    group.add_argument(
        "--quantize", choices=QUANTIZED, help="quantize the model's weights (extra `big`)"
    )
    add_switch(group, "--offline", "never use the network")
    trusts = "run code shipped with a Hub model; only for models you trust"
    add_switch(group, "--trust-remote-code", trusts)


class CommandAction(NamedTuple):
    """One action of a command: its help, the function that does it, and its flags where they are
    not added with those of others."""

    help: str
    run: Callable[..., int | None]
    flags: Callable[[ArgumentParser], None] | None = None


def add_actions(
    parser: ArgumentParser, actions: Mapping[str, str | CommandAction]
) -> Iterator[tuple[str, ArgumentParser]]:
    """Adds the actions of a command and yields each with its parser; a text is the help of one."""
    parsers = parser.add_subparsers(dest="action", metavar="ACTION")
    for name, one in actions.items():
        text = one if isinstance(one, str) else one.help
        action = parsers.add_parser(name, help=text, description=as_sentence(text))
        add_common(action)
        yield name, action


def as_sentence(help_text: str) -> str:
    """A line of help as a sentence of its own."""
    return f"{help_text[0].upper()}{help_text[1:]}."


def add_sae(parser: ArgumentParser) -> None:
    parser.add_argument("--sae", help="SAE id; optional when there is only one")


def add_device(parser: ArgumentParser) -> None:
    parser.add_argument(
        "--device",
        default=None,
        help="auto, cpu, cuda, cuda:N, mps or spread (default: the config file, or auto)",
    )
    parser.add_argument(
        "--device-map",
        choices=("auto",),
        help="spread the model over all GPUs, then host memory, then its files (extra `big`)",
    )


def add_seed(parser: ArgumentParser) -> None:
    parser.add_argument("--seed", type=seed_number, default=0, help="random seed (default: 0)")


def add_job_flags(parser: ArgumentParser, *, after: bool = True, ranked: bool = False) -> None:
    """How the command's job starts: `after` where it can wait for an earlier one, `ranked` where
    several processes can share the work."""
    from mi_crow.jobs.spec import LAUNCHERS

    group = parser.add_argument_group("job")
    group.add_argument("--detach", action="store_true", help="start the job without following it")
    parser.set_defaults(after=None, nproc=None)
    launchers = LAUNCHERS if ranked else [name for name in LAUNCHERS if name != "torchrun"]
    group.add_argument(
        "--launcher",
        choices=launchers,
        default="local",
        help="how the job's processes are started (default: local)",
    )
    if ranked:
        group.add_argument(
            "--nproc",
            type=number_within(PROCESSES),
            help="number of processes on one machine, one GPU each (default: 1)",
        )
    group.add_argument("--partition", help="Slurm partition")
    group.add_argument(
        "--time",
        metavar="LIMIT",
        help="Slurm time limit, in minutes or as H:MM:SS (default: 24 hours)",
    )
    group.add_argument(
        "--slurm-arg",
        metavar="KEY=VALUE",
        action="append",
        help="further sbatch option, e.g. account=lab; repeatable",
    )
    if after:
        group.add_argument("--after", metavar="JOB", help="start once this job has finished")


def add_job(parser: ArgumentParser, *, after: bool = True, ranked: bool = False) -> None:
    """What every job takes: its device, its seed, and how it starts (see `add_job_flags`)."""
    add_device(parser)
    add_seed(parser)
    add_job_flags(parser, after=after, ranked=ranked)


def slurm_of(options: Namespace) -> dict[str, Any]:
    """The resources requested from Slurm. Raises UserError."""
    from mi_crow.jobs.distributed.slurm import minutes

    asked: dict[str, Any] = {}
    if options.partition:
        asked["partition"] = options.partition
    if options.time:
        asked["time"] = minutes(options.time)
    for argument in options.slurm_arg or ():
        key, equals, value = argument.partition("=")
        if not equals or not key.strip("-") or not value:
            raise UserError(f"--slurm-arg {argument!r} is not KEY=VALUE", hint="e.g. account=lab")
        asked.setdefault("args", {})[key.strip("-")] = value
    return asked


def number_within(bounds: Bounds, what: str = "") -> Callable[[str], Any]:
    """An argument type: a number within these bounds."""

    def read(text: str) -> Any:
        try:
            return bounds.read(text, what)
        except UserError as error:
            raise ArgumentTypeError(str(error)) from error

    return read


positive: Callable[[str], Any] = number_within(COUNT)
bounded_size: Callable[[str], Any] = number_within(SIZE)
feature_number: Callable[[str], Any] = number_within(FEATURE)
seed_number: Callable[[str], Any] = number_within(SEED)


def tag_name(text: str) -> str:
    """A tag as it is kept: without the sign before it."""
    bare = text.strip().lstrip("#").strip()
    if not bare:
        raise ArgumentTypeError(f"{text!r} is not a tag")
    return bare


def size_or_auto(text: str) -> int | None:
    """A batch size; None for `auto`: what suits the device."""
    return None if text == "auto" else bounded_size(text)


def add_batch_size(parser: TakesArguments, help: str) -> None:
    """--batch-size, which is `auto` unless it is given."""
    parser.add_argument("--batch-size", type=size_or_auto, metavar="N", help=help)


def check_new_file(path: Path, *, force: bool) -> None:
    """Raises UserError when `path` exists (unless `force`) or is a folder, NotFoundError when its
    folder does not: most often its name was mistyped."""
    check_folder_of(path)
    if path.is_dir():
        raise UserError(f"{str(path)!r} is a folder", hint="give a file name")
    if not force and (path.exists() or path.is_symlink()):
        raise UserError(f"{str(path)!r} exists already", hint="--force replaces it")


def workspace_path(options: Namespace) -> str | None:
    """The folder named by the flag, the environment or the config file, in this order."""
    from mi_crow.store.settings import UserSettings

    return workspace_named(options) or UserSettings.load().text("workspace")


def workspace_named(options: Namespace) -> str | None:
    """The folder named by the flag or the environment, in this order."""
    import os

    return options.workspace or os.environ.get(ENVIRONMENT_NAME)


def open_workspace(options: Namespace) -> Workspace:
    """The existing workspace, for commands that read. Raises UserError."""
    return Workspace.open(workspace_path(options), create=False)


def plan_workspace(options: Namespace) -> Workspace:
    """The workspace, which may not exist yet, for commands that write. Raises UserError."""
    return Workspace.plan(workspace_path(options))


def device_of(options: Namespace) -> str:
    """The device named by the flag or the config file. Raises UserError for an unknown one."""
    from mi_crow.store.settings import SPREAD, UserSettings, validate_device

    if options.device_map is not None:
        if options.device not in (None, "auto", SPREAD):
            raise UserError(
                f"--device {options.device} and --device-map were both given",
                hint="give one of them",
            )
        return SPREAD
    return validate_device(options.device or UserSettings.load().text("device") or "auto")


def llm_of(url: str, model: str | None) -> tuple[str, str]:
    """The address and model of an LLM endpoint: those of the flags, else those of the config file.
    Raises UserError without an address."""
    from mi_crow.store.settings import UserSettings

    settings = UserSettings.load()
    found = url or settings.text("llm.url")
    if not found:
        raise UserError(
            "no LLM endpoint is known", hint="name one, or mi-crow config set llm.url URL"
        )
    return found, model or settings.text("llm.model") or ""


def sae_to_read(workspace: Workspace, options: Namespace) -> str:
    """As `pick_sae`; with --after, the named SAE may not exist yet. Raises UserError."""
    return options.sae if options.after and options.sae else pick_sae(workspace, options.sae)


def pick_sae(workspace: Workspace, sae_id: str | None) -> str:
    """The named SAE, or the only one in the workspace. Raises UserError."""
    if sae_id is not None:
        workspace.sae_dir(sae_id)
        return sae_id
    known = [sae.sae_id for sae in workspace.list_saes()]
    if len(known) == 1:
        return known[0]
    if not known:
        raise UserError("this workspace has no SAEs", hint="train one: mi-crow train --help")
    names = nearest("", known, 8)
    raise UserError(f"there are {len(known)} SAEs", hint=f"choose one with --sae: {names}")
