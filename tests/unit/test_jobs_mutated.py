"""Job folders that something has damaged: every reader says so in a sentence, none breaks."""

import random
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from mi_crow.cli import main
from mi_crow.errors import MiCrowError
from mi_crow.jobs import cancel, follow, resume, scan_jobs, tail_log
from mi_crow.jobs.events import read_events
from mi_crow.jobs.launch import forget
from mi_crow.jobs.status import UNREADABLE
from mi_crow.store.workspace import Workspace
from tests.helpers.jobs_fixture import STATES, FakeJobs
from tests.helpers.mutations import BYTES, odd_file, odd_json, put_back
from tui.screens.runs.history import HistoryReader
from tui.screens.runs.job_view import job_detail
from tui.screens.runs.rows import job_rows
from tui.watch import look
from tui.widgets.frame.endings import ending_line
from tui.widgets.frame.header import running_label

FILES = ("spec.json", "events.jsonl", "status.json", "worker.log", "lock", "cancel", "output.json")
MOST_SECONDS = 20.0  # for all readers of one folder; what hangs takes longer


def mutate(folder: Path, dice: random.Random) -> str:
    """Damages one file of a job's folder; says what was done."""
    path = folder / dice.choice(FILES[:3] if dice.random() < 0.8 else FILES)
    way = dice.random()
    if way < 0.2 or not path.is_file():
        odd_file(path, dice)
        return f"{path.name}: odd file"
    if way < 0.6 and path.suffix in (".json", ".jsonl"):
        path.write_bytes(odd_json(path.read_bytes(), dice))
        return f"{path.name}: odd value"
    change = dice.choice(BYTES)
    path.write_bytes(change(path.read_bytes(), dice))
    return f"{path.name}: {change.__name__}"


def tried(work: Callable[[], Any]) -> Any:
    """What `work` gives; None where it is refused in a sentence of ours."""
    try:
        return work()
    except (MiCrowError, OSError):
        return None


def read_all(
    workspace: Workspace, job_id: str, capsys: pytest.CaptureFixture[str], dice: random.Random
) -> None:
    """Everything that shows jobs or does something about one, and one command of the four."""
    states = scan_jobs(workspace)
    scan = look(workspace, None)
    look(workspace, scan)
    job_rows(scan.jobs)
    running_label(scan.jobs)
    for state in scan.jobs:
        ending_line(state)
        history = tried(partial(HistoryReader(workspace).read, state))
        for tall in (False, True):
            job_detail(state, history, 60, 50, tall=tall)
    folder = workspace.jobs_dir / job_id
    tried(lambda: read_events(folder))
    tried(lambda: tail_log(workspace, job_id))
    arguments = dice.choice(([], ["--json"], ["show", job_id], ["log", job_id]))
    code = main(["--workspace", str(workspace.root), "jobs", *arguments])
    told = capsys.readouterr()
    assert code in (0, 1, 2)
    assert "Traceback" not in told.err
    assert "bug in mi-crow" not in told.err, told.err
    state = next((one for one in states if one.job_id == job_id), None)
    if state is None or state.status == UNREADABLE or not state.active:
        tried(lambda: list(follow(workspace, job_id)))
    tried(lambda: cancel(workspace, job_id))
    tried(lambda: resume(workspace, job_id, runner=("true",)))
    tried(lambda: forget(workspace, job_id))


def check(
    jobs: FakeJobs, capsys: pytest.CaptureFixture[str], tmp_path: Path, seed: int, count: int
) -> None:
    dice = random.Random(seed)
    good = {}
    for status in STATES:
        job_id = jobs.add(status, log="a line\nanother\n")
        good[job_id] = tmp_path / "good" / job_id
        put_back(good[job_id], jobs.workspace.jobs_dir / job_id)
    jobs.close()  # from here on nobody holds a lock: what was active is lost
    for number in range(count):
        job_id = dice.choice(list(good))
        folder = jobs.workspace.jobs_dir / job_id
        done = mutate(folder, dice)
        began = time.perf_counter()
        try:
            read_all(jobs.workspace, job_id, capsys, dice)
        except Exception as error:
            raise AssertionError(f"mutation {number}, {done}: {error!r}") from error
        assert time.perf_counter() - began < MOST_SECONDS, f"mutation {number}, {done}"
        for one in list(jobs.workspace.jobs_dir.iterdir()):
            if one.name not in good:
                raise AssertionError(f"mutation {number}, {done} left {one.name}")
        put_back(folder, good[job_id])


def test_no_damage_to_a_jobs_folder_breaks_a_reader(
    jobs: FakeJobs, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    check(jobs, capsys, tmp_path, seed=1, count=30)


@pytest.mark.slow
def test_no_damage_of_hundreds_breaks_a_reader(
    jobs: FakeJobs, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    check(jobs, capsys, tmp_path, seed=2, count=504)


def test_watching_a_finished_job_without_its_last_event_ends(jobs: FakeJobs) -> None:
    job = jobs.add("finished")
    folder = jobs.workspace.job_dir(job)
    (folder / "status.json").write_text('{"t": 1, "status": "finished", "result": {"x": 1}}')
    (folder / "events.jsonl").unlink()
    event = list(follow(jobs.workspace, job))[-1]
    assert (event["event"], event["result"]) == ("finished", {"x": 1})
