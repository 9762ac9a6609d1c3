"""What a job's folder shows, in every state and after every kind of death."""

import time
from dataclasses import replace
from pathlib import Path

import pytest

from mi_crow.errors import NotFoundError, UserError
from mi_crow.jobs import cancel, follow, job_state, list_jobs, resume
from mi_crow.jobs.events import append_event, read_events
from mi_crow.jobs.process import ProcessIdentity, is_locked, take_lock
from mi_crow.jobs.spec import JobSpec
from mi_crow.jobs.status import SILENT_S, write_status
from mi_crow.store.workspace import Workspace
from tests.helpers.jobs_fixture import STATES, FakeJobs


@pytest.mark.parametrize("status", STATES)
def test_every_state_is_recognised(jobs: FakeJobs, status: str) -> None:
    assert job_state(jobs.workspace, jobs.add(status)).status == status


def test_a_list_is_oldest_first_and_leaves_out_what_is_no_job(jobs: FakeJobs) -> None:
    second = jobs.add("finished", created=200.0)
    first = jobs.add("failed", created=100.0)
    (jobs.workspace.jobs_dir / "no-spec").mkdir()
    broken = jobs.workspace.jobs_dir / "broken"
    broken.mkdir()
    (broken / "spec.json").write_text("{")
    (jobs.workspace.jobs_dir / "a-file").write_text("")
    assert [state.job_id for state in list_jobs(jobs.workspace)] == [first, second]


def test_a_workspace_without_jobs_has_an_empty_list(tmp_path: Path) -> None:
    assert list_jobs(Workspace(tmp_path)) == []


def test_a_running_job_shows_its_latest_reading(jobs: FakeJobs) -> None:
    job = jobs.add("running", done=1)
    jobs.progress(job, 70, 100, metrics={"fvu": 0.1})
    state = job_state(jobs.workspace, job)
    assert (state.done, state.total, state.unit, state.share) == (70, 100, "step", 0.7)
    assert state.metrics == {"fvu": 0.1}
    assert state.eta_s == 15.0


def test_a_newer_status_wins_over_an_older_progress_event(jobs: FakeJobs) -> None:
    job = jobs.add("running", done=10)
    write_status(jobs.workspace.job_dir(job), {"status": "running", "done": 20, "total": 100})
    assert job_state(jobs.workspace, job).done == 20


def test_a_closing_event_wins_over_a_status_that_was_not_written_any_more(jobs: FakeJobs) -> None:
    job = jobs.add("running")
    folder = jobs.workspace.job_dir(job)
    append_event(folder, "finished", result={"x": 1})
    # The clock stepped back between the two writes.
    write_status(folder, {"t": time.time() + 3600, "status": "running"})
    jobs.release(job)
    state = job_state(jobs.workspace, job)
    assert state.status == "finished"
    assert state.result == {"x": 1}


def test_an_unreadable_status_is_made_up_for_by_the_events(jobs: FakeJobs) -> None:
    job = jobs.add("running", done=33)
    (jobs.workspace.job_dir(job) / "status.json").write_text('{"status": "fin')
    state = job_state(jobs.workspace, job)
    assert (state.status, state.done) == ("running", 33)


def test_a_job_becomes_lost_when_its_lock_is_free(jobs: FakeJobs) -> None:
    job = jobs.add("running")
    jobs.release(job)
    state = job_state(jobs.workspace, job)
    assert state.status == "lost"
    assert state.resumable
    assert not state.active


def elsewhere(jobs: FakeJobs, heartbeat: float) -> str:
    job = jobs.add("lost")
    process = replace(ProcessIdentity.mine(), host="another-host")
    folder = jobs.workspace.job_dir(job)
    append_event(folder, "started", **process.as_json(), attempt=1)
    write_status(
        folder, {"status": "running", "heartbeat": heartbeat, "process": process.as_json()}
    )
    return job


def test_a_job_on_another_host_is_lost_only_after_a_long_silence(jobs: FakeJobs) -> None:
    alive = elsewhere(jobs, time.time() - SILENT_S / 2)
    silent = elsewhere(jobs, time.time() - SILENT_S - 1)
    assert job_state(jobs.workspace, alive).status == "running"
    assert job_state(jobs.workspace, silent).status == "lost"


def test_a_failed_job_says_why(jobs: FakeJobs) -> None:
    state = job_state(jobs.workspace, jobs.add("failed", error="no memory", hint="less"))
    assert (state.error, state.hint, state.exit_code) == ("no memory", "less", 1)


def test_cancel_asks_once_and_then_again(jobs: FakeJobs) -> None:
    job = jobs.add("running")
    assert not cancel(jobs.workspace, job).stopping
    assert job_state(jobs.workspace, job).stopping
    assert cancel(jobs.workspace, job).stopping
    requests = (jobs.workspace.job_dir(job) / "cancel").read_text().count("\n")
    assert requests == 2


@pytest.mark.parametrize("status", ["finished", "failed", "cancelled"])
def test_an_ended_job_cannot_be_cancelled(jobs: FakeJobs, status: str) -> None:
    with pytest.raises(UserError, match="nothing to cancel"):
        cancel(jobs.workspace, jobs.add(status))


def test_cancelling_a_lost_job_closes_it(jobs: FakeJobs) -> None:
    job = jobs.add("lost")
    cancel(jobs.workspace, job)
    state = job_state(jobs.workspace, job)
    assert (state.status, state.resumable, state.done) == ("cancelled", True, 40)
    assert not is_locked(jobs.workspace.job_dir(job) / "lock")


@pytest.mark.parametrize(
    ("status", "says"), [("running", "already running"), ("finished", "finish")]
)
def test_what_runs_or_has_finished_cannot_be_resumed(
    jobs: FakeJobs, status: str, says: str
) -> None:
    job = jobs.add(status)
    before = read_events(jobs.workspace.job_dir(job))
    with pytest.raises(UserError, match=says):
        resume(jobs.workspace, job)
    assert read_events(jobs.workspace.job_dir(job)) == before


def test_a_job_that_still_stops_is_not_said_to_run_on(jobs: FakeJobs) -> None:
    job = jobs.add("running")
    (jobs.workspace.job_dir(job) / "cancel").touch()
    with pytest.raises(UserError, match="still stopping"):
        resume(jobs.workspace, job)


def test_unknown_jobs_and_paths_are_refused_with_the_known_ones(jobs: FakeJobs) -> None:
    job = jobs.add("finished")
    with pytest.raises(NotFoundError, match="not found") as caught:
        job_state(jobs.workspace, "nothing")
    assert job in caught.value.hint
    with pytest.raises(UserError, match="not a valid name"):
        job_state(jobs.workspace, str(jobs.workspace.job_dir(job)))


def test_following_an_ended_job_gives_its_last_attempt_only(jobs: FakeJobs) -> None:
    job = jobs.add("failed")
    folder = jobs.workspace.job_dir(job)
    append_event(folder, "resumed")
    append_event(folder, "started", attempt=2)
    append_event(folder, "finished", result={})
    assert [e["event"] for e in follow(jobs.workspace, job)] == ["resumed", "started", "finished"]


def test_following_a_lost_job_ends_by_saying_so(jobs: FakeJobs) -> None:
    events = list(follow(jobs.workspace, jobs.add("lost")))
    assert events[-1]["event"] == "lost"


def test_a_lock_belongs_to_one_holder_at_a_time(tmp_path: Path) -> None:
    import os

    lock = take_lock(tmp_path / "lock")
    assert lock is not None
    assert is_locked(tmp_path / "lock")
    assert take_lock(tmp_path / "lock", patience_s=0) is None
    os.close(lock)
    assert not is_locked(tmp_path / "lock")


def test_a_process_is_recognised_and_a_reused_number_is_not() -> None:
    me = ProcessIdentity.mine()
    assert me.is_here()
    assert ProcessIdentity.from_json(me.as_json()) == me
    assert not replace(me, pid_start="1").is_here()
    assert not replace(me, boot_id="x").is_here()
    assert not replace(me, host="x").is_here()
    assert ProcessIdentity.from_json({"pid": 1}) is None
    assert not replace(me, pid_start="1").signal(15)


def test_a_spec_of_an_unknown_future_field_is_still_read(jobs: FakeJobs) -> None:
    job = jobs.add("finished")
    path = jobs.workspace.job_dir(job) / "spec.json"
    path.write_text(path.read_text().replace("{", '{"later": 1,', 1))
    assert JobSpec.load(path.parent).kind == "train"


@pytest.mark.parametrize("kind", ["capture", "train", "index", "evaluate", "demo"])
@pytest.mark.parametrize("ending", ["cancelled", "failed"])
def test_a_resumed_job_shows_its_rate_and_the_time_left(
    jobs: FakeJobs, kind: str, ending: str
) -> None:
    job = jobs.add("running", kind=kind)
    folder = jobs.workspace.job_dir(job)
    append_event(folder, "progress", done=10, total=100, unit="step", rate=7.0, eta_s=12.9)
    append_event(folder, ending, resumable=True)
    append_event(folder, "resumed", host="here")
    append_event(folder, "started", **ProcessIdentity.mine().as_json(), attempt=2)
    assert job_state(jobs.workspace, job).rate is None  # nothing of the earlier attempt's
    append_event(folder, "progress", done=20, total=100, unit="step", rate=5.0, eta_s=16.0)
    reading = {"done": 30, "total": 100, "unit": "step", "rate": 5.0, "eta_s": 14.0}
    write_status(folder, {"status": "running", "attempt": 2, **reading})  # newer than all events
    state = job_state(jobs.workspace, job)
    assert (state.status, state.done, state.rate, state.eta_s) == ("running", 30, 5.0, 14.0)
    assert state.as_json()["eta_s"] == 14.0


def test_a_resumed_job_says_what_it_waits_for(jobs: FakeJobs) -> None:
    job = jobs.add("running", kind="train")
    folder = jobs.workspace.job_dir(job)
    append_event(folder, "cancelled", resumable=True)
    append_event(folder, "resumed", host="here")
    waits = {"status": "queued", "attempt": 2, "waiting_for": "job other in workspace w on cpu"}
    write_status(folder, {**waits, "process": ProcessIdentity.mine().as_json()})
    state = job_state(jobs.workspace, job)
    assert (state.status, state.waiting_for) == ("queued", "job other in workspace w on cpu")
