"""A job of two processes: one folder, one state, one end, whatever becomes of either process."""

import os
import signal
from pathlib import Path
from typing import Any

import pytest

from mi_crow.jobs import cancel, follow, job_state, resume, submit, tail_log
from mi_crow.jobs.process import LOCK_NAME, is_locked, pid_start
from mi_crow.store.workspace import Workspace
from tests.helpers import jobs_worker
from tests.helpers.jobs_fixture import wait_until
from tests.helpers.jobs_worker import WORKER

pytestmark = pytest.mark.slow

PATIENCE_S = 60.0  # torch is imported three times, maybe on a busy machine


@pytest.fixture(autouse=True)
def _kinds_of_the_tests(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    jobs_worker.register()


class Pair:
    """A job whose six steps are shared by two processes; each stands still at its second one."""

    def __init__(self, workspace: Workspace, folder: Path, **config: Any) -> None:
        folder.mkdir()
        self.workspace, self.folder = workspace, folder
        params = {"folder": str(folder), "steps": 6} | config
        self.job = submit(
            workspace, "shared-steps", params, launcher="torchrun", nproc=2, runner=WORKER
        )

    @property
    def state(self) -> Any:
        return job_state(self.workspace, self.job)

    @property
    def steps(self) -> list[int]:
        return sorted(
            int(line.split()[0])
            for path in self.folder.glob("steps-*")
            for line in path.read_text().splitlines()
        )

    def wait_there(self) -> list[int]:
        """Returns when both stand still, with their process ids."""
        files = [self.folder / f"waiting-{rank}" for rank in range(2)]
        wait_until(lambda: all(file.exists() for file in files), PATIENCE_S)
        pids = [int(file.read_text()) for file in files]
        for file in files:
            file.unlink()
        return pids

    def go_on(self) -> None:
        (self.folder / "go").touch()
        resume(self.workspace, self.job, runner=WORKER)

    def end(self) -> dict[str, Any]:
        return list(follow(self.workspace, self.job))[-1]


def gone(pids: list[int]) -> bool:
    return not any(pid_start(pid) for pid in pids)


def test_two_processes_share_the_work_of_one_job(workspace: Workspace, tmp_path: Path) -> None:
    pair = Pair(workspace, tmp_path / "a")
    events = list(follow(workspace, pair.job))
    names = [event["event"] for event in events]
    assert names[:2] == ["queued", "started"]
    assert names[-1] == "finished"
    assert names.count("started") == 1
    result = events[-1]["result"]
    assert result["agreed"] == {"told by": 0, "pair": [1, 2], "text": "ü"}
    assert result["world"] == 2
    assert result["device"] in ("cpu", "cuda:0")
    assert result["threads"] == str(max(1, len(os.sched_getaffinity(0)) // 2))
    assert pair.steps == [0, 1, 2, 3, 4, 5]
    # Rank 0 alone speaks in the events; what the others say is in the log.
    checkpoints = [event["name"] for event in events if event["event"] == "checkpoint"]
    assert checkpoints == ["step-1", "step-3", "step-5"]
    assert [e["message"] for e in events if e["event"] == "log"] == ["rank 0 is through"]
    assert any("rank 1 is through" in line for line in tail_log(workspace, pair.job))
    assert pair.state.nproc == 2
    folder = workspace.job_dir(pair.job)
    wait_until(lambda: not is_locked(folder / LOCK_NAME))  # it has written all that it will
    assert [p.name for p in folder.iterdir() if "tmp" in p.name] == []


def test_a_killed_process_fails_the_job_by_name_and_a_resume_finishes_it(
    workspace: Workspace, tmp_path: Path
) -> None:
    pair = Pair(workspace, tmp_path / "a", wait_at=2)
    pids = pair.wait_there()
    os.kill(pids[1], signal.SIGKILL)
    event = pair.end()
    assert (event["event"], event["exit_code"]) == ("failed", 1)
    assert event["error"] == "rank 1 of 2 was killed (signal 9)"
    assert f"mi-crow jobs resume {pair.job}" in event["hint"]
    assert gone(pids)
    assert pair.state.resumable
    assert pair.steps == [0, 1]
    pair.go_on()
    assert pair.end()["event"] == "finished"
    assert pair.steps == [0, 1, 2, 3, 4, 5]


def test_all_processes_stop_when_the_job_is_cancelled_and_end_with_its_own_process(
    workspace: Workspace, tmp_path: Path
) -> None:
    pair = Pair(workspace, tmp_path / "a", wait_at=2)
    pids = pair.wait_there()
    cancel(workspace, pair.job)
    assert pair.end()["event"] == "cancelled"
    assert pair.state.resumable
    assert gone(pids)
    resume(workspace, pair.job, runner=WORKER)
    pids = pair.wait_there()
    pair.state.process.signal(signal.SIGKILL)
    wait_until(lambda: gone(pids))
    wait_until(lambda: pair.state.status == "lost")  # its last thread may outlive its children
    assert pair.steps == [0, 1]


def test_a_second_cancel_ends_processes_that_do_not_listen(
    workspace: Workspace, tmp_path: Path
) -> None:
    pair = Pair(workspace, tmp_path / "a", wait_at=2, deaf=True)
    pids = pair.wait_there()
    cancel(workspace, pair.job)
    wait_until(lambda: pair.state.stopping)
    cancel(workspace, pair.job)
    assert pair.end()["event"] == "cancelled"
    wait_until(lambda: gone(pids))


@pytest.mark.parametrize(
    ("fail", "exit_code", "error"),
    [("user", 2, "the texts are empty"), ("crash", 1, "rank 1 of 2: *** is in this message")],
)
def test_the_error_of_one_process_is_the_error_of_the_job(
    workspace: Workspace, tmp_path: Path, fail: str, exit_code: int, error: str
) -> None:
    pair = Pair(workspace, tmp_path / "a", fail=fail)
    event = pair.end()
    assert (event["event"], event["error"], event["exit_code"]) == ("failed", error, exit_code)
    assert event["hint"] == ("give others" if fail == "user" else "")
    assert "share_steps" in event["traceback"]
    log = (workspace.job_dir(pair.job) / "worker.log").read_text()
    assert "hf_abcdef" not in log
