"""The command line on real jobs: following, detaching, cancelling, and leaving no trace."""

import json
import os
import signal
import subprocess
import sys
import time
from argparse import Namespace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from mi_crow.cli import display, following, main, running
from mi_crow.jobs import job_state, list_jobs, submit
from mi_crow.store.workspace import Workspace
from tests.helpers import jobs_worker
from tests.helpers.jobs_fixture import wait_until
from tests.helpers.jobs_worker import WORKER


@pytest.fixture(autouse=True)
def _kinds_of_the_tests(monkeypatch: pytest.MonkeyPatch) -> None:
    jobs_worker.register()
    monkeypatch.setattr(running, "submit", partial(submit, runner=WORKER))


def options(**changes: Any) -> Namespace:
    defaults = {"json": False, "debug": False, "detach": False, "after": None, "name": None}
    place = {"launcher": "local", "nproc": None, "partition": None, "time": None}
    return Namespace(**(defaults | place | {"slurm_arg": None} | changes))


def run(workspace: Workspace, folder: Path, given: Namespace | None = None, **config: Any) -> Any:
    """What `run_job` gives, and the results that it showed."""
    folder.mkdir(exist_ok=True)
    shown: list[Any] = []
    config["folder"] = str(folder)
    steps = jobs_worker.StepsConfig(**config)
    kind = "steps-sae" if "name" in config else "steps"
    code = running.run_job(workspace, kind, steps, given or options(), shown.append)
    return code, shown


def test_a_command_follows_its_job_and_shows_the_result(
    workspace: Workspace, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, [result] = run(workspace, tmp_path / "a")
    assert code == 0
    assert result["steps"] == 3
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "all steps done" in captured.err


def test_with_json_stdout_holds_one_object_and_stderr_nothing(
    workspace: Workspace, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run(workspace, tmp_path / "a", options(json=True))
    captured = capsys.readouterr()
    assert json.loads(captured.out)["steps"] == 3
    assert captured.err == ""


@pytest.mark.slow
def test_detaching_starts_the_job_and_says_how_to_watch_it(
    workspace: Workspace, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, shown = run(workspace, tmp_path / "a", options(detach=True, json=True), wait_at=0)
    assert (code, shown) == (0, [])
    job = json.loads(capsys.readouterr().out)["job_id"]
    assert job_state(workspace, job).active
    (tmp_path / "a" / "go").touch()
    assert main(["jobs", "watch", job, "--workspace", str(workspace.root)]) == 0


@pytest.mark.slow
def test_a_mistake_that_only_the_job_finds_leaves_the_workspace_as_it_was(
    workspace: Workspace, tmp_path: Path
) -> None:
    before = sorted(str(path) for path in workspace.root.rglob("*"))
    with pytest.raises(following.JobFailedError, match="the texts are empty") as caught:
        run(workspace, tmp_path / "a", fail="user", name="mine")
    assert (caught.value.exit_code, caught.value.hint) == (2, "give others")
    assert sorted(str(path) for path in workspace.root.rglob("*")) == before


def test_a_workspace_that_was_made_for_a_mistake_goes_again(tmp_path: Path) -> None:
    with pytest.raises(following.JobFailedError):
        run(Workspace.plan(tmp_path / "deep" / "w"), tmp_path / "a", fail="user")
    assert not (tmp_path / "deep").exists()


def test_a_fault_keeps_the_job_and_its_log(workspace: Workspace, tmp_path: Path) -> None:
    with pytest.raises(following.JobFailedError, match="is in this message") as caught:
        run(workspace, tmp_path / "a", fail="crash")
    assert caught.value.exit_code == 1
    [state] = list_jobs(workspace)
    assert f"mi-crow jobs log {state.job_id}" in caught.value.hint


class Watcher:
    """`mi-crow jobs watch` on a job that stands still, in a process that can be interrupted."""

    def __init__(self, workspace: Workspace, folder: Path, **config: Any) -> None:
        folder.mkdir()
        params = {"folder": str(folder), "wait_at": 1} | config
        self.workspace, self.folder = workspace, folder
        self.job = submit(workspace, "steps", params, runner=WORKER)
        wait_until((folder / "waiting").exists)
        self.log = folder / "stderr"
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "mi_crow", "jobs", "watch", self.job],
                stderr=log,
                stdout=subprocess.DEVNULL,
                env=os.environ | {"MI_CROW_WORKSPACE": str(workspace.root)},
            )
        wait_until(lambda: "0 of 3 steps" in self.said or "1 of 3 steps" in self.said)

    @property
    def said(self) -> str:
        return self.log.read_text()

    def interrupt(self) -> None:
        self.process.send_signal(signal.SIGINT)

    def wait(self) -> int:
        return self.process.wait(timeout=120)


def test_ctrl_c_detaches_and_says_how_to_cancel(workspace: Workspace, tmp_path: Path) -> None:
    watcher = Watcher(workspace, tmp_path / "a")
    start = time.monotonic()
    watcher.interrupt()
    assert watcher.wait() == 130
    assert time.monotonic() - start >= following.SECOND_THOUGHT_S - 0.5
    assert f"mi-crow jobs cancel {watcher.job}" in watcher.said
    assert "Traceback" not in watcher.said
    assert job_state(workspace, watcher.job).status == "running"


@pytest.mark.slow
def test_a_second_ctrl_c_cancels_and_waits_for_the_end(
    workspace: Workspace, tmp_path: Path
) -> None:
    watcher = Watcher(workspace, tmp_path / "a")
    watcher.interrupt()
    wait_until(lambda: "press ctrl+c again" in watcher.said)
    watcher.interrupt()
    assert watcher.wait() == 130
    assert job_state(workspace, watcher.job).status == "cancelled"
    assert f"mi-crow jobs resume {watcher.job}" in watcher.said
    assert "Traceback" not in watcher.said


@pytest.mark.slow
def test_a_third_ctrl_c_stops_a_job_that_does_not_listen(
    workspace: Workspace, tmp_path: Path
) -> None:
    watcher = Watcher(workspace, tmp_path / "a", deaf=True)
    watcher.interrupt()
    wait_until(lambda: "press ctrl+c again" in watcher.said)
    watcher.interrupt()
    wait_until(lambda: "cancelling" in watcher.said)
    wait_until(lambda: job_state(workspace, watcher.job).stopping)
    watcher.interrupt()
    assert watcher.wait() == 130
    assert job_state(workspace, watcher.job).status == "cancelled"


def test_a_queued_job_says_what_it_waits_for(
    workspace: Workspace,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    first = tmp_path / "first"
    waits = display.PlainLines.waits

    def says_so(lines: display.PlainLines, what: str) -> None:
        waits(lines, what)
        (first / "go").touch()

    monkeypatch.setattr(display.PlainLines, "waits", says_so)
    run(workspace, first, options(detach=True), wait_at=0)
    wait_until(lambda: list_jobs(workspace)[0].status == "running")
    try:
        run(workspace, tmp_path / "second")
    finally:
        (first / "go").touch()
    said = [line for line in capsys.readouterr().err.splitlines() if "waiting for" in line]
    assert len(said) == 1
    assert f"job {list_jobs(workspace)[0].job_id} on cpu" in said[0]


def test_it_says_so_again_every_fifteen_seconds(capsys: pytest.CaptureFixture[str]) -> None:
    now = [0.0]
    lines = display.PlainLines(quiet=False, clock=lambda: now[0])
    for second in range(46):
        now[0] = float(second)
        lines.waits("cpu (in use by another job)")
    assert capsys.readouterr().err.splitlines() == [
        "queued: waiting for cpu (in use by another job)",
        *["queued: still waiting for cpu (in use by another job)"] * 3,
    ]
    display.PlainLines(quiet=True).waits("cpu")
    assert capsys.readouterr().err == ""
