"""What is not read again each second while a job runs."""

from collections import Counter

import pytest

from mi_crow.errors import MachineError
from mi_crow.jobs import list_jobs, removing, status
from mi_crow.jobs.events import append_event
from mi_crow.store.notes import write_note
from mi_crow.store.runs import glance
from mi_crow.store.runs.glance import Glance
from tests.tui.driving import press, screen_text, select, settle
from tui import messages
from tui.screens.runs import history
from tui.screens.runs.charts import RunReading
from tui.screens.runs.history import Subject, SubjectReader
from tui.watch import look


@pytest.fixture
def read(monkeypatch):
    """The names of the jobs whose state was read, and of the folders whose files were counted."""
    names: list[str] = []
    state, counted = status.read_state, removing.folder_bytes

    def reading(folder, **settings):
        names.append(folder.name)
        return state(folder, **settings)

    def counting(folder):
        names.append(folder.name)
        return counted(folder)

    monkeypatch.setattr(status, "read_state", reading)
    monkeypatch.setattr(removing, "folder_bytes", counting)
    return names


def test_jobs_that_ended_are_read_again_when_they_change(app_workspace, fake_jobs, read):
    first = look(app_workspace, None)
    ended = [job.job_id for job in first.jobs if not job.active and job.status != "lost"]
    others = Counter(job.job_id for job in first.jobs if job.job_id not in ended)
    assert len(ended) > 2
    assert others
    running = next(job for job in first.jobs if job.status == "running")
    read.clear()
    fake_jobs.progress(running.job_id, 77)
    second = look(app_workspace, first)
    assert Counter(read) == others
    assert next(job for job in second.jobs if job.status == "running").done == 77
    assert [job for job in second.jobs if job.job_id in ended] == [
        job for job in first.jobs if job.job_id in ended
    ]
    read.clear()
    append_event(app_workspace.job_dir(ended[0]), "resumed", host="here")
    look(app_workspace, second)
    assert Counter(read) == others + Counter(ended[:1])


def test_files_of_an_unfinished_run_are_counted_when_there_are_others(app_workspace, read):
    folder = app_workspace.activations_dir / "stopped" / "tokens"
    folder.mkdir(parents=True)
    (folder / "part-00000.parquet").write_bytes(b"12345")
    first = look(app_workspace, None)
    assert [one.bytes for one in first.unfinished] == [5]
    assert read.count("stopped") == 1
    assert look(app_workspace, first).unfinished == first.unfinished
    assert read.count("stopped") == 1
    (folder / "part-00001.parquet").write_bytes(b"123")
    assert [one.bytes for one in look(app_workspace, first).unfinished] == [8]


@pytest.mark.parametrize("kind", ["run", "SAE"])
def test_the_files_of_a_run_or_an_sae_are_read_when_they_have_changed(
    app_workspace, monkeypatch, kind
):
    runs, saes = app_workspace.list_runs(), app_workspace.list_saes()
    summary = (runs if kind == "run" else saes)[0]
    times = Counter()
    for name in ("read_run", "read_sae"):
        own = getattr(history, name)

        def counting(*arguments, own=own):
            times[kind] += 1
            return own(*arguments)

        monkeypatch.setattr(history, name, counting)
    monkeypatch.setattr(glance, "glance_at", lambda *_: Glance(counted=3))  # they hold no texts
    reader, subject = SubjectReader(), Subject(summary, saes)
    first = reader.read(subject)
    assert reader.read(Subject(summary, list(saes))) == first
    assert times[kind] == 1
    write_note(summary.path, "looks well")
    assert reader.read(subject).note == "looks well"
    assert times[kind] == 2


def test_a_run_that_could_not_be_read_is_tried_again(app_workspace, monkeypatch):
    def look_into(folder, manifest):
        if not tried:
            tried.append(folder)
            raise MachineError("the disk does not answer")
        return Glance(counted=3)

    tried = []
    monkeypatch.setattr(glance, "glance_at", look_into)
    reader = SubjectReader()
    subject = Subject(app_workspace.list_runs()[0], app_workspace.list_saes())
    first, second = reader.read(subject), reader.read(subject)
    assert isinstance(first, RunReading)
    assert isinstance(second, RunReading)
    assert (first.trouble is None, first.glance) == (False, None)
    assert (second.trouble, second.glance) == (None, Glance(counted=3))


async def test_what_a_job_reports_is_not_drawn_for_a_screen_that_is_not_shown(
    app_workspace, run_app, fake_jobs, monkeypatch
):
    async with run_app(app_workspace, size=(200, 60)) as pilot:
        app, runs = pilot.app, pilot.app.screen
        running = next(job for job in list_jobs(app_workspace) if job.status == "running")
        await select(pilot, "jobs", running.job_id)
        await press(pilot, "2")
        drawn: list[str] = []
        for name in ("_show_lists", "_read_detail"):
            own = getattr(runs, name)

            def counting(name=name, own=own):
                drawn.append(name)
                own()

            monkeypatch.setattr(runs, name, counting)
        fake_jobs.progress(running.job_id, 99, metrics={"fvu": 0.125})
        app.look_now()
        await settle(pilot)
        app.context.publish(messages.ConceptsChanged())
        await settle(pilot)
        assert app.context.find_job(running.job_id).done == 99
        assert drawn == []
        await press(pilot, "1")
        await settle(pilot)
        assert drawn[0] == "_show_lists"
        assert "FVU  now 0.125" in screen_text(pilot)
        await press(pilot, "2", "1")
        assert drawn.count("_show_lists") == 1


async def test_a_job_that_ended_is_not_drawn_again_because_another_reports(
    app_workspace, run_app, fake_jobs, monkeypatch
):
    async with run_app(app_workspace, size=(200, 60)) as pilot:
        app, runs = pilot.app, pilot.app.screen
        jobs = list_jobs(app_workspace)
        running = next(job for job in jobs if job.status == "running")
        ended = next(job for job in jobs if job.status == "finished")
        await select(pilot, "jobs", ended.job_id)
        drawn, own = [], runs._draw
        monkeypatch.setattr(runs, "_draw", lambda subject: (drawn.append(subject), own(subject)))

        async def reported(done: int) -> None:
            fake_jobs.progress(running.job_id, done, metrics={"fvu": 0.125})
            app.look_now()
            await settle(pilot)

        await reported(98)
        drawn.clear()
        await reported(99)
        assert app.context.find_job(running.job_id).done == 99
        assert drawn == []
        append_event(app_workspace.job_dir(ended.job_id), "resumed", host="here")
        app.look_now()
        await settle(pilot)
        assert drawn == [("jobs", ended.job_id)]
        await select(pilot, "jobs", running.job_id)
        await reported(90)
        drawn.clear()
        await reported(91)
        assert drawn == [("jobs", running.job_id)]
