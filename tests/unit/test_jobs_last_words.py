"""Why a job ended can be read also where the disk took no more, or one of its files cannot be
written."""

import contextlib
import os
from io import FileIO, TextIOWrapper
from pathlib import Path

import pytest

from mi_crow.jobs.events import append_event
from mi_crow.jobs.reporter import Reporter
from mi_crow.jobs.spec import JobSpec
from mi_crow.jobs.status import job_state
from mi_crow.store.leftovers import leftovers
from mi_crow.store.workspace import Workspace
from tests.helpers.other_user import needs_root, small_disk


def job_in(workspace: Workspace) -> Path:
    folder = workspace.make_job_dir("train")
    JobSpec("train", {"run_id": "run", "layer": "l"}).save(folder)
    append_event(folder, "queued", host="here")
    return folder


def fill(folder: Path) -> OSError:
    """Takes all the room that is left; the error that told so."""
    try:
        with (folder / "filler").open("wb", buffering=0) as file:
            while True:
                file.write(bytes(4096))
    except OSError as error:
        return error


@needs_root
def test_a_full_disk_is_named_as_the_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with small_disk(tmp_path):
        workspace = Workspace.open(tmp_path / "w")
        folder = job_in(workspace)
        log = os.open(folder / "worker.log", os.O_CREAT | os.O_WRONLY)
        written = TextIOWrapper(FileIO(log, "w"), write_through=True)
        monkeypatch.setattr("sys.stderr", written)
        with Reporter(folder, 1) as reporter:
            reporter.started()
            error = fill(tmp_path)
            with contextlib.suppress(OSError):
                reporter.log("x" * 4096)  # what the work would meet
            reporter.failed(error, "", 1)
        state = job_state(workspace, folder.name)
        assert (state.status, state.resumable) == ("failed", True)
        assert state.error is not None
        assert "is full" in state.error
        assert list(leftovers(workspace.root)) == []
        monkeypatch.undo()
        written.close()


@pytest.mark.slow
@pytest.mark.parametrize("file", ["events.jsonl", "status.json"])
def test_one_file_that_cannot_be_written_does_not_take_the_reason_along(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], file: str
) -> None:
    workspace = Workspace.open(tmp_path / "w")
    folder = job_in(workspace)
    with Reporter(folder, 1) as reporter:
        (folder / file).unlink()
        (folder / file).mkdir()
        reporter.failed(ValueError("the loss is NaN"), "", 1)
    state = job_state(workspace, folder.name)
    assert (state.status, state.error) == ("failed", "the loss is NaN")
    assert "cannot be written" in capsys.readouterr().err
    assert not list(folder.glob(".tmp-*"))
