"""Following a job to its end.

Ctrl+c detaches: the job continues. A second ctrl+c within a few seconds cancels it.
"""

import sys
import time
from typing import Any

from mi_crow.cli.display import display_of
from mi_crow.errors import CancelledError, MiCrowError, UserError
from mi_crow.jobs import cancel, follow, job_state
from mi_crow.jobs.status import WHY_LOST
from mi_crow.store.workspace import Workspace

SECOND_THOUGHT_S = 3.0
EXIT_DETACHED = 130


class JobFailedError(MiCrowError):
    """The failure of a job, with the exit code of its cause."""

    def __init__(self, message: str, *, hint: str, exit_code: int) -> None:
        super().__init__(message, hint=hint)
        self.exit_code = exit_code  # type: ignore[misc]


def follow_job(workspace: Workspace, job_id: str, *, quiet: bool = False) -> dict[str, Any] | None:
    """Shows a job's progress until it ends and gives its result, or None after detaching.

    Raises JobFailedError, JobCancelledError, or MiCrowError for a lost job.
    """
    last: dict[str, Any] = {}
    cancelling = False
    with display_of(quiet) as display:
        while True:
            try:
                for event in follow(workspace, job_id, display.waits, display.is_silent):
                    if event.get("t", 0) >= last.get("t", 0):  # after ctrl+c they are read again
                        last = event
                        display.show(event)
                break
            except KeyboardInterrupt:
                cancelling = cancelling or _wants_cancel(job_id)
                if not cancelling:
                    return None
                _cancel_quietly(workspace, job_id)
    return _closing(workspace, job_id, last)


def _closing(workspace: Workspace, job_id: str, event: dict[str, Any]) -> dict[str, Any]:
    name = event.get("event")
    if name == "finished":
        return event.get("result") or {}
    if name == "failed":
        raise JobFailedError(
            str(event.get("error") or "the job failed"),
            hint=str(event.get("hint") or f"mi-crow jobs log {job_id}"),
            exit_code=int(event.get("exit_code") or 1),
        )
    if name == "cancelled":
        resumable = job_state(workspace, job_id).resumable
        raise JobCancelledError(
            f"job {job_id} was cancelled",
            hint=f"mi-crow jobs resume {job_id} continues it" if resumable else "",
        )
    raise MiCrowError(
        f"job {job_id} is lost: {WHY_LOST}",
        hint=f"mi-crow jobs log {job_id} shows its log, mi-crow jobs resume {job_id} continues it",
    )


class JobCancelledError(CancelledError):
    """The followed job was cancelled."""

    exit_code = 130

    def __init__(self, message: str, *, hint: str) -> None:
        super().__init__(message)
        self.hint = hint


def _wants_cancel(job_id: str) -> bool:
    """After the first ctrl+c: says how to cancel and waits a moment for a second one."""
    sys.stderr.write(
        f"\njob {job_id} continues; to cancel it, press ctrl+c again within "
        f"{SECOND_THOUGHT_S:.0f} s or use `mi-crow jobs cancel {job_id}`\n"
    )
    try:
        time.sleep(SECOND_THOUGHT_S)
    except KeyboardInterrupt:
        return True
    return False


def _cancel_quietly(workspace: Workspace, job_id: str) -> None:
    sys.stderr.write("cancelling: the job saves and stops; ctrl+c again stops it immediately\n")
    try:
        cancel(workspace, job_id)
    except UserError:
        return  # it has ended meanwhile: following it shows how
