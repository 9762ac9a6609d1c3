"""The right side of the Runs screen: charts, notes, names, what is drawn again and what is not."""

import json
import shutil
from threading import Event

import pytest

from mi_crow.causes import sentence_of
from mi_crow.cli.commands.jobs import _row
from mi_crow.errors import NotFoundError
from mi_crow.jobs import job_state, list_jobs, tail_log
from mi_crow.jobs.demo.run import STAGES, run_demo, stage_in
from mi_crow.jobs.events import EVENTS_NAME, append_event
from mi_crow.jobs.kinds import KINDS
from mi_crow.jobs.process import ProcessIdentity
from mi_crow.jobs.reporter import Reporter
from mi_crow.mechanistic.sae.train.metrics import MetricsTable
from mi_crow.progress import NullProgress
from mi_crow.store.notes import read_note
from tests.tui.conftest import NOW, add_sae
from tests.tui.driving import SIZES, drawn, press, screen_text, select, settle
from tui import messages
from tui.app import MiCrowApp
from tui.screens.runs import history
from tui.screens.runs.detail import plain_facts
from tui.screens.runs.history import HistoryReader, read_sae
from tui.screens.runs.job_view import in_words, job_detail
from tui.screens.runs.rows import job_rows
from tui.widgets.detail_lines import DetailLines
from tui.widgets.lists.row_list import RowList
from tui.widgets.log_view import LogPopup, LogText


@pytest.fixture
def trained_workspace(app_workspace):
    """The second SAE knows how it was trained; a third one on its layer was evaluated."""
    add_trained(app_workspace, "smol-sae")
    evaluation = {"fvu": 0.21, "l0": 31.5, "dead_share": 0.02}
    add_sae(
        app_workspace,
        "smol-sparse",
        "HuggingFaceTB/SmolLM2-135M-Instruct",
        "smol-l15",
        NOW - 2000,
        evaluation,
    )
    return app_workspace


def add_trained(workspace, sae_id: str) -> None:
    folder = workspace.sae_dir(sae_id)
    result = {"fvu": 0.1834, "l0": 16.2, "dead_share": 0.05, "seconds": 60.0}
    training = {"config": {"arch": "topk", "training": {"lr": 0.0004}}, "result": result}
    (folder / "training.json").write_text(json.dumps(training))
    rows = [
        {
            "step": step,
            "fvu": 1 / (1 + step / 50),
            "l0": 16.0,
            "heldout_fvu": 0.2 + 10 / (step + 20),
        }
        for step in range(0, 600, 20)
    ]
    MetricsTable(rows).write(folder / "metrics.parquet")


async def test_what_a_job_reports_does_not_bring_the_detail_before_the_cursor_rests(
    app_workspace, run_app, monkeypatch
):
    async with run_app(app_workspace, size=(200, 60)) as pilot:
        screen = pilot.app.screen
        await select(pilot, "saes", "demo-topk")
        before = screen._shown_subject
        monkeypatch.setitem(screen._rests, "detail", (0.0, None))  # it goes on moving
        await press(pilot, "j")
        screen.on_jobs_changed(messages.JobsChanged(pilot.app.context.jobs()))
        await settle(pilot)
        assert screen._shown_subject == before
        _, rested = screen._rests.pop("detail")
        rested()
        await settle(pilot)
        assert screen._shown_subject == (screen._current, screen._key) != before


async def test_what_follows_a_cursor_comes_after_a_frame_that_was_drawn_late(
    app_workspace, run_app, monkeypatch
):
    async with run_app(app_workspace) as pilot:
        screen = pilot.app.screen
        monkeypatch.setitem(screen._rests, "late", (0.0, None))  # no thread of its own
        monkeypatch.setattr("tui.threads.monotonic", lambda: 100.0)
        screen.when_rested("late", print)
        asked = screen._rests["late"][0]
        monkeypatch.setattr("tui.threads.monotonic", lambda: 200.0)
        screen.query_one("#list-runs").refresh()
        await drawn(pilot.app)
        assert asked < 101
        assert screen._rests["late"] == (pytest.approx(200, abs=1), print)


async def test_an_export_is_offered_on_what_can_be_exported(app_workspace, run_app):
    async with run_app(app_workspace, size=(200, 60)) as pilot:
        offered = []
        for name in ("runs", "saes", "jobs"):
            rows = pilot.app.screen.query_one(f"#list-{name}", RowList)
            await select(pilot, name, rows.rows[0].key)
            offered.append("w export" in screen_text(pilot).splitlines()[-1])
        assert offered == [False, True, False]


def test_numbers_that_name_something_are_written_without_commas():
    said = in_words({"steered": {"feature": 1425, "seed": 1234, "tokens": 1234}})["steered"]
    assert said == {"feature": "#1425", "seed": "1234", "tokens": "1,234"}


def test_charts_are_over_what_most_readings_were_taken_over(app_workspace, fake_jobs):
    running = next(job for job in list_jobs(app_workspace) if job.status == "running")
    (app_workspace.job_dir(running.job_id) / "events.jsonl").write_text("")
    fake_jobs.progress(running.job_id, 1, 600, "document", {"tokens_s": 1.0})
    for done in (10_000, 20_000, 30_000):
        fake_jobs.progress(running.job_id, done, 40_000, "token", {"tokens_s": done / 2})
    fake_jobs.progress(running.job_id, 64, 1_536, "features", {"memory": 1e9})
    found = HistoryReader(app_workspace).read(running)
    assert found.over == ("token", 40_000.0)
    assert found.series == {"tokens_s": ((10_000.0, 5e3), (20_000.0, 1e4), (30_000.0, 1.5e4))}


def test_a_demo_says_what_it_does_from_its_first_event(app_workspace, fake_jobs):
    job_id = fake_jobs.add("running", "demo", done=0, total=0)
    reader, folder = HistoryReader(app_workspace), app_workspace.job_dir(job_id)
    reporter = Reporter(folder, 1, KINDS["demo"].stage_in)
    reporter.started()

    def said() -> str:
        job = job_state(app_workspace, job_id)
        return job_detail(job, reader.read(job), 80, 24, tall=False).plain

    def row() -> str:
        name, state, *_ = job_rows([job_state(app_workspace, job_id)])[0].cells
        return "".join([name.text, *(text for text, _ in name.more), " | ", state.text])

    class Told(NullProgress):
        def log(self, message: str) -> None:
            reporter.log(message)
            raise InterruptedError

    with pytest.raises(InterruptedError):  # before anything is imported or loaded
        run_demo(app_workspace, Told())
    assert "running · loading the model" in said()
    assert row() == "demo  loading the model | running"
    assert "loading the model" in _row(job_state(app_workspace, job_id))[-1]  # mi-crow jobs
    reporter.log("capture starts")
    reporter.log("capture: part 1 starts")
    fake_jobs.progress(job_id, 3, unit="%")
    assert "running · capturing" in said()
    assert row().startswith("demo  capturing | ")
    (folder / EVENTS_NAME).write_text("")  # the status says so too, however long ago it began
    assert "running · capturing" in said()
    append_event(folder, "resumed", host="here")
    append_event(folder, "started", **ProcessIdentity.mine().as_json(), attempt=2)
    assert "capturing" not in said()
    assert row().startswith("demo | ")
    assert {stage_in(f"{name} starts") for name in STAGES}.isdisjoint({""})


def test_a_resumed_job_shows_no_reading_of_its_earlier_attempt_as_now(app_workspace, fake_jobs):
    running = next(job for job in list_jobs(app_workspace) if job.status == "running")
    folder = app_workspace.job_dir(running.job_id)
    for done in (50, 60):
        fake_jobs.progress(running.job_id, done, metrics={"fvu": 0.25, "l0": 16.0})
    reader = HistoryReader(app_workspace)

    def said() -> str:
        job = job_state(app_workspace, running.job_id)
        return job_detail(job, reader.read(job), 120, 40, tall=True).plain

    assert "FVU  now 0.25" in said()
    append_event(folder, "cancelled", resumable=True)
    assert "FVU  last 0.25" in said()
    append_event(folder, "resumed", host="here")
    append_event(folder, "started", **ProcessIdentity.mine().as_json(), attempt=2)
    assert job_state(app_workspace, running.job_id).metrics == {}
    assert "FVU" in said()
    assert "now" not in said()
    fake_jobs.progress(running.job_id, 70, metrics={"fvu": 0.125})
    assert "FVU  now 0.125" in said()
    assert "L0  now" not in said()


async def test_an_sae_that_was_not_evaluated_shows_what_its_training_measured(
    trained_workspace, run_app
):
    async with run_app(trained_workspace, size=(200, 60)) as pilot:
        await select(pilot, "saes", "smol-sae")
        text = screen_text(pilot)
        assert "Held out, after training" in text
        assert "0.183" in text
        row = next(row for row in pilot.app.screen.query_one("#list-saes", RowList).rows)
        assert [(c.text, c.style) for c in row.cells if c.text == "0.183"] == [
            ("0.183", "italic $muted")
        ]
        assert "FVU against L0 on this layer" in text
        assert "(2 SAEs)" in text
        assert "◆" in text
        assert "held-out FVU" in text
        assert "0.0004" in text


@pytest.mark.slow
async def test_damaged_files_of_a_training_leave_the_rest_standing(trained_workspace, run_app):
    folder = trained_workspace.sae_dir("smol-sae")
    (folder / "training.json").write_text("[1")
    (folder / "metrics.parquet").write_bytes(b"PAR1 not really")
    async with run_app(trained_workspace, size=(200, 60)) as pilot:
        await select(pilot, "saes", "smol-sae")
        text = screen_text(pilot)
        assert "2,048 from 128 inputs" in text
        assert "Not evaluated" in text
        assert "after training" not in text


@pytest.mark.slow
async def test_r_gives_an_sae_another_name_and_the_cursor_stays_on_it(app_workspace, run_app):
    add_sae(app_workspace, "spare", "sample", "demo", NOW - 500)
    async with run_app(app_workspace, size=(120, 40)) as pilot:
        await select(pilot, "saes", "spare")
        await press(pilot, "r")
        field = pilot.app.screen.query_one("#field-name")
        field.value = "not a name!"
        await press(pilot, "ctrl+r")
        assert "not a name!" in screen_text(pilot)
        field.value = "harbour"
        await press(pilot, "ctrl+r")
        pilot.app.look_now()
        await settle(pilot)
        assert (app_workspace.saes_dir / "harbour" / "cfg.json").is_file()
        assert pilot.app.screen.query_one("#list-saes", RowList).key == "harbour"


async def test_the_open_sae_stays_open_when_renamed_and_another_one_is_when_removed(
    empty_workspace, run_app
):
    for name in ("demo-topk", "smol-sae"):
        add_sae(empty_workspace, name, "sample", "demo", NOW)
    async with run_app(empty_workspace, size=(120, 40), sae_id="smol-sae") as pilot:
        context = pilot.app.context
        await press(pilot, "1")
        await select(pilot, "saes", "smol-sae")
        await press(pilot, "r")
        pilot.app.screen.query_one("#field-name").value = "harbour"
        await press(pilot, "ctrl+r")
        pilot.app.look_now()
        await settle(pilot)
        assert context.sae_id == "harbour"
        assert "harbour ◂ open" in screen_text(pilot)
        for open_one in ("demo-topk", None):
            await press(pilot, "x", "y")
            pilot.app.look_now()
            await settle(pilot)
            assert context.sae_id == open_one
            assert context.features is None
            header = screen_text(pilot).splitlines()[0]
            assert "harbour" not in header
        for key in "23456":
            await press(pilot, key)
        assert pilot.app.current_mode == "control"


@pytest.mark.slow
async def test_e_writes_a_note_that_the_pane_shows(app_workspace, run_app):
    async with run_app(app_workspace, size=(120, 40)) as pilot:
        await select(pilot, "runs", "demo")
        await press(pilot, "e")
        pilot.app.screen.query_one("#field-note").value = "the \x1b[31mfirst one"
        await press(pilot, "ctrl+r")
        await settle(pilot)
        assert "first one" in read_note(app_workspace.run_dir("demo"))
        assert "first one" in screen_text(pilot)


async def test_a_reading_draws_the_lines_that_it_changes(app_workspace, fake_jobs, run_app):
    async with run_app(app_workspace, size=(200, 60)) as pilot:
        running = next(job for job in list_jobs(app_workspace) if job.status == "running")
        await select(pilot, "jobs", running.job_id)
        pane = pilot.app.screen.query_one(DetailLines)
        drawn: list[int] = []
        pane.refresh_line = drawn.append  # type: ignore[method-assign]
        readings = {"fvu": 0.119, "loss": 0.13, "l0": 16.0, "dead_share": 0.04, "tokens_s": 21_400}
        fake_jobs.progress(running.job_id, 252, 600, "step", readings)
        pilot.app.look_now()
        await settle(pilot)
        assert 0 < len(drawn) <= 12 < pane.row_count
        drawn.clear()
        pilot.app.look_now()
        await settle(pilot)
        assert drawn == []


@pytest.mark.slow
async def test_a_log_that_grows_draws_the_new_line_only(app_workspace, run_app):
    async with run_app(app_workspace, size=(120, 40)) as pilot:
        job = next(job for job in list_jobs(app_workspace) if job.status == "failed")
        await select(pilot, "jobs", job.job_id)
        await press(pilot, "l")
        popup, view = pilot.app.screen, pilot.app.screen.query_one(LogText)
        assert isinstance(popup, LogPopup)
        drawn: list[tuple[int, int]] = []
        view.refresh_lines = lambda at, many=1: drawn.append((at, many))
        log = app_workspace.job_dir(job.job_id) / "worker.log"
        log.write_text(log.read_text() + "one more\n")
        popup._start()
        await settle(pilot)
        assert drawn == [(2, 1)]
        log.write_text(log.read_text() + "".join(f"line {at}\n" for at in range(100)))
        popup._start()
        await settle(pilot)
        assert "line 99" in screen_text(pilot)
        await press(pilot, "g")
        log.write_text(log.read_text() + "the end\n")
        popup._start()
        await settle(pilot)
        assert "the end" not in screen_text(pilot)  # scrolled up, it stays where it is


async def test_a_log_whose_job_is_removed_keeps_what_was_read_and_says_why_in_whole(
    app_workspace, run_app
):
    async with run_app(app_workspace, size=(80, 24)) as pilot:
        job = next(job for job in list_jobs(app_workspace) if job.status == "failed")
        last = tail_log(app_workspace, job.job_id, 1)[0]
        await select(pilot, "jobs", job.job_id)
        await press(pilot, "l")
        popup = pilot.app.screen
        assert isinstance(popup, LogPopup)
        assert last in screen_text(pilot)
        shutil.rmtree(app_workspace.job_dir(job.job_id))
        popup._start()
        await settle(pilot)
        view = popup.query_one(LogText)
        said = " ".join(line.plain for line in view._lines)
        assert last in said
        with pytest.raises(NotFoundError) as caught:
            tail_log(app_workspace, job.job_id, 1)
        assert " ".join(sentence_of(caught.value).split()) in said
        assert all(line.cell_length <= view.text_width for line in view._lines)


@SIZES
def test_picture_of_a_trained_sae(snap_compare, trained_workspace, size):
    app = MiCrowApp(trained_workspace, "demo-topk")

    async def drive(pilot) -> None:
        await settle(pilot)
        await press(pilot, "1")
        await select(pilot, "saes", "smol-sae")

    assert snap_compare(app, terminal_size=size, run_before=drive)


async def test_the_pane_below_waits_for_the_detail_that_changes_it(
    app_workspace, run_app, monkeypatch
):
    async with run_app(app_workspace, size=(200, 60)) as pilot:
        screen, shown = pilot.app.screen, []
        monkeypatch.setattr(DetailLines, "show", lambda pane, *_: shown.append(pane.id))
        screen._look_at_room()
        assert shown == ["aside"]
        screen._shown_subject = ("saes", "the row before")
        screen._look_at_room()
        assert shown == ["aside"]


@pytest.mark.slow
async def test_a_slow_disk_does_not_leave_another_row_in_the_pane(
    app_workspace, run_app, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is known without the disk stands there until the rest is read."""
    asked, goes_on = Event(), Event()

    def slow(sae, saes):
        asked.set()
        goes_on.wait(60)
        return read_sae(sae, saes)

    monkeypatch.setattr(history, "read_sae", slow)
    async with run_app(app_workspace) as pilot:
        try:
            await pilot.press("j", "j")
            while not (asked.is_set() and "topk SAE" in screen_text(pilot)):
                await pilot.pause(0.05)
        finally:
            goes_on.set()


def test_what_an_inner_object_repeats_is_said_once():
    facts = plain_facts(
        {"sae_id": "a1", "seconds": 30.0, "names": {"sae_id": "a1", "seconds": 2.0}}
    )
    assert [(one.name, one.value) for one in facts] == [
        ("sae id", "a1"),
        ("seconds", "30"),
        ("names seconds", "2"),
    ]
