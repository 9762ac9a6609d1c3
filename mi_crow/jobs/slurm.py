"""Jobs through slurm: handed over by submitit, looked after by slurm's own commands.

Only the way to the worker differs. The job's folder, its lock, its events and the `cancel` file are
those of every job, on a file system that the nodes share.
"""

import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from mi_crow.errors import MiCrowError, UserError
from mi_crow.jobs.spec import JobSpec
from mi_crow.store.atomic import read_json, write_json

RECORD_NAME = "slurm.json"  # the number that slurm gave the job's latest attempt
FOLDER_NAME = "slurm"  # submitit's own files
CLUSTER = "slurm"  # `local` starts the same hand-over without slurm

DEFAULT_MINUTES = 24 * 60
_CPUS_A_PROCESS = 4
_ASK_TIMEOUT_S = 10.0
# How long an answer of slurm's is good for: viewers look every second.
_ASK_EVERY_S = 20.0
_RESOURCES = ("partition", "time", "args")
# What squeue may still list of a job that has ended.
_ENDED = (
    *("BOOT_FAIL", "CANCELLED", "COMPLETED", "DEADLINE", "FAILED", "NODE_FAIL", "OUT_OF_MEMORY"),
    *("REVOKED", "TIMEOUT"),
)


def check_slurm(resources: Mapping[str, Any]) -> None:
    """Raises UserError when no job can be handed to slurm from here."""
    for name in resources:
        if name not in _RESOURCES:
            raise UserError(f"slurm resource {name!r} is not known", hint=", ".join(_RESOURCES))
    cpus = (resources.get("args") or {}).get("cpus-per-task", "1")
    if not str(cpus).isdigit() or int(cpus) < 1:
        raise UserError(f"cpus-per-task must be a whole number of at least 1, not {cpus!r}")
    if find_spec("submitit") is None:
        raise UserError(
            "--launcher slurm needs a package that is missing",
            hint='pip install "mi-crow-tui[slurm]"',
        )
    if CLUSTER == "slurm" and shutil.which("sbatch") is None:
        raise UserError(
            "slurm's command sbatch is not on this machine", hint="run this on a login node"
        )


def minutes(text: str) -> int:
    """Slurm's ways to write a time limit, in minutes: `90`, `90:00`, `1:30:00`, `1-12`,
    `1-12:30`. Raises UserError."""
    found = re.fullmatch(r"(?:(\d+)-)?(\d+)(?::(\d+))?(?::(\d+))?", text)
    if not found:
        raise UserError(f"{text!r} is no time limit", hint="e.g. 90 (minutes), 8:00:00 or 1-12:00")
    days, *parts = (int(part or 0) for part in found.groups())
    if found[1] is None and found[4] is None:  # minutes, or minutes and seconds
        parts = [0, *parts[:2]]
    total = 60 * (24 * days + parts[0]) + parts[1] + (1 if parts[2] else 0)
    if total < 1:
        raise UserError(f"the time limit {text!r} is less than a minute")
    return total


class WorkerCommand:
    """What submitit runs on the node: the worker, until it ends by itself."""

    def __init__(self, command: Sequence[str]) -> None:
        self._command = list(command)

    def __call__(self) -> None:
        """Raises CalledProcessError when the worker ends badly."""
        # Slurm signals every process when the time is nearly up. At this one submitit would kill
        # the worker, which has the same signal and is saving, or queue the job again.
        signal.signal(signal.SIGUSR2, signal.SIG_IGN)
        subprocess.run(self._command, check=True)


def hand_over(
    job_dir: Path, spec: JobSpec, attempt: int, environment: Mapping[str, str], log: str
) -> str:
    """Has slurm start the job's worker, which writes to `log` in its folder, and gives slurm's
    number for it. Raises UserError."""
    import submitit

    executor = submitit.AutoExecutor(folder=job_dir / FOLDER_NAME, cluster=CLUSTER)
    executor.update_parameters(**_parameters(job_dir.name, spec))
    # Submitit hands a pickled function over, which holds a command and nothing else; nothing of
    # ours reads it.
    command = WorkerCommand(
        [
            *("env", *(f"{name}={value}" for name, value in environment.items())),
            *(sys.executable, "-m", "mi_crow.jobs.runner", str(job_dir.absolute())),
            *("--attempt", str(attempt), "--log", log),
        ]
    )
    try:
        number = executor.submit(command).job_id
    except Exception as error:  # what sbatch says comes in several of submitit's errors
        raise UserError(
            f"slurm took no job ({_last_line(error) or type(error).__name__})"
        ) from error
    write_json(job_dir / RECORD_NAME, {"slurm_id": number, "attempt": attempt, "t": time.time()})
    return number


def _parameters(job_id: str, spec: JobSpec) -> dict[str, Any]:
    resources = dict(spec.slurm)
    more = {str(key): value for key, value in (resources.get("args") or {}).items()}
    cpus = more.pop("cpus-per-task", _CPUS_A_PROCESS * spec.nproc)
    parameters: dict[str, Any] = {
        "name": f"mi-crow-{job_id}",
        "nodes": 1,
        "tasks_per_node": 1,  # torchrun starts the others
        "cpus_per_task": int(cpus),
        "timeout_min": resources.get("time") or DEFAULT_MINUTES,
    }
    if spec.device != "cpu":
        parameters["gpus_per_node"] = spec.nproc
    if resources.get("partition"):
        parameters["slurm_partition"] = resources["partition"]
    if not more.keys() & {"requeue", "no-requeue"}:
        more["no-requeue"] = True  # a job that ended goes on when its user says so
    parameters["slurm_additional_parameters"] = more
    return parameters


def slurm_number(job_dir: Path) -> str | None:
    """What slurm calls the job's latest attempt; None when it was never handed over."""
    try:
        return str(read_json(job_dir / RECORD_NAME)["slurm_id"])
    except (MiCrowError, KeyError, TypeError):
        return None


def waits(job_dir: Path) -> bool:
    """Whether slurm still has the job, waiting or running, as far as can be told from here.

    Asked at most three times a minute. Where slurm does not answer, it is taken to have the job.
    """
    number = slurm_number(job_dir)
    return number is not None and _known(number, int(time.monotonic() // _ASK_EVERY_S))


@lru_cache(maxsize=256)
def _known(number: str, _: int) -> bool:
    if CLUSTER != "slurm":
        return Path(f"/proc/{number}").exists()
    try:
        asked = subprocess.run(
            ["squeue", "--noheader", "--jobs", number, "--format", "%T"],
            capture_output=True,
            text=True,
            timeout=_ASK_TIMEOUT_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return True
    if asked.returncode != 0:  # squeue fails for numbers that slurm has forgotten
        return "Invalid job id" not in asked.stderr
    states = asked.stdout.split()
    return bool(states) and not all(state in _ENDED for state in states)


def withdraw(job_dir: Path) -> None:
    """Has slurm end the job, waiting or running. Raises MiCrowError when it does not."""
    number = slurm_number(job_dir)
    if number is None:
        return
    command = ["scancel", number] if CLUSTER == "slurm" else ["kill", number]
    try:
        told = subprocess.run(
            command, capture_output=True, text=True, timeout=_ASK_TIMEOUT_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise MiCrowError(f"slurm did not answer to {command[0]}", hint="try again") from error
    _known.cache_clear()
    if told.returncode != 0 and _known(number, int(time.monotonic() // _ASK_EVERY_S)):
        why = _last_line(told.stderr) or f"exit code {told.returncode}"
        raise MiCrowError(f"slurm did not end its job {number} ({why})", hint="try again")


def _last_line(words: object) -> str:
    lines = [line.strip() for line in str(words).splitlines() if line.strip()]
    return lines[-1] if lines else ""
