"""The worker process of a job: `python -m mi_crow.jobs.runner <job folder>`.

Torch is imported by the work itself, after the job has waited for its turn.
"""

import argparse
import os
import signal
import sys
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from mi_crow.errors import CancelledError, UserError, exit_code_of
from mi_crow.jobs.device_lock import DeviceQueue, device_key, devices_of
from mi_crow.jobs.distributed.launchers import check_launcher
from mi_crow.jobs.distributed.ranked import RANK_PROGRAM, RankFailedError, run_ranked
from mi_crow.jobs.events import count_attempts, end_torn_line
from mi_crow.jobs.kinds import KINDS, Kind, Work, kind_of, with_device
from mi_crow.jobs.output import reserve_output, withdraw_output
from mi_crow.jobs.process import LOCK_NAME, LOCK_PATIENCE_S, holds_lock, take_lock
from mi_crow.jobs.reporter import Reporter
from mi_crow.jobs.spec import JobSpec, config_from_json
from mi_crow.jobs.status import CANCEL_NAME, job_state, read_state
from mi_crow.store.settings import SPREAD
from mi_crow.store.workspace import Workspace

NICENESS = 10
_NICENESS_OF_SESSION = 5  # a third of the weight of another session; 10 would be a ninth
_OWN_SESSION = Path("/proc/self/autogroup")
_TURN_POLL_S = 0.25
_SLURM_ENDED = "ended by Slurm: time limit, preemption or scancel"
_HAND_OVER_S = 60.0  # submitting to Slurm holds the job's lock until sbatch has answered


def main(argv: Sequence[str] | None = None, *, rank_program: Sequence[str] = RANK_PROGRAM) -> int:
    """Runs the job in the folder and gives the process's exit code.

    `rank_program` is what torchrun runs in each process of a job that has several.
    """
    parser = argparse.ArgumentParser(prog="python -m mi_crow.jobs.runner")
    parser.add_argument("job_dir", type=Path)
    parser.add_argument("--lock-fd", type=int, help="an inherited descriptor that holds the lock")
    parser.add_argument("--attempt", type=int, default=1)
    parser.add_argument("--log", metavar="NAME", help="the file in the folder to write to")
    options = parser.parse_args(argv)
    job_dir: Path = options.job_dir.absolute()
    if options.log:
        _write_to(job_dir / options.log)
    inherited: int | None = options.lock_fd
    lock = (
        inherited if inherited is not None else take_lock(job_dir / LOCK_NAME, _patience(job_dir))
    )
    if lock is None or not holds_lock(lock):
        sys.stderr.write(f"job {job_dir.name} is already running\n")
        return 2
    os.set_inheritable(lock, False)  # a child that outlives us must not hold it
    _be_nice()
    spec = JobSpec.load(job_dir)
    if spec.launcher == "slurm" and not _is_wanted(job_dir, options.attempt):
        sys.stderr.write(f"attempt {options.attempt} of job {job_dir.name} has already ended\n")
        os.close(lock)
        return 0  # Slurm has no reason to retry
    stage_in = KINDS[spec.kind].stage_in if spec.kind in KINDS else None
    reporter = Reporter(job_dir, options.attempt, stage_in)
    _listen(reporter, by_slurm=spec.launcher == "slurm")
    try:
        with reporter:
            return _run(Workspace(job_dir.parent.parent), job_dir, spec, reporter, rank_program)
    finally:
        # Exiting with torch takes another second, in which a resume would find the lock held.
        os.close(lock)


def _run(
    workspace: Workspace,
    job_dir: Path,
    spec: JobSpec,
    reporter: Reporter,
    rank_program: Sequence[str],
) -> int:
    """Waits for the job's turn, does the work and writes the closing event."""
    queue = None
    try:
        kind = kind_of(spec.kind)
        check_launcher(spec.launcher, spec.nproc, spec.kind, spec.device)
        config = with_device(config_from_json(kind.config, spec.params, spec.kind), spec.device)
        _wait_for_job(workspace, spec.after, reporter)
        # Slurm's own queue assigns the devices, and may call each job's first one cuda:0.
        waits = spec.launcher != "slurm" and kind.queues(config)
        devices = devices_of(spec.device, spec.nproc) if waits else []
        queue = DeviceQueue(devices, spec.created, job_dir.name, workspace.root)
        queue.join()
        _wait_for_device(queue, " ".join(devices), reporter)
        reporter.started()
        with _output(workspace, job_dir, kind, config, reporter) as output_dir:
            if spec.launcher == "torchrun" or spec.nproc > 1:
                result = run_ranked(job_dir, spec, output_dir, reporter, rank_program)
            else:
                result = kind.work(Work(workspace, config, reporter, output_dir))
    except CancelledError as error:
        ours = spec.launcher != "slurm" or (job_dir / CANCEL_NAME).exists()
        reporter.cancelled(resumable=error.resumable, why="" if ours else _SLURM_ENDED)
        return 130
    except (Exception, SystemExit) as error:
        exit_code = exit_code_of(error)
        rank_words = error.traceback if isinstance(error, RankFailedError) else ""
        reporter.failed(error, rank_words or traceback.format_exc(), exit_code)
        return exit_code
    finally:
        if queue is not None:
            queue.leave()
    reporter.finished(result)
    return 0


@contextmanager
def _output(
    workspace: Workspace, job_dir: Path, kind: Kind, config: Any, reporter: Reporter
) -> Iterator[Path | None]:
    """The kind's output folder, reserved; removed when the block fails and leaves it empty."""
    output_dir = reserve_output(workspace, job_dir, kind, config)
    if output_dir is not None:
        reporter.output(output_dir.name)
    try:
        yield output_dir
    except BaseException:
        withdraw_output(workspace, job_dir, output_dir)
        raise


def _wait_for_job(workspace: Workspace, other: str | None, reporter: Reporter) -> None:
    """Returns when the job `other` has finished. Raises UserError when it never will."""
    if other is None:
        return
    reporter.waiting(f"job {other}")
    while True:
        state = job_state(workspace, other)
        if state.status == "finished":
            return
        if not state.active:
            raise UserError(
                f"job {other!r}, which must finish first, is {state.status}",
                hint=f"mi-crow jobs resume {other}, then resume this one",
            )
        _pause(reporter)


def _wait_for_device(queue: DeviceQueue, device: str, reporter: Reporter) -> None:
    while not queue.try_enter():
        reporter.waiting(_what_holds(queue, device))
        _pause(reporter)


def _what_holds(queue: DeviceQueue, device: str) -> str:
    """`job X in workspace Y on cpu, 1 job ahead`: whom the job waits for."""
    older, holder = queue.ahead(), queue.holder()
    if device in ("auto", SPREAD):  # which nobody waits for, but for what it is here
        device = device_key(device).replace("-", ":", 1)
    ahead = f"{older} job{'s' if older > 1 else ''} ahead" if older else ""
    if holder:
        return f"job {holder} on {device}{f', {ahead}' if ahead else ''}"
    return f"{device} ({ahead or 'in use by another job'})"


def _pause(reporter: Reporter) -> None:
    if reporter.wait_for_stop(_TURN_POLL_S):
        raise CancelledError("cancelled before it started")


def _patience(job_dir: Path) -> float:
    return _HAND_OVER_S if JobSpec.load(job_dir).launcher == "slurm" else LOCK_PATIENCE_S


def _is_wanted(job_dir: Path, attempt: int) -> bool:
    """Whether the attempt that Slurm starts is still current: one that was requeued may have ended,
    or a later one may have replaced it."""
    end_torn_line(job_dir)  # a node may have died in the middle of a line
    return attempt == count_attempts(job_dir) and read_state(job_dir, lock_held=True).active


def _listen(reporter: Reporter, *, by_slurm: bool) -> None:
    """Makes the signals that ask for an end reach the work."""
    ask = reporter.request_stop_once if by_slurm else reporter.request_stop
    for number in (signal.SIGTERM, signal.SIGUSR2):  # USR2: Slurm's time limit is near
        signal.signal(number, lambda *_: ask())
    signal.signal(signal.SIGINT, lambda *_: reporter.request_stop())
    signal.signal(signal.SIGHUP, signal.SIG_IGN)


def _write_to(path: Path) -> None:
    """Appends everything that this process and its children print to `path`."""
    with path.open("ab") as log:
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
            os.dup2(log.fileno(), stream.fileno())


def _be_nice() -> None:
    """Lowers the priority below interactive programs; never raises it.

    Linux weighs sessions against each other, so that within its own the niceness of a process says
    nothing to the rest of the machine: the session of a detached job becomes nice as well, though
    less so: it shall go on beside a machine that is used by many.
    """
    niceness = os.getpriority(os.PRIO_PROCESS, 0)
    if niceness < NICENESS:
        os.setpriority(os.PRIO_PROCESS, 0, NICENESS)
    if os.getsid(0) != os.getpid():
        return  # the session is another program's, such as the shell
    with suppress(OSError, ValueError):  # no Linux, or one that knows no groups
        if int(_OWN_SESSION.read_text().rpartition(" ")[2]) < _NICENESS_OF_SESSION:
            _OWN_SESSION.write_text(str(_NICENESS_OF_SESSION))


if __name__ == "__main__":
    raise SystemExit(main())
