"""A command under torchrun works in the foreground; here torchrun's environment of one process."""

import json
import os
import signal
from argparse import Namespace
from pathlib import Path
from typing import Any

import pytest

from mi_crow.cli import main, running
from mi_crow.cli.torchrun import ForegroundProgress
from mi_crow.errors import CancelledError, UserError
from mi_crow.jobs import submit
from mi_crow.jobs.kinds import KINDS, DemoConfig, Kind, Work
from mi_crow.jobs.process import take_lock
from mi_crow.progress import raise_if_stopped
from mi_crow.store.workspace import Workspace
from tests.helpers.jobs_worker import StepsConfig


def make_sae(work: Work) -> dict[str, Any]:
    """Goes on with its checkpoints; `wait_at` is where a signal comes."""
    config: StepsConfig = work.config
    assert work.output_dir is not None
    if config.fail == "user":
        raise UserError("the texts are empty", hint="give others")
    if config.fail == "crash":
        raise ValueError("this is strange")
    found = len(list(work.output_dir.glob("checkpoints/step-*")))
    for step in range(found, config.steps):
        if config.wait_at == step:
            os.kill(os.getpid(), signal.SIGINT)
        raise_if_stopped(work.progress)
        (work.output_dir / "checkpoints" / f"step-{step}").mkdir(parents=True)
        work.progress.update(step + 1, config.steps, "step")
    (work.output_dir / "cfg.json").write_text("{}")
    return {"sae_id": work.output_dir.name, "found": found, "device": config.device}


@pytest.fixture(autouse=True)
def _launched(monkeypatch: pytest.MonkeyPatch) -> None:
    places = {"RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "1"}
    for name, value in places.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setitem(KINDS, "shared", Kind(StepsConfig, make_sae, makes="SAE", ranked=True))


def run(workspace: Workspace, changes: dict[str, Any] | None = None, **config: Any) -> Any:
    """The exit code and what was shown."""
    flags = {"json": False, "debug": False, "detach": False, "after": None}
    flags |= {"launcher": "local", "nproc": None, "partition": None, "time": None}
    flags |= {"slurm_arg": None} | (changes or {})
    shown: list[Any] = []
    code = running.run_job(
        workspace,
        "shared",
        StepsConfig("", **config),
        Namespace(**flags),
        shown.append,
    )
    return code, shown


def saes(workspace: Workspace) -> list[str]:
    return [f.name for f in workspace.saes_dir.iterdir()] if workspace.saes_dir.exists() else []


def test_the_work_is_done_here_without_a_job(
    workspace: Workspace, capsys: pytest.CaptureFixture[str]
) -> None:
    code, [result] = run(workspace)
    assert (code, result["device"]) == (0, "cpu")
    assert saes(workspace) == [result["sae_id"]]
    assert not workspace.jobs_dir.exists()
    assert f"--name {result['sae_id']} resumes it" in capsys.readouterr().err
    hidden = [f.name for f in (workspace.saes_dir / result["sae_id"]).iterdir()]
    assert sorted(hidden) == ["cfg.json", "checkpoints"]


def test_with_json_there_is_one_object_and_nothing_else(
    workspace: Workspace, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(workspace, {"json": True}, name="mine") == (0, [])
    captured = capsys.readouterr()
    assert json.loads(captured.out)["sae_id"] == "mine"
    assert captured.err == ""


def test_a_stopped_run_is_gone_on_with_under_its_name_and_a_finished_one_is_taken(
    workspace: Workspace, capsys: pytest.CaptureFixture[str]
) -> None:
    handler = signal.getsignal(signal.SIGINT)
    assert run(workspace, name="mine", wait_at=2) == (130, [])
    assert "the same command with --name mine resumes it" in capsys.readouterr().err
    assert signal.getsignal(signal.SIGINT) is handler
    code, [result] = run(workspace, name="mine")
    assert (code, result["found"]) == (0, 2)
    assert run(workspace, name="mine") == (2, [])
    assert "SAE 'mine' exists already" in capsys.readouterr().err


def test_what_a_job_writes_or_somebody_else_put_there_is_not_touched(
    workspace: Workspace, capsys: pytest.CaptureFixture[str]
) -> None:
    (workspace.saes_dir / "theirs").mkdir(parents=True)
    (workspace.saes_dir / "theirs" / "notes.txt").touch()
    assert run(workspace, name="theirs") == (2, [])
    assert "SAE 'theirs' exists already" in capsys.readouterr().err
    (workspace.saes_dir / "written" / "checkpoints").mkdir(parents=True)
    lock = take_lock(workspace.saes_dir / "written" / ".lock-foreground")
    assert lock is not None
    try:
        assert run(workspace, name="written") == (2, [])
    finally:
        os.close(lock)
    assert "SAE 'written' is being written by a command" in capsys.readouterr().err
    assert sorted(saes(workspace)) == ["theirs", "written"]


def test_a_mistake_leaves_nothing_behind(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(Workspace.plan(tmp_path / "deep" / "w"), fail="user") == (2, [])
    assert "the texts are empty; give others" in capsys.readouterr().err
    assert not (tmp_path / "deep").exists()


def test_a_fault_is_told_as_one(workspace: Workspace, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(workspace, {"json": True}, fail="crash") == (1, [])
    told = json.loads(capsys.readouterr().err)
    assert told["error"] == "ValueError: this is strange"


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"detach": True}, "--detach needs a job"),
        ({"after": "j"}, "--after needs a job"),
        ({"nproc": 2}, "torchrun has already started the processes"),
        ({"launcher": "torchrun"}, "torchrun has already started the processes"),
    ],
)
def test_what_only_a_job_can_have_is_refused(
    workspace: Workspace, changes: dict[str, Any], says: str
) -> None:
    with pytest.raises(UserError, match=says):
        run(workspace, changes)
    assert saes(workspace) == []


def test_a_mistake_that_all_processes_meet_is_told_once(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    told = {}
    for rank in ("0", "1"):
        monkeypatch.setenv("RANK", rank)
        assert main(["capture", "--layer", "resid_post.2", "--limit", "none"]) == 2
        told[rank] = capsys.readouterr().err
    assert "'none' is not a whole number" in told["0"]
    assert told["1"] == ""


def test_work_of_one_process_is_not_started_twice(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(UserError, match="demo runs in one process, 2 cannot share it"):
        running.run_job(workspace, "demo", DemoConfig(), Namespace(), print)


def test_progress_is_shown_sparely_and_its_end_always() -> None:
    events: list[dict[str, Any]] = []

    class Shown:
        def show(self, event: dict[str, Any]) -> None:
            events.append(event)

        def waits(self, what: str) -> None:
            raise AssertionError(what)  # a command in the foreground waits for nobody

        def is_silent(self) -> None:
            raise AssertionError

    progress = ForegroundProgress(Shown())
    for done in range(1, 101):
        progress.update(done, 100, "document", {"tokens_s": 1.0})
    assert [event["done"] for event in events] == [1, 100]
    progress.log("hf_abcdefghijklmnopqrstuvwxyz")
    assert events[-1] == {"event": "log", "message": "***"}


def test_a_silent_process_shows_nothing_and_stops_all_the_same() -> None:
    progress = ForegroundProgress(None)
    progress.update(1, 2, "step")
    progress.log("hello")
    with progress.stopped_by_signals():
        os.kill(os.getpid(), signal.SIGTERM)
        with pytest.raises(CancelledError):
            raise_if_stopped(progress)


def test_the_flags_reach_the_job(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WORLD_SIZE")
    given: dict[str, Any] = {}
    monkeypatch.setattr(running, "submit", lambda *_, **rest: given.update(rest) or "job-1")
    flags = ("--launcher", "torchrun", "--nproc", "4", "--detach")
    assert main(["capture", "--layer", "l", "--workspace", str(workspace.root), *flags]) == 0
    assert (given["launcher"], given["nproc"]) == ("torchrun", 4)
    assert main(["capture", "--layer", "l", "--workspace", str(workspace.root), "--detach"]) == 0
    assert (given["launcher"], given["nproc"]) == ("local", 1)


def test_torchrun_by_our_own_flag_needs_a_number(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("WORLD_SIZE")
    with pytest.raises(UserError, match="--launcher torchrun needs a number of processes"):
        run(workspace, {"launcher": "torchrun"})
    with pytest.raises(UserError, match="2 processes need a launcher"):
        submit(workspace, "shared", {"folder": ""}, nproc=2)
    assert not workspace.jobs_dir.exists()
