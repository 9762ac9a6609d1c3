"""The job's process in charge of its ranks: starts them, passes on their reports, and explains
failures. It keeps the lock, the events and the status."""

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mi_crow.errors import CancelledError, MiCrowError
from mi_crow.jobs.distributed.exchange import Death, Ending, Exchange
from mi_crow.jobs.distributed.launchers import launch_environment
from mi_crow.jobs.reporter import Reporter
from mi_crow.jobs.spec import JobSpec
from mi_crow.store.atomic import TMP_PREFIX

# What torchrun runs, before the rank's arguments.
RANK_PROGRAM = ("-m", "mi_crow.jobs.distributed.rank")
_POLL_S = 0.2
_ASKED_TO_END = (-signal.SIGTERM,)  # how torchrun ends the remaining ranks


class RankFailedError(MiCrowError):
    """Why the ranks failed, with the exit code and the traceback of the one that failed first."""

    def __init__(
        self, message: str, *, hint: str = "", exit_code: int = 1, traceback: str = ""
    ) -> None:
        super().__init__(message, hint=hint)
        self.exit_code = exit_code  # type: ignore[misc]
        self.traceback = traceback


def run_ranked(
    job_dir: Path,
    spec: JobSpec,
    output_dir: Path | None,
    reporter: Reporter,
    program: Sequence[str] = RANK_PROGRAM,
) -> dict[str, Any]:
    """Runs the job's work in `spec.nproc` processes and gives the result of rank 0.

    Raises CancelledError when they were stopped, RankFailedError when one failed or died. None of
    them outlives the call, or this process.
    """
    prefix = f"{TMP_PREFIX}ranks-"  # a resume removes what a kill left
    with tempfile.TemporaryDirectory(
        prefix=prefix, dir=job_dir, ignore_cleanup_errors=True
    ) as folder:
        exchange = Exchange(Path(folder))
        output = ("--output", str(output_dir)) if output_dir is not None else ()
        agent = subprocess.Popen(
            [
                *(sys.executable, "-m", "mi_crow.jobs.distributed.rank_agent"),
                *("--exchange", folder, "--parent", str(os.getpid()), "--nproc", str(spec.nproc)),
                *("--", *program, str(job_dir), *output),
            ],
            stdin=subprocess.DEVNULL,
            env=os.environ | launch_environment(spec.nproc),
        )
        try:
            _attend(agent, exchange, reporter)
        finally:
            agent.kill()  # ended already, unless we fail ourselves; the ranks end with it
            agent.wait()
        stopping = reporter.should_stop()
        return _result(exchange, spec.nproc, agent.returncode, stopping, job_dir.name)


def _attend(agent: "subprocess.Popen[bytes]", exchange: Exchange, reporter: Reporter) -> None:
    """Passes on reports and the request to stop until the ranks have ended."""
    running = True
    while running:
        running = agent.poll() is None  # before the reports, so that the last ones are read as well
        for report in exchange.new_reports():
            _pass_on(report, reporter)
        if running and reporter.wait_for_stop(_POLL_S):
            exchange.ask_stop()


def _pass_on(report: dict[str, Any], reporter: Reporter) -> None:
    match report.pop("call"):
        case "update":
            reporter.update(**report)
        case "log":
            reporter.log(**report)
        case "checkpoint":
            reporter.checkpoint(**report)


def _result(
    exchange: Exchange, world: int, agent_code: int, stopping: bool, job_id: str
) -> dict[str, Any]:
    """Rank 0's result when all have finished. Raises what happened otherwise.

    One rank's failure makes others fail: what a rank reports of itself takes precedence over what
    it reports of another, and a kill over the crashes that it causes.
    """
    endings, deaths = exchange.endings(world), exchange.deaths()
    if len(endings) == world and all(e.outcome == "finished" for e in endings.values()):
        return endings[0].result or {}
    known, crashed, lost = (_first(endings, cause) for cause in ("known", "crashed", "lost"))
    stopping = stopping or any(ending.outcome == "cancelled" for ending in endings.values())
    if known or (stopping and crashed):
        raise _failure(known or crashed, world)
    if stopping:
        raise CancelledError(resumable=all(ending.resumable for ending in endings.values()))
    silent = [death for death in deaths if death.rank not in endings]
    killed = [death for death in silent if death.exit_code not in _ASKED_TO_END]
    if killed:
        raise _death(killed[0], world, job_id)
    if crashed:
        raise _failure(crashed, world)
    if silent:
        raise _death(silent[0], world, job_id)
    if lost:
        raise _failure(lost, world)
    raise RankFailedError(
        f"torchrun {_manner(agent_code)} before its {world} processes did",
        hint=f"mi-crow jobs log {job_id}",
    )


def _first(endings: dict[int, Ending], cause: str) -> tuple[int, Ending] | None:
    """The rank that failed first for this cause, and its ending."""
    found = [item for item in endings.items() if item[1].cause == cause]
    return min(found, key=lambda item: item[1].t, default=None)


def _failure(found: tuple[int, Ending] | None, world: int) -> RankFailedError:
    assert found is not None
    rank, ending = found
    where = f"rank {rank} of {world}: " if ending.cause == "crashed" else ""
    return RankFailedError(
        where + ending.error,
        hint=ending.hint,
        exit_code=ending.exit_code,
        traceback=ending.traceback,
    )


def _death(death: Death, world: int, job_id: str) -> RankFailedError:
    memory = "the system may be out of memory; " if death.exit_code == -signal.SIGKILL else ""
    return RankFailedError(
        f"rank {death.rank} of {world} {_manner(death.exit_code)}",
        hint=f"{memory}mi-crow jobs log {job_id} shows its log, "
        f"mi-crow jobs resume {job_id} continues it",
    )


def _manner(exit_code: int) -> str:
    if exit_code < 0:
        return f"was killed (signal {-exit_code})"
    return f"ended (exit code {exit_code})"
