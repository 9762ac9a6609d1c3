"""The state of a job, worked out from its folder: what every viewer shows."""

import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from mi_crow.causes import sentence_of
from mi_crow.errors import MiCrowError, NotFoundError
from mi_crow.jobs.distributed.slurm import waits
from mi_crow.jobs.events import CLOSING, OPENING, read_last_events
from mi_crow.jobs.field_types import has_valid_types
from mi_crow.jobs.process import LOCK_NAME, ProcessIdentity, host_name, is_locked
from mi_crow.jobs.spec import SPEC_NAME, JobSpec
from mi_crow.same_fields import same_fields
from mi_crow.store.atomic import read_json, write_json
from mi_crow.store.unreadable import Unreadable, folders_with
from mi_crow.store.workspace import Workspace

STATUS_NAME = "status.json"
CANCEL_NAME = "cancel"
HEARTBEAT_S = 10.0
SILENT_S = 60.0  # a worker on another host is lost after this long without a heartbeat
_MOST_SKEW_S = 86400.0  # no clock of another host is ahead of ours by more
ACTIVE = frozenset({"queued", "running"})
UNREADABLE = "unreadable"
WHY_LOST = "its process died without reporting why"


@dataclass(frozen=True)
class JobState:
    """The state of one job."""

    job_id: str
    kind: str
    status: str  # queued | running | finished | failed | cancelled | lost | unreadable
    done: int = 0
    total: int = 0
    unit: str = ""
    rate: float | None = None  # units per second
    eta_s: float | None = None
    metrics: dict[str, float] = field(default_factory=dict)
    stage: str = ""  # what a running one does now, in words, where its kind says so
    error: str | None = None  # why it failed, or why it was ended by someone else
    hint: str = ""
    exit_code: int | None = None  # of a failed job, for the command line
    result: dict[str, Any] | None = None
    resumable: bool = False
    stopping: bool = False  # cancelled and still active
    waiting_for: str = ""  # what a queued job waits for, in words
    name: str | None = None
    after: str | None = None
    device: str = "auto"
    nproc: int = 1  # processes that share the work
    params: dict[str, Any] = field(default_factory=dict)
    output: str | None = None  # the id of the run or SAE that it makes, once reserved
    created: float = 0.0  # unix seconds, as all times here
    started: float | None = None
    ended: float | None = None
    heartbeat: float | None = None
    attempt: int = 0
    process: ProcessIdentity | None = None

    @property
    def active(self) -> bool:
        """True while the job waits or runs."""
        return self.status in ACTIVE

    @property
    def share(self) -> float | None:
        """The share done, 0 to 1, where known."""
        return min(1.0, self.done / self.total) if self.total > 0 else None

    def as_json(self) -> dict[str, Any]:
        """The row that `mi-crow jobs --json` prints."""
        keys = (
            "job_id kind status done total unit rate eta_s stage error hint metrics result name "
            "after device nproc output created started ended attempt resumable stopping"
        )
        return {key: getattr(self, key) for key in keys.split()}


def list_jobs(workspace: Workspace) -> list[JobState]:
    """All readable jobs of the workspace, oldest first."""
    return [state for state in scan_jobs(workspace) if state.status != UNREADABLE]


def scan_jobs(workspace: Workspace, known: Mapping[str, JobState] | None = None) -> list[JobState]:
    """All jobs of the workspace, oldest first; one that cannot be read says why in its error. Those
    in `known`, by job id, are taken as they are."""
    states, known = [], known or {}
    for folder, trouble in folders_with(workspace.jobs_dir, SPEC_NAME, "job"):
        try:
            if trouble is not None:
                states.append(_unreadable(trouble))
            else:
                states.append(known.get(folder.name) or read_state(folder))
        except NotFoundError:  # removed meanwhile
            continue
        except (MiCrowError, OSError) as error:
            states.append(_unreadable(Unreadable.because("job", folder, error)))
    return sorted(states, key=lambda state: (state.created, state.job_id))


def _unreadable(found: Unreadable) -> JobState:
    return JobState(found.name, "?", UNREADABLE, error=found.reason)


def job_state(workspace: Workspace, job_id: str) -> JobState:
    """The state of one job. Raises NotFoundError naming the jobs there are."""
    return read_state(workspace.job_dir(job_id))


def write_status(job_dir: Path, status: dict[str, Any]) -> None:
    """Replaces status.json, with the current time."""
    write_json(job_dir / STATUS_NAME, {"t": time.time()} | status)


def read_state(job_dir: Path, *, lock_held: bool | None = None) -> JobState:
    """The state of a job from its spec, status, newest events and lock.

    A caller that holds the lock passes `lock_held=False`: then no worker does. Raises NotFoundError
    or CorruptDataError when there is no readable spec.
    """
    spec = JobSpec.load(job_dir)
    state = same_fields(JobState, spec, job_id=job_dir.name, status="queued")
    status = _read_status(job_dir)
    state = reported = _with_status(state, status)
    if not status:  # never written, or damaged; no event names the output
        state = replace(state, output=_reserved_output(job_dir))
    # The lock before the events: a worker that ends in between has written its closing event.
    unread: OSError | MiCrowError | None = None
    try:
        held = is_locked(job_dir / LOCK_NAME) if lock_held is None else lock_held
        events = read_last_events(job_dir) if state.active else []
    except (OSError, MiCrowError) as error:  # another user's, who only lets us read the status
        held, events, unread = state.process is None or state.process.is_here(), [], error
    if state.active:
        for event in events:
            # The status may be newer than the last progress event, never than the closing one.
            newer = event.get("t", 0) >= status.get("t", 0)
            if event["event"] != "progress" or newer:
                state = apply_event(state, event)
            if event["event"] in OPENING:  # what came before was an earlier attempt's
                state = _opened(state) if newer else _as_reported(state, reported)
    if unread is not None and state.error is None:
        state = replace(state, error=sentence_of(unread))
    if not state.active:
        return state
    if _is_lost(state, held) and not (state.process is None and waits(job_dir)):
        return replace(state, status="lost", resumable=True, rate=None, eta_s=None, stage="")
    return replace(state, stopping=(job_dir / CANCEL_NAME).exists())


def _opened(state: JobState) -> JobState:
    """The state of a new attempt that is not in the status yet: how far the one before had got,
    and none of its readings."""
    return replace(state, process=None, rate=None, eta_s=None, metrics={}, stage="")


def _as_reported(state: JobState, reported: JobState) -> JobState:
    """The state of a new attempt that is in the status: the one before had cleared process, rate,
    time left and what it waits for."""
    return replace(
        state,
        process=reported.process,
        rate=reported.rate,
        eta_s=reported.eta_s,
        waiting_for=reported.waiting_for,
        stage=reported.stage,
    )


def apply_event(state: JobState, event: dict[str, Any]) -> JobState:
    """The state after one more event."""
    name, t = event["event"], event.get("t")
    if name in ("queued", "resumed"):
        return replace(state, status="queued", error=None, hint="", ended=None)
    if name == "started":
        return replace(
            state,
            status="running",
            started=t,
            attempt=event.get("attempt", state.attempt),
            process=ProcessIdentity.from_json(event) or state.process,
            waiting_for="",
        )
    if name == "progress":
        keys = ("done", "total", "unit", "rate", "eta_s", "metrics")
        return replace(state, **{key: event[key] for key in keys if key in event})
    if name == "log":
        return replace(state, stage=event.get("stage", state.stage))
    if name not in CLOSING:
        return state
    state = replace(state, status=name, ended=t, rate=None, eta_s=None, stage="", stopping=False)
    if name == "finished":
        return replace(state, result=event.get("result"), resumable=False)
    if name == "cancelled":
        resumable = bool(event.get("resumable", True))
        return replace(state, resumable=resumable, error=event.get("error"))
    return replace(
        state,
        error=event.get("error"),
        hint=event.get("hint") or "",
        exit_code=event.get("exit_code", 1),
        resumable=True,
    )


def _read_status(job_dir: Path) -> dict[str, Any]:
    try:
        status = read_json(job_dir / STATUS_NAME)
    except (MiCrowError, OSError):
        return {}
    # The events contain the same, so an invalid status is ignored.
    return status if isinstance(status, dict) and has_valid_types(status) else {}


def _reserved_output(job_dir: Path) -> str | None:
    try:
        found = read_json(job_dir / "output.json")
    except (MiCrowError, OSError):
        return None
    name = found.get("id") if isinstance(found, dict) else None
    return name if isinstance(name, str) else None


def _with_status(state: JobState, status: dict[str, Any]) -> JobState:
    keys = (
        "status done total unit rate eta_s metrics stage error hint exit_code result resumable "
        "waiting_for output started ended heartbeat attempt"
    )
    known = {key: status[key] for key in keys.split() if key in status}
    process = status.get("process")
    if isinstance(process, dict):
        known["process"] = ProcessIdentity.from_json(process)
    return replace(state, **known)


def _is_lost(state: JobState, lock_held: bool) -> bool:
    elsewhere = state.process is not None and state.process.host != host_name()
    if elsewhere:
        silent = time.time() - (state.heartbeat or state.created)
        return not -_MOST_SKEW_S < silent <= SILENT_S
    return not lock_held
