"""Following a job: its events as they come, and the end of its log."""

import os
import time
from collections.abc import Callable, Iterator
from typing import Any

from mi_crow.jobs.events import CLOSING, OPENING, EventReader
from mi_crow.jobs.status import JobState, read_state
from mi_crow.store.plain_file import read_plain
from mi_crow.store.workspace import Workspace

LOG_NAME = "worker.log"
_POLL_S = 0.1
_LOST_CHECK_S = 1.0


def follow(
    workspace: Workspace,
    job_id: str,
    on_wait: Callable[[str], None] | None = None,
    on_silence: Callable[[], None] | None = None,
) -> Iterator[dict[str, Any]]:
    """The events of the job's latest attempt, then each new one, until it ends.

    `on_wait` is called once a second with what a queued job is waiting for, `on_silence` once a
    second while a running one says nothing.
    The last event is `finished`, `failed` or `cancelled`, or `lost` when the worker died without
    writing one. Raises NotFoundError for a job that does not exist.
    """
    job_dir = workspace.job_dir(job_id)
    reader = EventReader(job_dir)
    pending = list(reader.read_new())
    starts = [i for i, event in enumerate(pending) if event["event"] in OPENING]
    pending = pending[starts[-1] :] if starts else pending
    next_check = time.monotonic()
    while True:
        for event in pending:
            yield event
            if event["event"] in CLOSING:
                return
        if not pending and time.monotonic() >= next_check:
            next_check = time.monotonic() + _LOST_CHECK_S
            state = read_state(job_dir)
            if on_wait is not None and state.status == "queued" and state.waiting_for:
                on_wait(state.waiting_for)
            if on_silence is not None and state.status == "running":
                on_silence()
            if not state.active:
                late = list(reader.read_new())  # it may have ended in between
                if not any(event["event"] in CLOSING for event in late):
                    late.append(_closing_event(state))
                yield from late
                return
        if not pending:
            time.sleep(_POLL_S)
        pending = list(reader.read_new())


def _closing_event(state: JobState) -> dict[str, Any]:
    """The closing event of a job whose events lack it."""
    event: dict[str, Any] = {"t": state.ended or time.time(), "event": state.status}
    if state.status == "finished":
        return event | {"result": state.result or {}}
    if state.status == "failed":
        event |= {"hint": state.hint, "exit_code": state.exit_code or 1, "traceback": ""}
    return event | {"error": state.error, "resumable": state.resumable}


def tail_log(workspace: Workspace, job_id: str, n: int = 100) -> list[str]:
    """The last `n` lines of the worker's log, without line ends, carriage returns resolved.

    Raises NotFoundError for a job that does not exist.
    """
    path = workspace.job_dir(job_id) / LOG_NAME
    window = 400 * max(n, 1) + 65536
    try:
        with read_plain(path) as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - window))
            text = file.read().decode("utf-8", "replace")
    except FileNotFoundError:
        return []
    # A progress bar overwrites its line: only its last state is shown.
    lines = [line.rstrip("\r").rpartition("\r")[2] for line in text.split("\n")]
    if lines and not lines[-1]:
        lines.pop()
    return lines[-n:] if n > 0 else []
