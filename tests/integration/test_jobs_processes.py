"""Real worker processes: they outlive their viewers, stop when asked, and go on after a kill."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from mi_crow.errors import UserError
from mi_crow.jobs import cancel, follow, job_state, resume, submit, tail_log
from mi_crow.jobs.events import read_events
from mi_crow.jobs.launch import forget
from mi_crow.jobs.process import LOCK_NAME, take_lock
from mi_crow.store.workspace import Workspace
from tests.helpers import jobs_worker
from tests.helpers.jobs_fixture import wait_until
from tests.helpers.jobs_worker import WORKER


@pytest.fixture(autouse=True)
def _kinds_of_the_tests() -> None:
    jobs_worker.register()


class Counter:
    """One job that counts steps into a folder of its own."""

    def __init__(self, workspace: Workspace, folder: Path, **config: Any) -> None:
        folder.mkdir()
        self.workspace, self.folder = workspace, folder
        kind = config.pop("kind", "steps")
        self.after = config.pop("after", None)
        params = {"folder": str(folder)} | config
        self.job = submit(workspace, kind, params, after=self.after, runner=WORKER)

    @property
    def state(self) -> Any:
        return job_state(self.workspace, self.job)

    @property
    def steps(self) -> list[int]:
        path = self.folder / "steps"
        lines = path.read_text().splitlines() if path.exists() else []
        return [int(line.split()[0]) for line in lines]

    def wait_there(self) -> None:
        wait_until((self.folder / "waiting").exists)

    def go(self) -> None:
        (self.folder / "go").touch()

    def end(self) -> str:
        return list(follow(self.workspace, self.job))[-1]["event"]

    def kill(self) -> None:
        self.state.process.signal(signal.SIGKILL)
        wait_until(lambda: self.state.status == "lost")


def test_a_job_runs_detached_quiet_and_nice(workspace: Workspace, tmp_path: Path) -> None:
    counter = Counter(workspace, tmp_path / "a")
    events = list(follow(workspace, counter.job))
    assert [events[0]["event"], events[1]["event"]] == ["queued", "started"]
    assert {"pid", "pid_start", "boot_id", "host", "attempt"} <= events[1].keys()
    assert all(isinstance(event["t"], float) for event in events)
    result = events[-1]["result"]
    assert result["session"]
    assert result["niceness"] == 10
    assert result["niceness_of_session"] in (5, None)
    assert result["environment"] == {"OMP_WAIT_POLICY": "PASSIVE", "GOMP_SPINCOUNT": "0"}
    state = counter.state
    assert (state.status, state.done, state.total, state.unit) == ("finished", 3, 3, "step")
    assert state.result == result
    assert counter.steps == [0, 1, 2]
    assert any("all steps done" in line for line in tail_log(workspace, counter.job))


@pytest.mark.slow
def test_a_job_outlives_the_kill_of_whoever_started_it(
    workspace: Workspace, tmp_path: Path
) -> None:
    folder = tmp_path / "steps"
    folder.mkdir()
    code = f"""
import sys, time
sys.path.insert(0, {str(Path(jobs_worker.__file__).parents[2])!r})
from tests.helpers import jobs_worker
from mi_crow.jobs import submit
from mi_crow.store.workspace import Workspace
jobs_worker.register()
params = {{"folder": {str(folder)!r}, "wait_at": 1}}
print(submit(Workspace.open({str(workspace.root)!r}), "steps", params, runner=jobs_worker.WORKER))
sys.stdout.flush()
time.sleep(60)
"""
    viewer = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert viewer.stdout is not None
    job = viewer.stdout.readline().strip()
    wait_until((folder / "waiting").exists)
    viewer.kill()
    viewer.wait()
    viewer.stdout.close()
    assert job_state(workspace, job).status == "running"
    (folder / "go").touch()
    assert list(follow(workspace, job))[-1]["event"] == "finished"


def test_a_killed_job_is_lost_and_a_resume_finishes_it(
    workspace: Workspace, tmp_path: Path
) -> None:
    counter = Counter(workspace, tmp_path / "a", steps=4, wait_at=2)
    counter.wait_there()
    counter.kill()
    with (workspace.job_dir(counter.job) / "events.jsonl").open("ab") as file:
        file.write(b'{"t": 1, "event": "progr')
    counter.go()
    resume(workspace, counter.job, runner=WORKER)
    events = list(follow(workspace, counter.job))
    assert [events[0]["event"], events[1]["event"]] == ["resumed", "started"]
    assert events[1]["attempt"] == 2
    assert events[-1]["event"] == "finished"
    assert counter.steps == [0, 1, 2, 3]
    assert counter.state.attempt == 2


@pytest.mark.slow
def test_a_second_resume_fails_clearly(workspace: Workspace, tmp_path: Path) -> None:
    counter = Counter(workspace, tmp_path / "a", wait_at=1)
    counter.wait_there()
    counter.kill()
    resume(workspace, counter.job, runner=WORKER)
    with pytest.raises(UserError, match="already running"):
        resume(workspace, counter.job, runner=WORKER)


def test_cancel_saves_and_stops_and_a_resume_goes_on(workspace: Workspace, tmp_path: Path) -> None:
    counter = Counter(workspace, tmp_path / "a", wait_at=1)
    counter.wait_there()
    cancel(workspace, counter.job)
    assert counter.end() == "cancelled"
    assert counter.state.resumable
    counter.go()
    resume(workspace, counter.job, runner=WORKER)
    assert counter.end() == "finished"
    assert counter.steps == [0, 1, 2]


@pytest.mark.slow
def test_the_cancel_file_alone_is_enough(workspace: Workspace, tmp_path: Path) -> None:
    counter = Counter(workspace, tmp_path / "a", wait_at=1)
    counter.wait_there()
    (workspace.job_dir(counter.job) / "cancel").touch()
    assert counter.end() == "cancelled"


@pytest.mark.slow
def test_a_second_cancel_stops_a_job_that_does_not_listen(
    workspace: Workspace, tmp_path: Path
) -> None:
    counter = Counter(workspace, tmp_path / "a", wait_at=1, deaf=True)
    counter.wait_there()
    cancel(workspace, counter.job)
    wait_until(lambda: counter.state.stopping)
    assert counter.state.status == "running"
    cancel(workspace, counter.job)
    assert counter.end() == "cancelled"
    wait_until(lambda: not counter.state.process.is_here())


@pytest.mark.slow
def test_jobs_on_one_device_wait_in_line_across_workspaces(
    workspace: Workspace, tmp_path: Path
) -> None:
    other = Workspace.open(tmp_path / "other")
    first = Counter(workspace, tmp_path / "a", wait_at=0)
    first.wait_there()
    second = Counter(other, tmp_path / "b")
    wait_until(lambda: f"job {first.job}" in second.state.waiting_for)
    third = Counter(workspace, tmp_path / "c")
    wait_until(lambda: "1 job ahead" in third.state.waiting_for)
    assert second.state.status == "queued"
    first.go()
    assert [first.end(), second.end(), third.end()] == ["finished"] * 3
    assert second.state.started <= third.state.started


@pytest.mark.slow
def test_a_queued_job_can_be_cancelled(workspace: Workspace, tmp_path: Path) -> None:
    first = Counter(workspace, tmp_path / "a", wait_at=0)
    first.wait_there()
    second = Counter(workspace, tmp_path / "b")
    wait_until(lambda: second.state.waiting_for)
    cancel(workspace, second.job)
    assert second.end() == "cancelled"
    assert second.steps == []
    assert second.state.started is None
    first.go()
    assert first.end() == "finished"


@pytest.mark.slow
def test_a_job_waits_for_another(workspace: Workspace, tmp_path: Path) -> None:
    first = Counter(workspace, tmp_path / "a", wait_at=0)
    second = Counter(workspace, tmp_path / "b", after=first.job)
    wait_until(lambda: second.state.waiting_for == f"job {first.job}")
    first.go()
    assert second.end() == "finished"
    assert first.state.status == "finished"


@pytest.mark.slow
def test_a_job_whose_forerunner_failed_says_so(workspace: Workspace, tmp_path: Path) -> None:
    first = Counter(workspace, tmp_path / "a", fail="user")
    second = Counter(workspace, tmp_path / "b", after=first.job)
    assert second.end() == "failed"
    assert "must finish first, is failed" in second.state.error
    assert second.steps == []


def test_a_failure_carries_its_words_and_no_secret(workspace: Workspace, tmp_path: Path) -> None:
    counter = Counter(workspace, tmp_path / "a", fail="crash")
    event = list(follow(workspace, counter.job))[-1]
    assert (event["event"], event["exit_code"]) == ("failed", 1)
    assert "is in this message" in event["error"]
    assert "RuntimeError" in event["traceback"]
    everything = b"".join(f.read_bytes() for f in workspace.job_dir(counter.job).iterdir())
    assert b"hf_abcdef" not in everything


@pytest.mark.slow
def test_a_user_error_leaves_no_output_folder_and_the_job_can_be_forgotten(
    workspace: Workspace, tmp_path: Path
) -> None:
    counter = Counter(workspace, tmp_path / "a", kind="steps-sae", fail="user", name="mine")
    assert counter.end() == "failed"
    state = counter.state
    assert (state.exit_code, state.error, state.hint) == (2, "the texts are empty", "give others")
    assert list(workspace.saes_dir.iterdir()) == []
    assert forget(workspace, counter.job)
    assert list(workspace.jobs_dir.iterdir()) == []


@pytest.mark.slow
def test_a_resume_goes_on_in_the_same_output_folder(workspace: Workspace, tmp_path: Path) -> None:
    counter = Counter(workspace, tmp_path / "a", kind="steps-sae", wait_at=2)
    counter.wait_there()
    output = counter.state.output
    assert output
    counter.kill()
    assert not forget(workspace, counter.job)
    counter.go()
    resume(workspace, counter.job, runner=WORKER)
    assert counter.end() == "finished"
    assert counter.state.output == output
    assert [folder.name for folder in workspace.saes_dir.iterdir()] == [output]


@pytest.mark.slow
def test_a_name_that_was_taken_meanwhile_fails_the_job(
    workspace: Workspace, tmp_path: Path
) -> None:
    workspace.make_sae_dir("mine", "")
    (workspace.saes_dir / "mine" / "theirs").touch()
    counter = Counter(workspace, tmp_path / "a", kind="steps-sae", name="mine")
    assert counter.end() == "failed"
    assert counter.state.exit_code == 2
    assert (workspace.saes_dir / "mine" / "theirs").exists()


@pytest.mark.slow
def test_a_worker_that_cannot_start_is_lost_and_leaves_its_words(
    workspace: Workspace, tmp_path: Path
) -> None:
    (tmp_path / "a").mkdir()
    command = (sys.executable, "-c", "raise SystemExit('no such module')")
    job = submit(workspace, "steps", {"folder": str(tmp_path / "a")}, runner=command)
    assert list(follow(workspace, job))[-1]["event"] == "lost"
    assert tail_log(workspace, job) == ["no such module"]


@pytest.mark.slow
def test_a_second_worker_on_the_same_folder_refuses(workspace: Workspace, tmp_path: Path) -> None:
    counter = Counter(workspace, tmp_path / "a", wait_at=0)
    counter.wait_there()
    folder = workspace.job_dir(counter.job)
    done = subprocess.run([*WORKER, str(folder)], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "already running" in done.stderr
    assert [e["event"] for e in read_events(folder)].count("started") == 1


@pytest.mark.slow
def test_the_status_file_is_whole_whenever_it_is_read(workspace: Workspace, tmp_path: Path) -> None:
    counter = Counter(workspace, tmp_path / "a", steps=300)
    path = workspace.job_dir(counter.job) / "status.json"
    readings = 0
    while counter.state.active:
        if path.exists():
            json.loads(path.read_bytes())
            readings += 1
    assert counter.state.status == "finished"
    assert readings
    lock = take_lock(path.parent / LOCK_NAME, patience_s=30)  # the worker has written all it will
    assert lock is not None
    os.close(lock)
    leftovers = [name for name in os.listdir(path.parent) if name.startswith(".tmp-")]
    assert leftovers == []
