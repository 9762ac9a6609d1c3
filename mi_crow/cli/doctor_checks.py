"""The checks of `mi-crow doctor`: each looks at one thing and yields what it found."""

import json
import os
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from mi_crow import __version__
from mi_crow.causes import sentence_of
from mi_crow.cli.devices import queue_words
from mi_crow.cli.formatting import size
from mi_crow.cli.streams import out
from mi_crow.errors import CorruptDataError
from mi_crow.hub_parts import abandoned_parts
from mi_crow.jobs.device_lock import look_at_queues
from mi_crow.jobs.status import UNREADABLE, scan_jobs
from mi_crow.progress import counted
from mi_crow.store.free_space import available_memory, nearest_existing
from mi_crow.store.leftovers import leftovers, remove
from mi_crow.store.settings import LLM_KEY_NAME, UserSettings
from mi_crow.store.workspace import Workspace

_LEAST_FREE = 5_000_000_000  # bytes: a small run with its SAE and index
_ESCAPE_MS = 50  # above this the escape key feels slow
_PACKAGES = ("torch", "transformers", "datasets", "textual", "duckdb", "polars", "safetensors")
# Run in a process of its own: importing torch here would cost seconds and memory.
_TORCH_PROBE = """
import json, torch
devices = [{"device": "cpu", "name": f"{torch.get_num_threads()} threads", "memory": None}]
for i in range(torch.cuda.device_count() if torch.cuda.is_available() else 0):
    p = torch.cuda.get_device_properties(i)
    devices.append({"device": f"cuda:{i}", "name": p.name, "memory": p.total_memory})
if torch.backends.mps.is_available():
    devices.append({"device": "mps", "name": "Apple GPU", "memory": None})
print(json.dumps(devices))
"""


@dataclass(frozen=True)
class CheckResult:
    """The result of one check."""

    topic: str
    level: str  # ok | note | warning
    found: str
    advice: str = ""  # what to do about it


def examine(workspace_root: Path) -> list[CheckResult]:
    """Checks this machine and the workspace."""
    checks: list[Callable[[], Iterator[CheckResult]]] = [
        _versions,
        _numba,
        _name_clash,
        _devices,
        _memory,
        _queues,
        lambda: _disk(workspace_root),
        lambda: _unreadable(workspace_root),
        lambda: _leftovers(workspace_root),
        _settings,
        _terminal,
        _tmux,
        _logind,
    ]
    return [result for check in checks for result in check()]


def _versions() -> Iterator[CheckResult]:
    found = [f"mi-crow {__version__}", f"Python {platform.python_version()}"]
    for package in _PACKAGES:
        try:
            found.append(f"{package} {version(package)}")
        except PackageNotFoundError:
            yield CheckResult(
                "versions", "warning", f"{package} is not installed", "pip install mi-crow-tui"
            )
    yield CheckResult("versions", "ok", ", ".join(found))


def _numba() -> Iterator[CheckResult]:
    try:
        yield CheckResult("numba", "ok", f"numba {version('numba')} speeds up indexing on a CPU")
    except PackageNotFoundError:
        found = "numba is not installed: indexing on a CPU takes about a tenth longer"
        yield CheckResult("numba", "note", found, "pip install 'mi-crow-tui[fast]'")


def _name_clash() -> Iterator[CheckResult]:
    """Another published distribution installs a package of the same name."""
    try:
        other = version("mi-crow")
    except PackageNotFoundError:
        return
    yield CheckResult(
        "packages",
        "warning",
        f"the distribution mi-crow {other} is installed as well, and both contain the package "
        "mi_crow: the one installed last has overwritten files of the other",
        "pip uninstall mi-crow mi-crow-tui, then reinstall mi-crow-tui",
    )


def _devices() -> Iterator[CheckResult]:
    found = ask(sys.executable, "-c", _TORCH_PROBE, timeout=60)
    try:
        devices: list[dict[str, Any]] = json.loads((found or "").splitlines()[-1])
    except (ValueError, IndexError):
        yield CheckResult(
            "devices", "warning", "torch cannot be imported", 'python -c "import torch"'
        )
        return
    for device in devices:
        memory = f", {size(device['memory'])}" if device["memory"] else ""
        yield CheckResult("device", "ok", f"{device['device']}: {device['name']}{memory}")
    if len(devices) == 1:
        advice = ""
        if shutil.which("nvidia-smi") and ask("nvidia-smi", "-L"):
            advice = "torch cannot use the NVIDIA GPU: install a CUDA build of torch"
        yield CheckResult("device", "warning" if advice else "note", "no GPU", advice)


def _memory() -> Iterator[CheckResult]:
    try:
        total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (ValueError, OSError):
        return
    available = available_memory()
    rest = "" if available is None else f", {size(available)} available"
    yield CheckResult("memory", "ok", f"{size(total)} in total{rest}")


def _queues() -> Iterator[CheckResult]:
    """Who has a device that a job might want."""
    for queue in look_at_queues():
        yield CheckResult("queue", "ok", queue_words(queue))


def _disk(root: Path) -> Iterator[CheckResult]:
    place = nearest_existing(root)
    free = shutil.disk_usage(place).free
    writable = os.access(place, os.W_OK)
    words = f"{size(free)} available for workspace {root}"
    if not writable:
        yield CheckResult(
            "disk", "warning", f"{place} is not writable", "choose another --workspace"
        )
    elif free < _LEAST_FREE:
        yield CheckResult(
            "disk", "warning", words, "activations are large: choose another --workspace"
        )
    else:
        yield CheckResult("disk", "ok", words)


def _unreadable(root: Path) -> Iterator[CheckResult]:
    """Runs, SAEs and jobs of the workspace that cannot be read."""
    workspace = Workspace(root)
    try:
        found = [*workspace.scan_runs()[1], *workspace.scan_saes()[1]]
        unreadable = [(f"{one.what} {one.name}", one.reason) for one in found]
        unreadable += [
            (f"job {job.job_id}", job.error or "")
            for job in scan_jobs(workspace)
            if job.status == UNREADABLE
        ]
    except OSError as error:
        unreadable = [(str(root), sentence_of(error))]
    for what, reason in unreadable:
        advice = "ask its owner for read permission, or restore a copy"
        yield CheckResult("workspace", "warning", f"{what}: {reason}", advice)


def _leftovers(root: Path) -> Iterator[CheckResult]:
    found = list(leftovers(root))
    if found:
        yield CheckResult(
            "leftovers",
            "warning",
            f"{len(found)} temporary files and folders left by killed processes in {root}, "
            f"{size(sum(one.bytes for one in found))}",
            "mi-crow doctor --clean removes them",
        )
    parts = list(abandoned_parts())
    if parts:
        yield CheckResult(
            "downloads",
            "note",
            f"{len(parts)} unfinished downloads in the hub's cache, "
            f"{size(sum(one.bytes for one in parts))}",
            "import again to finish one; mi-crow doctor --clean removes them",
        )


def clean(root: Path) -> list[CheckResult]:
    """Removes what killed processes left in a workspace, and in the hub's cache."""
    removed = remove([*leftovers(root), *abandoned_parts()])
    if not removed:
        return [CheckResult("leftovers", "ok", "nothing to remove"), *_leftovers(root)]
    text = f"removed {counted(len(removed), 'leftover')} of killed processes, "
    text += size(sum(one.bytes for one in removed))
    return [CheckResult("leftovers", "ok", text), *_leftovers(root)]


def _settings() -> Iterator[CheckResult]:
    """The config file, and what it says of an LLM endpoint."""
    try:
        settings = UserSettings.load()
        url, model = settings.text("llm.url"), settings.text("llm.model")
    except CorruptDataError as error:
        yield CheckResult("config", "warning", str(error), error.hint)
        return
    for trouble in settings.troubles.values():
        yield CheckResult("config", "warning", trouble, "mi-crow config edit")
    if url:
        known = "set" if os.environ.get(LLM_KEY_NAME) else "not set"
        found = f"{url}, {f'model {model}' if model else 'no model'}, {LLM_KEY_NAME} is {known}"
        advice = "" if model else "mi-crow config set llm.model NAME"
        yield CheckResult("LLM endpoint", "ok" if model else "note", found, advice)


def _terminal() -> Iterator[CheckResult]:
    term, colours = os.environ.get("TERM", ""), os.environ.get("COLORTERM", "")
    if not term or term == "dumb":
        yield CheckResult("terminal", "note", "no terminal (TERM is not set)")
        return
    if os.environ.get("NO_COLOR"):
        yield CheckResult(
            "terminal", "note", f"{term}, NO_COLOR is set: activations are shown without colour"
        )
    elif colours in ("truecolor", "24bit"):
        yield CheckResult("terminal", "ok", f"{term}, 16 million colours")
    elif "256" in term:
        yield CheckResult(
            "terminal", "ok", f"{term}, 256 colours", "export COLORTERM=truecolor if it has more"
        )
    else:
        yield CheckResult("terminal", "note", f"{term}, 16 colours", "export TERM=xterm-256color")
    encoding = (out().encoding or "").lower().replace("-", "")
    if encoding != "utf8":
        yield CheckResult(
            "terminal", "warning", f"the encoding is {encoding}", "export LANG=C.UTF-8"
        )


def _tmux() -> Iterator[CheckResult]:
    found = ask("tmux", "-V")
    if not found:
        yield CheckResult(
            "tmux",
            "note",
            "tmux is not installed",
            "inside tmux, the app survives a lost connection",
        )
        return
    inside = bool(os.environ.get("TMUX"))
    yield CheckResult("tmux", "ok", f"{found}, {'in use' if inside else 'not in use'}")
    if not inside:
        return
    escape = ask("tmux", "show-options", "-sv", "escape-time")
    if escape and escape.isdigit() and int(escape) > _ESCAPE_MS:
        yield CheckResult(
            "tmux",
            "warning",
            f"tmux delays the escape key by {escape} ms",
            "add `set -sg escape-time 10` to ~/.tmux.conf",
        )
    clipboard = ask("tmux", "show-options", "-sv", "set-clipboard")
    if clipboard == "off":
        yield CheckResult(
            "tmux",
            "warning",
            "set-clipboard is off: y cannot copy to your clipboard",
            "add `set -s set-clipboard external` to ~/.tmux.conf",
        )
    term = ask("tmux", "show-options", "-gv", "default-terminal") or ""
    if "256" not in term and "direct" not in term:
        yield CheckResult(
            "tmux",
            "note",
            f"default-terminal is {term}",
            "add `set -g default-terminal tmux-256color` to ~/.tmux.conf",
        )


def _logind() -> Iterator[CheckResult]:
    """systemd may kill all of a user's processes when the last session ends."""
    if platform.system() != "Linux":
        return
    setting = kill_user_processes(
        [
            Path("/etc/systemd/logind.conf"),
            *sorted(Path("/etc/systemd/logind.conf.d").glob("*.conf")),
        ]
    )
    if setting is not True:
        yield CheckResult("logout", "ok", "jobs continue when you log out")
        return
    yield CheckResult(
        "logout",
        "warning",
        "KillUserProcesses=yes: your jobs and tmux are killed when you log out",
        "loginctl enable-linger, and start tmux with `systemd-run --user --scope tmux`",
    )


def kill_user_processes(files: list[Path]) -> bool | None:
    """What logind's files set, the last one winning; None when they do not set it."""
    setting = None
    for file in files:
        for value in re.findall(r"(?m)^\s*KillUserProcesses\s*=\s*(\S+)", _read(file)):
            setting = value.lower() in ("yes", "true", "on", "1")
    return setting


def ask(*command: str, timeout: float = 10) -> str | None:
    """What a program prints, or None when it is missing, fails, or takes too long."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=timeout, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def _read(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""
