"""The pieces of command lines that several commands share."""

from argparse import SUPPRESS, ArgumentParser, ArgumentTypeError, Namespace
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

from mi_crow.bounds import COUNT, FEATURE, PROCESSES, SEED, SIZE, Bounds
from mi_crow.errors import UserError
from mi_crow.jobs.spec import LAUNCHERS
from mi_crow.store.workspace import DEFAULT_NAME, ENVIRONMENT_NAME, Workspace


class Parser(ArgumentParser):
    """An ArgumentParser whose complaint is one clear sentence."""

    def error(self, message: str) -> NoReturn:
        raise UserError(message, hint=f"see {self.prog} --help")


def add_common(parser: ArgumentParser) -> None:
    """--workspace, --json and --debug, which stand before or after the command's name."""
    group = parser.add_argument_group("everywhere")
    group.add_argument(
        "--workspace",
        metavar="DIR",
        default=SUPPRESS,
        help=f"the workspace's folder (else {ENVIRONMENT_NAME}, the config file, ./{DEFAULT_NAME})",
    )
    group.add_argument("--json", action="store_true", default=SUPPRESS, help="print one object")
    group.add_argument(
        "--debug", action="store_true", default=SUPPRESS, help="print the traceback of an error"
    )


def fill_in_common(options: Namespace) -> Namespace:
    """Fills in the common options that were not given."""
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
        help="Hugging Face id, folder, .gguf file, or `sample` (the default); `random:` before it "
        "takes random weights instead, a control",
    )
    group.add_argument("--revision", help="branch, tag or commit of a hub model")
    group.add_argument("--gguf-file", metavar="FILE", help="the .gguf file in the model's folder")
    group.add_argument(
        "--model-dtype",
        default="auto",
        choices=("auto", "fp32", "bf16", "fp16"),
        help="what the model computes in (auto)",
    )
    group.add_argument("--offline", action="store_true", help="never ask the network")
    group.add_argument(
        "--trust-remote-code",
        action="store_true",
        help="run the code that a hub model brings; only for models you trust",
    )


def add_device(parser: ArgumentParser) -> None:
    parser.add_argument(
        "--device", default=None, help="auto (the default), cpu, cuda, cuda:N or mps"
    )


def add_seed(parser: ArgumentParser) -> None:
    parser.add_argument(
        "--seed", type=seed_number, default=0, help="of everything drawn at random (0)"
    )


def add_job_flags(parser: ArgumentParser, *, after: bool = True, ranked: bool = False) -> None:
    """How the command stands to the job it starts; `after` where there can be an earlier one,
    `ranked` where several processes can share the work."""
    group = parser.add_argument_group("job")
    group.add_argument("--detach", action="store_true", help="start the job and do not follow it")
    parser.set_defaults(after=None, nproc=None)
    launchers = LAUNCHERS if ranked else [name for name in LAUNCHERS if name != "torchrun"]
    group.add_argument(
        "--launcher",
        choices=launchers,
        default="local",
        help="what starts the job's processes (local)",
    )
    if ranked:
        group.add_argument(
            "--nproc",
            type=number_within(PROCESSES),
            help="processes on one machine, one GPU each (1)",
        )
    group.add_argument("--partition", help="where slurm is to start it")
    group.add_argument("--time", metavar="LIMIT", help="minutes, or H:MM:SS, for slurm (24 hours)")
    group.add_argument(
        "--slurm-arg",
        metavar="KEY=VALUE",
        action="append",
        help="more for sbatch, e.g. account=lab; may be repeated",
    )
    if after:
        group.add_argument("--after", metavar="JOB", help="start when this job has finished")


def slurm_of(options: Namespace) -> dict[str, Any]:
    """The resources that a job's flags ask slurm for. Raises UserError."""
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
    """An argument type: a number within these bounds; its complaint is one sentence."""

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


def check_new_file(path: Path, *, force: bool) -> None:
    """Raises UserError when the file to write exists (unless `force`) or is not a file."""
    if path.is_dir():
        raise UserError(f"{str(path)!r} is a folder", hint="give a file's name")
    if not force and (path.exists() or path.is_symlink()):
        raise UserError(f"{str(path)!r} exists already", hint="--force replaces it")


def workspace_path(options: Namespace) -> str | None:
    """The folder that the flag, the environment or the config file names, in this order."""
    import os

    from mi_crow.store.settings import UserSettings

    return options.workspace or os.environ.get(ENVIRONMENT_NAME) or UserSettings.load().workspace


def open_workspace(options: Namespace) -> Workspace:
    """The existing workspace a reading command works on. Raises UserError."""
    return Workspace.open(workspace_path(options), create=False)


def plan_workspace(options: Namespace) -> Workspace:
    """The workspace a writing command works on, which may not exist yet. Raises UserError."""
    return Workspace.plan(workspace_path(options))


def device_of(options: Namespace) -> str:
    """The device that the flag or the config file names. Raises UserError for a misspelt one."""
    from mi_crow.store.settings import UserSettings, validate_device

    return validate_device(options.device or UserSettings.load().device or "auto")


def pick_sae(workspace: Workspace, sae_id: str | None) -> str:
    """The SAE that was named, or the only one there is. Raises UserError."""
    if sae_id is not None:
        workspace.sae_dir(sae_id)
        return sae_id
    known = [sae.sae_id for sae in workspace.list_saes()]
    if len(known) == 1:
        return known[0]
    if not known:
        raise UserError("this workspace has no SAE", hint="train one: mi-crow train --help")
    raise UserError(f"there are {len(known)} SAEs", hint=f"choose with --sae: {', '.join(known)}")
