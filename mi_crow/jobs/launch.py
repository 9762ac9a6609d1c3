"""Starting, stopping and resuming jobs: what viewers do to a job's folder and process."""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from mi_crow.causes import explained
from mi_crow.errors import MiCrowError, NotFoundError, UserError
from mi_crow.jobs.distributed.launchers import check_hand_over, check_launcher
from mi_crow.jobs.distributed.slurm import hand_over, slurm_number, withdraw
from mi_crow.jobs.events import append_event, count_attempts, end_torn_line, read_events
from mi_crow.jobs.kinds import device_of, kind_of
from mi_crow.jobs.output import OUTPUT_NAME
from mi_crow.jobs.process import (
    LEAVING_S,
    LOCK_NAME,
    LOCK_PATIENCE_S,
    host_name,
    is_locked,
    take_lock,
)
from mi_crow.jobs.spec import JobSpec, config_as_json, config_from_json
from mi_crow.jobs.status import CANCEL_NAME, JobState, read_state, write_status
from mi_crow.jobs.watch import LOG_NAME
from mi_crow.store.atomic import remove_stale
from mi_crow.store.plain_file import open_plain
from mi_crow.store.workspace import Workspace

_APPEND = os.O_WRONLY | os.O_APPEND | os.O_CREAT
RUNNER = (sys.executable, "-m", "mi_crow.jobs.runner")
# Spinning OpenMP threads starve every other process on the cores; read when the library loads.
QUIET_OPENMP = {"OMP_WAIT_POLICY": "PASSIVE", "GOMP_SPINCOUNT": "0"}


def submit(
    workspace: Workspace,
    kind: str,
    params: dict[str, Any],
    device: str = "auto",
    name: str | None = None,
    after: str | None = None,
    *,
    launcher: str = "local",
    nproc: int = 1,
    slurm: Mapping[str, Any] | None = None,
    runner: Sequence[str] = RUNNER,
) -> str:
    """Writes a job's folder, starts its detached worker and returns the job's id.

    `params` are the fields of the kind's config. `launcher` is local; torchrun, which starts
    `nproc` processes; or slurm, which starts them on another machine with the resources in `slurm`
    (partition, time in minutes, args for sbatch). `runner` is the command that is given the folder.
    Raises UserError, with nothing written, for a bad kind, parameter or launcher, or when there is
    no job `after`.
    """
    asked = JobSpec(kind, params, device, launcher, nproc, dict(slurm or {}), name, after)
    spec = checked(workspace, asked)
    workspace.ensure()
    job_dir = workspace.make_job_dir(f"{kind}-{name}" if name else kind)
    lock = take_lock(job_dir / LOCK_NAME)
    assert lock is not None  # the folder is ours alone
    spec.save(job_dir)
    append_event(job_dir, "queued", host=host_name())
    try:
        _start(job_dir, spec, lock, attempt=1, runner=runner)
    except (OSError, MiCrowError):
        workspace.delete(job_dir)
        raise
    return job_dir.name


def checked(workspace: Workspace, spec: JobSpec) -> JobSpec:
    """The spec of a job that could start now, with every parameter filled in; writes nothing.

    Raises UserError as `submit` does.
    """
    found = kind_of(spec.kind)
    config = config_from_json(found.config, spec.params, spec.kind)
    device = spec.device if spec.device != "auto" else device_of(config)
    check_launcher(spec.launcher, spec.nproc, spec.kind, device)
    check_hand_over(spec.launcher, spec.slurm)
    if found.split is not None:
        found.split(config, spec.nproc)
    if spec.after is not None:
        workspace.job_dir(spec.after)
    if found.check is not None:
        _check(found.check, workspace, config, waits=spec.after is not None)
    return replace(spec, params=config_as_json(config), device=device)


def cancel(workspace: Workspace, job_id: str) -> JobState:
    """Asks a job to save and stop; a second time, to stop immediately. Returns the state before.

    Raises NotFoundError, and UserError for a job that has ended.
    """
    job_dir = workspace.job_dir(job_id)
    state = read_state(job_dir)
    if state.status == "lost":
        _close_lost(job_dir, state)
        return state
    if not state.active:
        raise UserError(f"job {job_id!r} has {_ended(state)}, there is nothing to cancel")
    again = (job_dir / CANCEL_NAME).exists()
    with os.fdopen(open_plain(job_dir / CANCEL_NAME, _APPEND), "ab") as file:
        file.write(f"{time.time()}\n".encode())
    if state.process is not None:
        state.process.signal()
    if slurm_number(job_dir) is not None and (again or state.process is None):
        withdraw(job_dir)
        # A worker that Slurm has started meanwhile sees the file and closes the job itself.
        if state.process is None and not is_locked(job_dir / LOCK_NAME):
            _close_lost(job_dir, state)
    return state


def resume(workspace: Workspace, job_id: str, *, runner: Sequence[str] = RUNNER) -> str:
    """Continues a lost, cancelled or failed job where it left off; returns its id.

    Raises NotFoundError, and UserError when it runs, has finished, or cannot be resumed.
    """
    job_dir = workspace.job_dir(job_id)
    leaving = not read_state(job_dir).active
    lock = take_lock(job_dir / LOCK_NAME, LEAVING_S if leaving else LOCK_PATIENCE_S)
    if lock is None:
        if (job_dir / CANCEL_NAME).exists():
            raise UserError(
                f"job {job_id!r} was cancelled and is still stopping",
                hint="resume it once it has stopped",
            )
        raise UserError(
            f"job {job_id!r} is already running", hint=f"follow it: mi-crow jobs watch {job_id}"
        )
    try:
        state = read_state(job_dir, lock_held=False)
        if state.status not in ("lost", "failed", "cancelled") or not state.resumable:
            raise UserError(f"job {job_id!r} has {_ended(state)} and cannot be resumed")
        spec = JobSpec.load(job_dir)
        check_hand_over(spec.launcher, spec.slurm)
        remove_stale(job_dir)
        (job_dir / CANCEL_NAME).unlink(missing_ok=True)
        end_torn_line(job_dir)
        attempt = 1 + count_attempts(job_dir)
        # The status first: a reader in between still finds the old closing event.
        write_status(job_dir, {"status": "queued", "attempt": attempt} | _position(state))
        append_event(job_dir, "resumed", host=host_name())
    except BaseException:
        os.close(lock)
        raise
    try:
        _start(job_dir, spec, lock, attempt=attempt, runner=runner)
    except (OSError, MiCrowError) as error:
        known = explained(error)
        _close(job_dir, state, "failed", error=str(known), hint=getattr(known, "hint", ""))
        raise
    return job_id


def forget(workspace: Workspace, job_id: str) -> bool:
    """Deletes the folder of a job that failed before it made anything; says whether it did."""
    job_dir = workspace.job_dir(job_id)
    lock = take_lock(job_dir / LOCK_NAME, LEAVING_S)
    if lock is None:
        return False
    try:
        made = any(event["event"] == "checkpoint" for event in read_events(job_dir))
        if made or (job_dir / OUTPUT_NAME).exists():
            return False
        workspace.delete(job_dir)
        return True
    finally:
        os.close(lock)


def _check(
    check: Callable[[Workspace, Any], None], workspace: Workspace, config: Any, *, waits: bool
) -> None:
    try:
        check(workspace, config)
    except NotFoundError:
        if not waits:  # the job it waits for may make what is missing
            raise


def _start(job_dir: Path, spec: JobSpec, lock: int, *, attempt: int, runner: Sequence[str]) -> None:
    """Starts the detached worker, which inherits the lock, so that it is never free in between.

    A worker started by Slurm, maybe hours later on another machine, takes the lock itself; until
    Slurm has the job we hold it, so that nobody considers the job lost.
    """
    environment = QUIET_OPENMP | {"PYTHONUNBUFFERED": "1"}
    try:
        if spec.launcher == "slurm":
            number = hand_over(job_dir, spec, attempt, environment, LOG_NAME)
            place = {"status": "queued", "attempt": attempt, "waiting_for": f"Slurm (job {number})"}
            write_status(job_dir, _position(read_state(job_dir, lock_held=True)) | place)
            return
        with os.fdopen(open_plain(job_dir / LOG_NAME, _APPEND), "ab") as log:
            subprocess.Popen(
                [*runner, str(job_dir), "--lock-fd", str(lock), "--attempt", str(attempt)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                pass_fds=(lock,),
                env=os.environ | environment,
            )
    finally:
        os.close(lock)


def _close_lost(job_dir: Path, state: JobState) -> None:
    """Writes the closing event that a dead worker could not."""
    _close(job_dir, state, "cancelled")


def _close(job_dir: Path, state: JobState, ending: str, **words: str) -> None:
    lock = take_lock(job_dir / LOCK_NAME)
    if lock is None:
        raise UserError(f"job {job_dir.name!r} is being resumed", hint="try again in a moment")
    try:
        end_torn_line(job_dir)
        append_event(job_dir, ending, resumable=True, **words)
        closed = {"status": ending, "resumable": True, "ended": time.time(), **words}
        write_status(job_dir, closed | _position(state))
    finally:
        os.close(lock)


def _position(state: JobState) -> dict[str, Any]:
    """How far a job had got, for its next status."""
    keys = ("done", "total", "unit", "metrics", "output", "started")
    return {key: getattr(state, key) for key in keys}


def _ended(state: JobState) -> str:
    words = {"finished": "finished", "failed": "failed", "cancelled": "been cancelled"}
    return words.get(state.status, f"status {state.status}")
