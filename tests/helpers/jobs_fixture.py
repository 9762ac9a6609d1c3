"""Job folders in every state, made without starting a process; for tests of viewers."""

import fcntl
import os
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from mi_crow.jobs.events import append_event
from mi_crow.jobs.process import LOCK_NAME, ProcessIdentity
from mi_crow.jobs.spec import JobSpec
from mi_crow.jobs.status import write_status
from mi_crow.store.workspace import Workspace

STATES = ("queued", "running", "finished", "failed", "cancelled", "lost")

_PARAMS: dict[str, dict[str, Any]] = {
    "capture": {
        "model": {"model": "sample"},
        "dataset": {"source": "sample"},
        "layers": ["resid_post.2"],
    },
    "train": {"run_id": "demo", "layer": "resid_post.2"},
    "index": {"sae_id": "demo-topk"},
    "evaluate": {"sae_id": "demo-topk"},
    "demo": {},
}


def own_queues(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Gives a test device queues, a config file and saved states of its own."""
    for name in ("XDG_RUNTIME_DIR", "XDG_CONFIG_HOME", "XDG_STATE_HOME"):
        folder = tmp_path / name.lower()
        folder.mkdir(parents=True)
        monkeypatch.setenv(name, str(folder))
    monkeypatch.delenv("MI_CROW_WORKSPACE", raising=False)


def wait_until(condition: Callable[[], Any], seconds: float = 120.0) -> Any:
    """The first true value that `condition` gives; fails when none comes in time."""
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.01)
    return value


class FakeJobs:
    """Makes job folders; holds the locks of active ones until `release` or `close`."""

    def __init__(self, workspace: Workspace) -> None:
        self.workspace = workspace
        self._locks: dict[str, int] = {}

    def add(
        self,
        status: str,
        kind: str = "train",
        *,
        done: int = 40,
        total: int = 100,
        unit: str = "step",
        metrics: dict[str, float] | None = None,
        error: str = "the device ran out of memory",
        hint: str = "use a smaller --batch-size",
        result: dict[str, Any] | None = None,
        params: dict[str, Any] | None = None,
        name: str | None = None,
        created: float | None = None,
        log: str = "",
    ) -> str:
        """A job in state `status` (one of STATES); gives its id."""
        assert status in STATES
        folder = self.workspace.make_job_dir(f"{kind}-{name}" if name else kind)
        created = time.time() - 60 if created is None else created
        JobSpec(kind, params or _PARAMS.get(kind, {}), name=name, created=created).save(folder)
        me = ProcessIdentity.mine()
        append_event(folder, "queued", host=me.host)
        if status in ("queued", "running"):
            self._hold(folder)
        if status == "queued":
            write_status(folder, {"status": "queued", "waiting_for": "cpu: another job runs on it"})
            return folder.name
        # A process id that no system gives out: a cancel must not reach the test itself.
        append_event(folder, "started", **replace(me, pid=2**30).as_json(), attempt=1)
        self.progress(folder.name, done, total, unit, metrics)
        if status == "finished":
            append_event(folder, "finished", result=result or {"seconds": 1.0})
        elif status == "failed":
            append_event(folder, "failed", error=error, hint=hint, exit_code=1, traceback="")
        elif status == "cancelled":
            append_event(folder, "cancelled", resumable=True)
        if log:
            (folder / "worker.log").write_text(log)
        return folder.name

    def progress(
        self,
        job_id: str,
        done: int,
        total: int = 100,
        unit: str = "step",
        metrics: dict[str, float] | None = None,
    ) -> None:
        """One more reading of a job."""
        append_event(
            self._folder(job_id),
            "progress",
            done=done,
            total=total,
            unit=unit,
            rate=2.0,
            eta_s=(total - done) / 2.0,
            metrics=metrics or {"loss": 0.5, "fvu": 0.2, "l0": 16.0, "dead_share": 0.01},
        )

    def finish(self, job_id: str, result: dict[str, Any] | None = None) -> None:
        """A running job ends well."""
        append_event(self._folder(job_id), "finished", result=result or {"seconds": 1.0})
        self.release(job_id)

    def release(self, job_id: str) -> None:
        """Drops the lock: an active job becomes lost, as after a kill."""
        os.close(self._locks.pop(job_id))

    def close(self) -> None:
        for job_id in list(self._locks):
            self.release(job_id)

    def _folder(self, job_id: str) -> Path:
        return self.workspace.job_dir(job_id)

    def _hold(self, folder: Path) -> None:
        descriptor = os.open(folder / LOCK_NAME, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC)
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        self._locks[folder.name] = descriptor
