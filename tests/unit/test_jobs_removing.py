"""What a job that can be resumed needs is not removed without a word; what nobody needs can be."""

import json
import os
from pathlib import Path
from typing import Any

import pytest

from mi_crow.cli import main
from mi_crow.cli.commands.demo import fresh_workspace
from mi_crow.errors import MiCrowError
from mi_crow.jobs.kinds import KINDS
from mi_crow.jobs.output import reserve_output
from mi_crow.jobs.process import take_lock
from mi_crow.jobs.removing import plan_removal
from mi_crow.jobs.status import write_status
from mi_crow.store.workspace import Workspace
from tests.helpers.jobs_fixture import FakeJobs, own_queues
from tests.helpers.made_files import add_run


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    own_queues(tmp_path, monkeypatch)
    workspace = Workspace.open(tmp_path / "w")
    monkeypatch.setenv("MI_CROW_WORKSPACE", str(workspace.root))
    return workspace


def training(workspace: Workspace, jobs: FakeJobs, status: str, name: str = "sae") -> str:
    """A training that was stopped with a checkpoint in its unfinished SAE."""
    job = jobs.add(status, "train", params={"run_id": "run", "layer": "l"}, name=name)
    (workspace.make_sae_dir(name, "") / "checkpoints" / "step-40").mkdir(parents=True)
    closed = {"status": status, "resumable": True} if status != "lost" else {"status": "running"}
    write_status(workspace.jobs_dir / job, {**closed, "output": name})
    return job


def told(capsys: pytest.CaptureFixture[str], *arguments: str) -> Any:
    assert main([*arguments, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert main(arguments) == 2
    return capsys.readouterr().err


@pytest.mark.parametrize("status", ["lost", "cancelled", "failed"])
def test_the_run_of_a_resumable_training_is_kept_without_force(
    workspace: Workspace, jobs: FakeJobs, capsys: pytest.CaptureFixture[str], status: str
) -> None:
    add_run(workspace)
    job = training(workspace, jobs, status)
    assert f"needed to resume job {job}" in refused(capsys, "runs", "rm", "run")
    assert f"needed to resume job {job}" in refused(capsys, "saes", "rm", "sae")
    assert told(capsys, "runs", "rm", "run", "--dry-run")["waiting_jobs"] == [job]
    assert workspace.run_dir("run").is_dir()
    assert told(capsys, "runs", "rm", "run", "--force")["removed"]
    assert workspace.list_runs() == []


def test_who_loses_what_it_reads_cannot_go_on_and_who_loses_what_it_made_starts_again(
    workspace: Workspace, jobs: FakeJobs
) -> None:
    add_run(workspace)
    job = training(workspace, jobs, "cancelled")
    of_run = plan_removal(workspace, "run", "run").consequences()
    assert of_run == [f"without it, these jobs cannot be resumed: {job}"]
    of_sae = plan_removal(workspace, "SAE", "sae").consequences()
    assert of_sae == [f"without it, these jobs would start again from nothing: {job}"]


def test_unfinished_saes_are_listed_and_removed(
    workspace: Workspace, jobs: FakeJobs, capsys: pytest.CaptureFixture[str]
) -> None:
    add_run(workspace)
    training(workspace, jobs, "failed")
    [row] = told(capsys, "saes")
    assert (row["sae_id"], row["status"]) == ("sae", "unfinished")
    assert main(["saes"]) == 0
    assert "unfinished" in capsys.readouterr().out
    assert told(capsys, "saes", "rm", "sae", "--force")["removed"]
    assert told(capsys, "saes") == []
    assert told(capsys, "runs", "rm", "run")["removed"]


def test_a_failed_job_is_removed_with_what_it_left(
    workspace: Workspace, jobs: FakeJobs, capsys: pytest.CaptureFixture[str]
) -> None:
    job = training(workspace, jobs, "failed")
    assert "can be resumed" in refused(capsys, "jobs", "rm", job)
    removed = told(capsys, "jobs", "rm", job, "--force")["removed"]
    assert removed == ["saes/sae", f"jobs/{job}"]
    assert told(capsys, "jobs") == []
    assert told(capsys, "saes") == []


@pytest.mark.slow
def test_a_job_that_left_nothing_needs_no_force(
    workspace: Workspace, jobs: FakeJobs, capsys: pytest.CaptureFixture[str]
) -> None:
    for status in ("finished", "failed"):
        job = jobs.add(status, "index")
        assert told(capsys, "jobs", "rm", job)["removed"] == [f"jobs/{job}"]
    running = jobs.add("running", "index")
    assert "is active" in refused(capsys, "jobs", "rm", running)


def test_a_run_that_a_capture_can_go_on_with_is_kept_without_force(
    workspace: Workspace, jobs: FakeJobs, capsys: pytest.CaptureFixture[str]
) -> None:
    add_run(workspace, status="running")
    job = jobs.add("cancelled", "capture")
    write_status(
        workspace.jobs_dir / job, {"status": "cancelled", "resumable": True, "output": "run"}
    )
    assert f"needed to resume job {job}" in refused(capsys, "runs", "rm", "run")
    assert told(capsys, "jobs", "rm", job, "--force")["removed"] == [
        "activations/run",
        f"jobs/{job}",
    ]


def test_what_a_failed_job_left_does_not_make_a_workspace_full(
    workspace: Workspace, jobs: FakeJobs
) -> None:
    training(workspace, jobs, "failed")
    (workspace.saes_dir / ".tmp-0123456789ab-x").mkdir()
    assert fresh_workspace(str(workspace.root)).root == workspace.root


@pytest.mark.parametrize("what", ["runs", "saes"])
def test_what_a_command_without_a_job_fills_is_neither_unfinished_nor_removed(
    workspace: Workspace, capsys: pytest.CaptureFixture[str], what: str
) -> None:
    folder = (
        workspace.make_run_dir("it", "") if what == "runs" else workspace.make_sae_dir("it", "")
    )
    (folder / "checkpoints" / "step-40").mkdir(parents=True)
    lock = take_lock(folder / ".lock-foreground")
    assert lock is not None
    assert told(capsys, what) == []
    assert "is being written by a command" in refused(capsys, what, "rm", "it", "--force")
    os.close(lock)
    assert [row["status"] for row in told(capsys, what)] == ["unfinished"]
    assert told(capsys, what, "rm", "it")["removed"]


@pytest.mark.parametrize("name", ["../../keep", "/keep", "..", "", "a/../../../keep", ".hidden"])
def test_a_job_that_names_a_place_outside_cannot_have_it_removed_or_written(
    workspace: Workspace, jobs: FakeJobs, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    outside = workspace.root.parent / "keep"
    outside.mkdir()
    (outside / "thesis.txt").write_text("mine")
    name = name.replace("/keep", str(outside)) if name == "/keep" else name
    add_run(workspace)
    job = jobs.add("lost", "train", params={"run_id": "run", "layer": "l"})
    folder = workspace.jobs_dir / job
    (folder / "output.json").write_text(json.dumps({"what": "sae", "id": name}))
    with pytest.raises(MiCrowError):
        reserve_output(workspace, folder, KINDS["train"], None)
    write_status(folder, {"status": "running", "output": name})
    told(capsys, "jobs", "rm", job, "--force")
    assert (outside / "thesis.txt").read_text() == "mine"
    assert workspace.run_dir("run").is_dir()
    assert sorted(entry.name for entry in workspace.root.parent.iterdir() if entry != outside) == (
        sorted({"w", "xdg_config_home", "xdg_runtime_dir", "xdg_state_home"})
    )
