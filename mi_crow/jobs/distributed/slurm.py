"""Jobs through Slurm: submitted with submitit, controlled with Slurm's own commands.

Only the start of the worker differs. The job's folder, lock, events and `cancel` file are those of
every job, on a file system that the nodes share.
"""

import io
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import redirect_stderr
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from mi_crow.errors import CancelledError, MiCrowError, UserError
from mi_crow.jobs.spec import JobSpec
from mi_crow.store.atomic import read_json, write_json

RECORD_NAME = "slurm.json"  # Slurm's id for the job's latest attempt
FOLDER_NAME = "slurm"  # submitit's own files
CLUSTER = "slurm"  # `local` does the same without Slurm

DEFAULT_MINUTES = 24 * 60
_CPUS_A_PROCESS = 4
_ASK_TIMEOUT_S = 10.0
# How long an answer of Slurm is reused: viewers ask every second.
_ASK_EVERY_S = 20.0
_RESOURCES = ("partition", "time", "args")
# Options of sbatch that we set: a job is one process on one node, which starts the others.
_OURS = {
    "partition": "use --partition",
    "time": "use --time",
    "requeue": "use mi-crow jobs resume",
    "no-requeue": "jobs are never requeued by Slurm",
} | dict.fromkeys(
    (
        *("array", "error", "job-name", "nodes", "ntasks", "ntasks-per-node", "open-mode"),
        *("output", "parsable", "test-only", "wait", "wrap"),
    ),
    "it is set for every job",
)
_SAVE_SIGNAL = "USR2@90"  # sent this many seconds before the time limit
# States in which squeue may still list a job that has ended.
_ENDED = (
    *("BOOT_FAIL", "CANCELLED", "COMPLETED", "DEADLINE", "FAILED", "LAUNCH_FAILED", "NODE_FAIL"),
    *("OUT_OF_MEMORY", "PREEMPTED", "REVOKED", "TIMEOUT"),
)


def check_slurm(resources: Mapping[str, Any]) -> None:
    """Raises UserError when no job can be submitted to Slurm from here."""
    for name in resources:
        if name not in _RESOURCES:
            raise UserError(f"Slurm resource {name!r} is not known", hint=", ".join(_RESOURCES))
    limit = resources.get("time")
    if limit is not None and (type(limit) is not int or limit < 1):
        raise UserError(f"the Slurm time limit must be a whole number of minutes, not {limit!r}")
    partition = resources.get("partition")
    if partition is not None and not str(partition).strip():
        raise UserError("the Slurm partition must have a name")
    _check_line("partition", partition)
    _check_arguments(resources.get("args") or {})
    if find_spec("submitit") is None:
        raise UserError(
            "--launcher slurm needs a package that is missing",
            hint='pip install "mi-crow-tui[slurm]"',
        )
    if CLUSTER == "slurm" and shutil.which("sbatch") is None:
        raise UserError(
            "Slurm's command sbatch is not on this machine", hint="run this on a login node"
        )


def _check_arguments(arguments: Mapping[str, Any]) -> None:
    for key, value in arguments.items():
        if not re.fullmatch(r"[a-z][a-z0-9-]*", str(key)):
            raise UserError(f"{key!r} is not a valid option of sbatch", hint="e.g. account=lab")
        if key in _OURS:
            raise UserError(f"the Slurm option {key!r} cannot be set", hint=_OURS[key])
        _check_line(key, value)
    cpus = arguments.get("cpus-per-task", "1")
    if not re.fullmatch("[1-9][0-9]*", str(cpus)):
        raise UserError(f"cpus-per-task must be a whole number of at least 1, not {cpus!r}")
    notice = arguments.get("signal", _SAVE_SIGNAL)
    if not re.fullmatch("USR2@[0-9]+", str(notice)):
        raise UserError(
            f"jobs do not save at the Slurm signal {notice!r}",
            hint="use USR2@SECONDS: that many seconds before the time limit",
        )


def _check_line(key: str, value: object) -> None:
    """It becomes a line of a shell script."""
    if not str(value).isprintable():
        raise UserError(f"the Slurm option {key!r} must be one line of plain text")


_LONGEST_MINUTES = 10 * 366 * 24 * 60  # more than any cluster allows


def minutes(text: str) -> int:
    """Slurm's notations for a time limit, in minutes: `90`, `90:00`, `1:30:00`, `1-12`,
    `1-12:30`. Raises UserError."""
    found = re.fullmatch(r"(?:(\d{1,9})-)?(\d{1,9})(?::(\d{1,9}))?(?::(\d{1,9}))?", text)
    if not found:
        raise UserError(
            f"{text!r} is not a valid time limit", hint="e.g. 90 (minutes), 8:00:00 or 1-12:00"
        )
    days, *parts = (int(part or 0) for part in found.groups())
    if found[1] is None and found[4] is None:  # minutes, or minutes and seconds
        parts = [0, *parts[:2]]
    total = 60 * (24 * days + parts[0]) + parts[1] + (1 if parts[2] else 0)
    if total < 1:
        raise UserError(f"the time limit {text!r} is less than a minute")
    if total > _LONGEST_MINUTES:
        raise UserError(f"the time limit {text[:40]!r} is more than ten years")
    return total


class WorkerCommand:
    """What submitit runs on the node: the worker, once, until it ends by itself."""

    def __init__(self, command: Sequence[str]) -> None:
        self._command = list(command)

    def __call__(self) -> None:
        """Raises CalledProcessError when the worker ends badly."""
        # Slurm signals every process near the time limit. On this one submitit would kill the
        # worker, which got the same signal and is saving, or requeue the job.
        for number in (signal.SIGUSR1, signal.SIGUSR2):  # whichever a cluster's settings name
            signal.signal(number, signal.SIG_IGN)
        subprocess.run(self._command, check=True)

    def checkpoint(self) -> None:
        """Called by submitit when a signal comes before the worker has started: `None` says that
        there is nothing to requeue."""


def hand_over(
    job_dir: Path, spec: JobSpec, attempt: int, environment: Mapping[str, str], log: str
) -> str:
    """Makes Slurm start the job's worker, which writes to `log` in its folder; returns Slurm's id.
    Raises UserError, and CancelledError when ctrl+c ends a long wait for sbatch."""
    import submitit

    # Submitit pickles this function, which only holds a command; nothing of ours reads the pickle.
    command = WorkerCommand(
        [
            *("env", *(f"{name}={value}" for name, value in environment.items())),
            *(sys.executable, "-m", "mi_crow.jobs.runner", str(job_dir.absolute())),
            *("--attempt", str(attempt), "--log", log),
        ]
    )
    try:
        with redirect_stderr(io.StringIO()):  # submitit also prints the messages of sbatch
            executor = submitit.AutoExecutor(folder=job_dir / FOLDER_NAME, cluster=CLUSTER)
            executor.update_parameters(**_parameters(job_dir.name, spec))
            number = executor.submit(command).job_id
    except KeyboardInterrupt as error:
        raise CancelledError("cancelled before Slurm had the job", resumable=True) from error
    except Exception as error:  # submitit wraps messages of sbatch in several errors
        why = _sentence(error) or "sbatch gave no reason"
        raise UserError(f"Slurm did not accept the job ({why})") from error
    write_json(job_dir / RECORD_NAME, {"slurm_id": number, "attempt": attempt, "t": time.time()})
    return number


def _parameters(job_id: str, spec: JobSpec) -> dict[str, Any]:
    resources = dict(spec.slurm)
    # Spelt as in submitit, so that what the user asks for replaces our defaults.
    more = {key.replace("-", "_"): value for key, value in (resources.get("args") or {}).items()}
    cpus = more.pop("cpus_per_task", _CPUS_A_PROCESS * spec.nproc)
    parameters: dict[str, Any] = {
        "name": f"mi-crow-{job_id}",
        "nodes": 1,
        "tasks_per_node": 1,  # torchrun starts the others
        "cpus_per_task": int(cpus),
        "timeout_min": resources.get("time") or DEFAULT_MINUTES,
        # The variable changes submitit's signal; the worker's is always the same.
        "slurm_setup": ["export SUBMITIT_PREEMPT_SIGNAL=USR2"],
    }
    if spec.device != "cpu" and not more.keys() & {"gres", "gpus", "gpus_per_task"}:
        parameters["gpus_per_node"] = spec.nproc
    if resources.get("partition"):
        parameters["slurm_partition"] = resources["partition"]
    # A job that has ended is only resumed by its user.
    always = {"no_requeue": True, "signal": _SAVE_SIGNAL}
    parameters["slurm_additional_parameters"] = always | more
    return parameters


def slurm_number(job_dir: Path) -> str | None:
    """Slurm's id for the job's latest attempt; None when it was never submitted."""
    try:
        return str(read_json(job_dir / RECORD_NAME)["slurm_id"])
    except (MiCrowError, KeyError, TypeError):
        return None


def waits(job_dir: Path) -> bool:
    """Whether Slurm still has the job, waiting or running, as far as can be told from here.

    Asks at most three times a minute. When Slurm does not answer, it is assumed to have the job.
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
    if asked.returncode != 0:  # squeue fails for ids that Slurm has forgotten
        return "Invalid job id" not in asked.stderr
    states = asked.stdout.split()
    return bool(states) and not all(state in _ENDED for state in states)


def withdraw(job_dir: Path) -> None:
    """Makes Slurm end the job, waiting or running. Raises MiCrowError when it does not."""
    number = slurm_number(job_dir)
    if number is None:
        return
    command = ["scancel", number] if CLUSTER == "slurm" else ["kill", number]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=_ASK_TIMEOUT_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise MiCrowError(f"Slurm did not answer {command[0]}", hint="try again") from error
    _known.cache_clear()
    if done.returncode != 0 and _known(number, int(time.monotonic() // _ASK_EVERY_S)):
        why = _sentence(done.stderr) or f"exit code {done.returncode}"
        raise MiCrowError(f"Slurm did not end its job {number} ({why})", hint="try again")


def _sentence(output: object) -> str:
    """The last line that a Slurm command wrote under its own name, else the first line."""
    lines = [line.strip() for line in str(output).splitlines() if line.strip()]
    named = [line for line in lines if re.match("(sbatch|scancel): ", line)]
    return (named[-1:] or lines[:1] or [""])[0]
