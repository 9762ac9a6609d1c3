"""What a job's events say of its attempts, of the memory it takes, and of the devices in use."""

import json
import sys
from pathlib import Path

import pytest

from mi_crow.cli.entry import run_command_line
from mi_crow.jobs.device_lock import DeviceQueue, look_at_queues, queue_folder
from mi_crow.jobs.events import append_event, attempts_of, read_events
from mi_crow.jobs.gauges import Gauges, GpuGauge
from mi_crow.jobs.reporter import Reporter
from mi_crow.store.workspace import Workspace
from tests.helpers.jobs_fixture import FakeJobs, own_queues


@pytest.fixture(autouse=True)
def _own_queues(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own_queues(tmp_path, monkeypatch)


def printed(capsys: pytest.CaptureFixture[str], *arguments: str):
    assert run_command_line(arguments) == 0
    return json.loads(capsys.readouterr().out)


def test_an_attempt_that_ended_without_a_word_is_lost(tmp_path: Path):
    append_event(tmp_path, "queued", host="a")
    append_event(tmp_path, "started", host="node-1", attempt=1)
    append_event(tmp_path, "progress", done=40, total=100, unit="step", metrics={})
    append_event(tmp_path, "resumed")
    append_event(tmp_path, "started", host="node-2", attempt=2)
    append_event(tmp_path, "failed", error="no memory", hint="", exit_code=1)
    first, second = attempts_of(read_events(tmp_path))
    assert (first.number, first.status, first.host, first.done) == (1, "lost", "node-1", 40)
    assert (second.number, second.status, second.error) == (2, "failed", "no memory")
    assert second.started is not None
    assert second.ended is not None


def test_jobs_show_lists_the_attempts(workspace: Workspace, capsys):
    jobs = FakeJobs(workspace)
    job = jobs.add("cancelled", "train", name="deep")
    folder = workspace.job_dir(job)
    append_event(folder, "resumed")
    append_event(folder, "started", host="node-2", attempt=2)
    shown = printed(capsys, "jobs", "show", job, "--workspace", str(workspace.root), "--json")
    assert [one["status"] for one in shown["attempts"]] == ["cancelled", "lost"]
    assert run_command_line(["jobs", "show", job, "--workspace", str(workspace.root)]) == 0
    assert "attempt 2" in capsys.readouterr().out


@pytest.mark.skipif(sys.platform != "linux", reason="the system does not tell")
def test_a_job_records_its_memory_with_its_readings(tmp_path: Path):
    reporter = Reporter(tmp_path, 1)
    reporter.update(1, 2, "step", {"fvu": 0.5})
    (event,) = read_events(tmp_path)
    assert event["metrics"]["fvu"] == 0.5
    assert event["metrics"]["memory_peak"] >= event["metrics"]["memory"] > 1 << 20


def test_the_log_says_what_a_job_waits_for_and_when_it_begins(tmp_path: Path, capsys):
    with Reporter(tmp_path, 1) as reporter:
        reporter.waiting("job a on cpu")
        reporter.waiting("job a on cpu")
        reporter.started()
    lines = [line.split(" ", 1)[1] for line in capsys.readouterr().err.splitlines()]
    assert lines[:2] == ["waits for job a on cpu", "begins"]


def test_the_memory_that_a_rank_tells_is_not_mixed_with_that_of_its_parent(tmp_path: Path):
    Reporter(tmp_path, 1).update(1, 2, "step", {"gpu_memory": 5e9})
    (event,) = read_events(tmp_path)
    assert event["metrics"] == {"gpu_memory": 5e9}


def test_jobs_devices_says_who_has_a_device_and_who_waits(
    workspace: Workspace, tmp_path: Path, capsys, monkeypatch
):
    gauges = Gauges(2, 0.5, 1 << 30, 1 << 33, (GpuGauge("0 NVIDIA H200", 0.83, 1 << 30, 1 << 36),))
    monkeypatch.setattr("mi_crow.cli.devices.read_gauges", lambda _: gauges)
    arguments = ("jobs", "devices", "--workspace", str(workspace.root))
    assert printed(capsys, *arguments, "--json")["queues"] == []
    holder = DeviceQueue(("cuda:0",), 1.0, "train-a", tmp_path / "other")
    waiting = DeviceQueue(("cuda:0",), 2.0, "index-b", workspace.root)
    holder.join()
    assert holder.try_enter()
    waiting.join()
    (queue_folder("cuda:0") / "ticket-00000000000000000009-1-dead").touch()
    found = printed(capsys, *arguments, "--json")
    assert found["gpus"][0] | {"device": "cuda-0", "name": "NVIDIA H200"} == found["gpus"][0]
    assert found["queues"] == [
        {
            "device": "cuda-0",
            "job_id": "train-a",
            "workspace": str(tmp_path / "other"),
            "waiting": ["index-b"],
        }
    ]
    assert run_command_line(arguments) == 0
    text = capsys.readouterr().out
    assert "83% busy" in text
    assert "train-a" in text
    holder.leave()
    waiting.leave()
    assert look_at_queues() == []
