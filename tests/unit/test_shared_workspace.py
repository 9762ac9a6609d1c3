"""A workspace of several people: files follow the umask, and what may not be read is one row."""

import json
import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from mi_crow.cli import main
from mi_crow.cli.doctor_checks import examine
from mi_crow.jobs.device_lock import queue_folder
from mi_crow.jobs.events import append_event
from mi_crow.jobs.process import LOCK_NAME, take_lock
from mi_crow.jobs.spec import JobSpec
from mi_crow.jobs.status import scan_jobs, write_status
from mi_crow.mechanistic.concepts.annotations import Annotations
from mi_crow.store.workspace import Workspace
from tests.helpers.other_user import as_colleague, give_away, needs_root


@pytest.fixture
def group_umask() -> Iterator[None]:
    before = os.umask(0o002)
    yield
    os.umask(before)


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return Workspace.open(tmp_path / "ws")


def add_job(workspace: Workspace, name: str) -> Path:
    folder = workspace.jobs_dir / name
    folder.mkdir(parents=True)
    JobSpec("index", {"sae_id": "sae"}).save(folder)
    append_event(folder, "queued", host="here")
    write_status(folder, {"status": "finished", "done": 3, "total": 3, "unit": "token"})
    lock = take_lock(folder / LOCK_NAME)
    assert lock is not None
    os.close(lock)
    return folder


def test_what_a_job_and_a_tag_write_is_the_groups_with_a_group_umask(
    workspace: Workspace, group_umask: None
) -> None:
    folder = add_job(workspace, "one")
    annotations = Annotations(workspace.annotations_path)
    annotations.set_concept("sae", 1, "sea")
    logs = list(workspace.root.glob("annotations.sqlite*"))
    for path in (*folder.iterdir(), *logs):
        if path.name not in ("status.json", "spec.json"):  # of the umask the process began with
            assert stat.S_IMODE(path.stat().st_mode) == 0o664, path
    annotations.close()


@pytest.mark.slow
def test_one_unreadable_run_sae_or_job_is_one_row_that_says_why(
    workspace: Workspace, capsys: pytest.CaptureFixture[str]
) -> None:
    add_job(workspace, "good")
    for place, marker in (
        (workspace.jobs_dir, "spec.json"),
        (workspace.activations_dir, "manifest.json"),
        (workspace.saes_dir, "cfg.json"),
    ):
        (place / "torn").mkdir(parents=True)
        (place / "torn" / marker).write_text('{"kind": ')
        (place / "strange" / marker).mkdir(parents=True)
    root = str(workspace.root)
    for command, key in (("jobs", "job_id"), ("runs", "run_id"), ("saes", "sae_id")):
        assert main(["--workspace", root, command, "--json"]) == 0
        rows = {row[key]: row for row in json.loads(capsys.readouterr().out)}
        assert "not valid JSON" in rows["torn"]["error"]
        assert "is not a file" in rows["strange"]["error"]
        assert ("good" in rows) == (command == "jobs")
        assert main(["--workspace", root, command]) == 0
        assert "unreadable" in capsys.readouterr().out
    told = [result.found for result in examine(workspace.root) if result.topic == "workspace"]
    assert len(told) == 6


@pytest.mark.slow
@needs_root
def test_a_colleague_sees_all_jobs_though_some_may_not_be_read(workspace: Workspace) -> None:
    open_to_all, closed, old = (add_job(workspace, name) for name in ("open", "closed", "old"))
    closed.chmod(0o700)
    (old / "events.jsonl").chmod(0o600)
    (old / LOCK_NAME).chmod(0o600)
    write_status(old, {"status": "running"})
    (workspace.activations_dir / "secret").mkdir(parents=True, mode=0o700)
    give_away(workspace.root)
    assert open_to_all.exists()
    done = as_colleague("-m", "mi_crow", "--workspace", str(workspace.root), "jobs", "--json")
    assert done.returncode == 0, done.stderr
    rows = {row["job_id"]: row for row in json.loads(done.stdout)}
    assert rows["open"]["status"] == "finished"
    assert rows["closed"]["status"] == "unreadable"
    assert "permission denied" in rows["closed"]["error"].lower()
    assert "permission denied" in rows["old"]["error"].lower()
    done = as_colleague("-m", "mi_crow", "--workspace", str(workspace.root), "runs")
    assert done.returncode == 0
    assert "secret" in done.stdout


@needs_root
def test_a_colleague_of_the_group_may_remove_what_is_not_in_use(
    workspace: Workspace, group_umask: None
) -> None:
    add_job(workspace, "one")
    sae = workspace.saes_dir / "gone"
    sae.mkdir(parents=True)
    (sae / "cfg.json").write_text('{"architecture": "topk", "d_in": 4, "d_sae": 8}')
    workspace.root.chmod(0o775)
    for place in (workspace.root, *workspace.root.rglob("*")):
        os.chown(place, 12_345, 0)  # another user, our group
    done = as_colleague("-m", "mi_crow", "--workspace", str(workspace.root), "saes", "rm", "gone")
    assert done.returncode == 0, done.stderr
    assert not sae.exists()


@needs_root
def test_a_queue_in_a_shared_runtime_folder_is_each_users_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    (tmp_path / "mi-crow").mkdir(mode=0o700)
    os.chown(tmp_path / "mi-crow", 12_345, 12_345)
    folder = queue_folder("cpu")
    assert folder.parent == tmp_path / f"mi-crow-{os.getuid()}"
    assert stat.S_IMODE(folder.parent.stat().st_mode) == 0o700


def test_the_list_says_of_a_job_removed_meanwhile_nothing(workspace: Workspace) -> None:
    add_job(workspace, "one")
    (workspace.jobs_dir / "empty").mkdir()
    assert [job.job_id for job in scan_jobs(workspace)] == ["one"]
