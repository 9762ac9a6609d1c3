"""The Runs screen: what the workspace holds, live jobs, forms that start them, cancel, resume."""

import pytest
from textual import events
from textual.widgets import Static

from mi_crow.errors import UserError
from mi_crow.jobs import list_jobs
from mi_crow.jobs.spec import JobSpec
from tests.tui.conftest import NOW, add_run, add_sae
from tests.tui.driving import notices, press, screen_text, select, settle
from tui.screens.runs.new_menu import NewMenu
from tui.screens.runs.screen import RunsScreen
from tui.widgets.forms.line import FormInput
from tui.widgets.forms.popup import FormPopup
from tui.widgets.frame.header import HeaderBar
from tui.widgets.frame.popup import Confirm
from tui.widgets.lists.row_list import RowList
from tui.widgets.log_view import LogPopup


def rows(pilot, name: str) -> RowList:
    return pilot.app.screen.query_one(f"#list-{name}", RowList)


async def test_an_empty_workspace_says_what_to_do_next(empty_workspace, run_app, submitted):
    async with run_app(empty_workspace) as pilot:
        text = screen_text(pilot)
        assert "This workspace is empty" in text
        assert "Run the demo" in text
        await press(pilot, "n", "d")
        assert submitted == [
            {"kind": "demo", "params": {"device": "auto"}, "device": "auto", "name": None}
        ]


async def test_all_three_lists_show_what_there_is_newest_first(app_workspace, run_app):
    async with run_app(app_workspace) as pilot:
        assert [row.key for row in rows(pilot, "runs").rows] == ["smol-l15", "demo"]
        assert {row.key for row in rows(pilot, "saes").rows} == {"smol-sae", "demo-topk"}
        kinds = [row.cells[0].text for row in rows(pilot, "jobs").rows]
        assert kinds == ["index", "train", "evaluate", "index", "train", "capture"]
        assert "80,331, 78 per" in screen_text(pilot)


@pytest.mark.slow
async def test_j_walks_from_list_to_list_and_k_back(app_workspace, run_app):
    async with run_app(app_workspace) as pilot:
        await press(pilot, *"jj")
        assert rows(pilot, "saes").has_focus
        await press(pilot, *"jj")
        assert rows(pilot, "jobs").has_focus
        await press(pilot, "k")
        assert rows(pilot, "saes").has_focus
        assert rows(pilot, "saes").cursor == 1


async def test_g_goes_to_the_first_row_of_all_lists_and_G_to_the_last(app_workspace, run_app):
    async with run_app(app_workspace) as pilot:
        await press(pilot, "j", "G")
        assert rows(pilot, "jobs").has_focus
        assert rows(pilot, "jobs").cursor == rows(pilot, "jobs").item_count - 1
        await press(pilot, "g")
        assert rows(pilot, "runs").has_focus
        assert rows(pilot, "runs").cursor == 0
        rows(pilot, "saes").focus()
        await press(pilot, "end")
        assert rows(pilot, "jobs").has_focus


async def test_an_sae_shows_its_evaluation(app_workspace, run_app):
    async with run_app(app_workspace, size=(120, 40)) as pilot:
        rows(pilot, "saes").focus()
        rows(pilot, "saes").select("demo-topk")
        await settle(pilot)
        text = screen_text(pilot)
        assert "loss recovered" in text
        assert "0.994" in text
        assert "3.121 / 3.152 / 8.110" in text
        assert "1      2      5      all" in text
        assert "0.981  0.990  0.997  –" in text
        assert "0.884  0.931  0.975  0.999" in text
        rows(pilot, "saes").select("smol-sae")
        await settle(pilot)
        assert "Not evaluated" in screen_text(pilot)


async def test_a_running_job_shows_its_readings_and_new_ones_as_they_come(
    app_workspace, fake_jobs, run_app
):
    async with run_app(app_workspace, size=(120, 40)) as pilot:
        running = next(job for job in list_jobs(app_workspace) if job.status == "running")
        rows(pilot, "jobs").focus()
        rows(pilot, "jobs").select(running.job_id)
        await settle(pilot)
        text = screen_text(pilot)
        for words in (
            "246 of 600 steps",
            "21.4k",
            "FVU",
            "41%",
            "step 246 of 600",
            "FVU  now",
            "steps",
            "memory",
        ):
            assert words in text, words
        fake_jobs.progress(running.job_id, 300, 600, "step", {"fvu": 0.111, "loss": 0.2})
        pilot.app.look_now()
        await settle(pilot)
        assert "300 of 600 steps" in screen_text(pilot)
        assert "0.111" in screen_text(pilot)
        fake_jobs.finish(running.job_id, {"sae_id": "smol-sae", "fvu": 0.1})
        pilot.app.look_now()
        await settle(pilot)
        assert "finished" in screen_text(pilot)
        assert notices(pilot) == "train finished: the SAE smol-sae; ! then enter opens it"


async def test_a_failed_job_says_why_and_its_log_is_plain_text(app_workspace, run_app):
    async with run_app(app_workspace, size=(120, 40)) as pilot:
        failed = next(job for job in list_jobs(app_workspace) if job.status == "failed")
        rows(pilot, "jobs").focus()
        rows(pilot, "jobs").select(failed.job_id)
        await settle(pilot)
        assert "the device ran out of memory" in screen_text(pilot)
        await press(pilot, "l")
        assert isinstance(pilot.app.screen, LogPopup)
        assert "not enough memory [bold]really[/bold]" in screen_text(pilot)
        (app_workspace.job_dir(failed.job_id) / "worker.log").write_text("another line\n")
        pilot.app.screen._start()
        await settle(pilot)
        assert "another line" in screen_text(pilot)


@pytest.mark.slow
async def test_nothing_is_posted_while_nothing_changes(empty_workspace, run_app, monkeypatch):
    async with run_app(empty_workspace) as pilot:
        published = []
        monkeypatch.setattr(pilot.app.context, "publish", published.append)
        monkeypatch.setattr(HeaderBar, "refresh_lines", published.append)
        for _ in range(3):
            pilot.app.look_now()
            await settle(pilot)
        assert published == []


async def test_a_capture_starts_from_the_form(app_workspace, run_app, submitted):
    async with run_app(app_workspace) as pilot:
        await press(pilot, "n", "c")
        fields = {item.field.name: item for item in pilot.app.screen.query(FormInput)}
        fields["model.model"].value = "sample"
        fields["layers"].value = "resid_post.1, resid_post.2"
        fields["dataset.limit"].value = "2,000"
        fields["name"].value = "two-layers"
        await press(pilot, "ctrl+r")
        assert not isinstance(pilot.app.screen, FormPopup)
        (call,) = submitted
        assert call["kind"] == "capture"
        assert call["params"]["layers"] == ["resid_post.1", "resid_post.2"]
        assert call["params"]["dataset"]["limit"] == 2000
        assert call["params"]["name"] == "two-layers"


@pytest.mark.slow
async def test_a_training_starts_on_the_selected_run(app_workspace, run_app, submitted):
    async with run_app(app_workspace) as pilot:
        await press(pilot, "j", "enter")
        assert isinstance(pilot.app.screen, FormPopup)
        await press(pilot, "ctrl+r")
        (call,) = submitted
        assert call["kind"] == "train"
        assert call["params"]["run_id"] == "demo"
        assert call["params"]["layer"] == "resid_post.2"
        assert call["params"]["training"]["steps"] == 400
        assert call["params"]["training"]["batch_size"] == 2048


@pytest.mark.slow
async def test_index_and_evaluation_start_on_the_selected_sae(app_workspace, run_app, submitted):
    async with run_app(app_workspace) as pilot:
        rows(pilot, "saes").focus()
        rows(pilot, "saes").select("smol-sae")
        await settle(pilot)
        await press(pilot, "n", "i", "ctrl+r", "n", "e", "ctrl+r")
        assert [(call["kind"], call["params"]["sae_id"]) for call in submitted] == [
            ("index", "smol-sae"),
            ("evaluate", "smol-sae"),
        ]


@pytest.mark.slow
async def test_a_wrong_text_stays_in_the_form(app_workspace, run_app, submitted):
    async with run_app(app_workspace) as pilot:
        await press(pilot, "n", "c", *"sample", "tab", "tab", "tab", "x", "ctrl+r")
        assert isinstance(pilot.app.screen, FormPopup)
        assert "documents must be a whole number, not 'x'" in screen_text(pilot)


@pytest.mark.slow
async def test_enter_on_an_sae_opens_its_features(app_workspace, run_app):
    async with run_app(app_workspace) as pilot:
        rows(pilot, "saes").focus()
        rows(pilot, "saes").select("smol-sae")
        await settle(pilot)
        await press(pilot, "enter")
        assert pilot.app.context.sae_id == "smol-sae"
        assert pilot.app.current_mode == "features"


async def test_cancel_asks_first_and_says_what_a_second_one_does(app_workspace, run_app):
    running = next(job for job in list_jobs(app_workspace) if job.status == "running")
    cancel_file = app_workspace.job_dir(running.job_id) / "cancel"
    async with run_app(app_workspace) as pilot:
        rows(pilot, "jobs").focus()
        rows(pilot, "jobs").select(running.job_id)
        await settle(pilot)
        assert "c cancel" in screen_text(pilot)
        assert "r resume" not in screen_text(pilot)
        await press(pilot, "c", "n")
        assert not cancel_file.exists()
        await press(pilot, "c", "y")
        assert cancel_file.exists()
        assert "stopping" in screen_text(pilot)
        await press(pilot, "c")
        assert isinstance(pilot.app.screen, Confirm)
        assert "Stop train smol-sae now?" in screen_text(pilot)


@pytest.mark.slow
async def test_resume_is_for_jobs_that_can_go_on(app_workspace, run_app, monkeypatch):
    resumed = []
    monkeypatch.setattr("mi_crow.jobs.launch.resume", lambda workspace, job: resumed.append(job))
    lost = next(job for job in list_jobs(app_workspace) if job.status == "lost")
    done = next(job for job in list_jobs(app_workspace) if job.status == "finished")
    async with run_app(app_workspace) as pilot:
        rows(pilot, "jobs").focus()
        rows(pilot, "jobs").select(done.job_id)
        await settle(pilot)
        await press(pilot, "R")
        assert resumed == []
        rows(pilot, "jobs").select(lost.job_id)
        await settle(pilot)
        assert "R resume" in screen_text(pilot)
        await press(pilot, "R")
        assert resumed == [lost.job_id]


@pytest.mark.slow
async def test_what_cannot_be_read_is_told_once(app_workspace, run_app, monkeypatch):
    def broken(workspace, before):
        raise UserError("the disk went away [b]")

    async with run_app(app_workspace) as pilot:
        monkeypatch.setattr("tui.workbench.look", broken)
        for _ in range(3):
            pilot.app.look_now()
            await settle(pilot)
        assert notices(pilot) == "the disk went away [b]"
        assert "smol-l15" in screen_text(pilot)


@pytest.mark.slow
async def test_x_removes_an_ended_job_once_it_was_asked(app_workspace, run_app):
    failed = next(job for job in list_jobs(app_workspace) if job.status == "failed")
    folder = app_workspace.job_dir(failed.job_id)
    async with run_app(app_workspace, size=(120, 40)) as pilot:
        rows(pilot, "jobs").focus()
        rows(pilot, "jobs").select(failed.job_id)
        await settle(pilot)
        assert "x remove" in screen_text(pilot)
        await press(pilot, "x")
        assert "Remove" in screen_text(pilot)
        await press(pilot, "escape")
        assert folder.is_dir()
        await press(pilot, "x", "y")
        await settle(pilot)
        assert not folder.exists()
        assert failed.job_id not in [row.key for row in rows(pilot, "jobs").rows]


@pytest.mark.slow
async def test_the_palette_does_not_cancel_what_is_no_job(app_workspace, run_app):
    async with run_app(app_workspace) as pilot:
        await press(pilot, "colon", *"cancel the selected", "enter")
        assert "not possible for what is selected" in notices(pilot)


@pytest.mark.slow
async def test_a_refusal_is_told_in_one_sentence(app_workspace, run_app, monkeypatch):
    def refuse(workspace, job):
        raise UserError("job 'x' is running already [b]", hint="watch it")

    monkeypatch.setattr("mi_crow.jobs.launch.resume", refuse)
    lost = next(job for job in list_jobs(app_workspace) if job.status == "lost")
    async with run_app(app_workspace) as pilot:
        rows(pilot, "jobs").focus()
        rows(pilot, "jobs").select(lost.job_id)
        await settle(pilot)
        await press(pilot, "R")
        assert "job 'x' is running already [b]; watch it" in notices(pilot)


@pytest.mark.slow
async def test_a_job_started_elsewhere_appears_and_a_removed_sae_goes(
    app_workspace, fake_jobs, run_app
):
    async with run_app(app_workspace) as pilot:
        before = len(rows(pilot, "jobs").rows)
        job_id = fake_jobs.add("queued", "train", name="other")
        app_workspace.delete(app_workspace.sae_dir("smol-sae"))
        pilot.app.look_now()
        await settle(pilot)
        assert len(rows(pilot, "jobs").rows) == before + 1
        assert rows(pilot, "jobs").rows[0].key == job_id
        assert [row.key for row in rows(pilot, "saes").rows] == ["demo-topk"]


@pytest.mark.slow
async def test_data_in_names_and_settings_is_never_markup(app_workspace, fake_jobs, run_app):
    folder = app_workspace.make_job_dir("capture-evil")
    spec = {"model": {"model": "[bold red]x[/] \x1b[31m"}, "dataset": {"source": "a\nb"}}
    JobSpec("capture", spec | {"layers": ["[/]"]}, name="evil").save(folder)
    async with run_app(app_workspace, size=(120, 40)) as pilot:
        rows(pilot, "jobs").focus()
        rows(pilot, "jobs").select(folder.name)
        await settle(pilot)
        text = screen_text(pilot)
        assert "[bold red]x[/] ␛[31m" in text
        assert "a⏎b" in text
        assert "[/]" in text


@pytest.mark.slow
async def test_the_screen_stands_at_every_size(app_workspace, run_app):
    async with run_app(app_workspace) as pilot:
        for size in ((40, 12), (80, 24), (119, 35), (120, 36), (200, 60)):
            await pilot.resize_terminal(*size)
            await settle(pilot)
            assert isinstance(pilot.app.screen, RunsScreen)
            lines = screen_text(pilot).splitlines()
            assert all(len(line) <= size[0] for line in lines)
            assert "Jobs" in screen_text(pilot)


@pytest.mark.slow
async def test_ctrl_r_waits_for_what_was_typed_before_it(app_workspace, run_app, submitted):
    async with run_app(app_workspace) as pilot:
        await press(pilot, "n", "c", "tab", *"l.3", "tab", "tab")
        for key in "many":  # as fast as a paste: nothing waits between two keys
            pilot.app.post_message(events.Key(key, key))
        pilot.app.post_message(events.Key("ctrl+r", None))
        await settle(pilot)
        assert "documents must be a whole number, not 'many'" in screen_text(pilot)
        assert not submitted


async def test_a_run_that_a_job_writes_is_not_called_incomplete(app_workspace, run_app, fake_jobs):
    manifest = app_workspace.activations_dir / "demo" / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"complete"', '"writing"'))
    job = fake_jobs.add("running", "capture", name="demo", done=1, total=2)
    async with run_app(app_workspace, size=(120, 40)) as pilot:
        assert "demo  capturing" in screen_text(pilot)
        fake_jobs.release(job)
        pilot.app.look_now()
        await settle(pilot)
        assert "demo  incomplete" in screen_text(pilot)


@pytest.mark.slow
async def test_what_was_never_finished_is_listed_and_x_removes_it_once_asked(
    app_workspace, run_app
):
    begun = app_workspace.saes_dir / "half-done"
    begun.mkdir()
    (begun / "checkpoint.safetensors").write_bytes(b"0" * 2048)
    manifest = app_workspace.activations_dir / "demo" / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"complete"', '"writing"'))
    async with run_app(app_workspace, size=(120, 40)) as pilot:
        assert "demo  incomplete" in screen_text(pilot)
        rows(pilot, "saes").focus()
        rows(pilot, "saes").select("half-done")
        await settle(pilot)
        assert "half-done  unfinished" in screen_text(pilot)
        assert "no job can finish it; x removes it" in screen_text(pilot)
        await press(pilot, "x")
        assert "Remove SAE half-done?" in screen_text(pilot)
        await press(pilot, "n", "c")
        assert begun.is_dir()
        await press(pilot, "x", "y")
        assert not begun.exists()
        assert "half-done" not in [row.key for row in rows(pilot, "saes").rows]


async def test_lists_share_the_lines_of_a_terminal_that_shrank_meanwhile(app_workspace, run_app):
    async with run_app(app_workspace, size=(200, 60)) as pilot:
        jobs = rows(pilot, "jobs")
        jobs.focus()
        await press(pilot, "G", "2")
        await pilot.resize_terminal(40, 10)
        await settle(pilot)
        await press(pilot, "1")
        assert jobs.size.height == 4
        assert jobs.cursor == jobs.item_count - 1
        assert round(jobs.scroll_offset.y) == jobs.item_count - jobs.size.height


async def test_what_is_not_whole_is_not_opened(app_workspace, run_app, fake_jobs):
    for parent in (app_workspace.saes_dir, app_workspace.activations_dir):
        for name in ("half-done", "lone", "fetched", "demo-topk-2"):
            (parent / name).mkdir()
            (parent / name / "begun.safetensors").write_bytes(b"0" * 2048)
    (app_workspace.saes_dir / "damaged").mkdir()
    (app_workspace.saes_dir / "damaged" / "cfg.json").write_text("[")
    fake_jobs.add("cancelled", "train", name="half-done")
    fake_jobs.add("cancelled", "capture", name="half-done")
    fake_jobs.add("cancelled", "import", name="fetched")
    fake_jobs.add("cancelled", "demo")
    async with run_app(app_workspace, size=(120, 40)) as pilot:
        app = pilot.app
        open_one = app.context.sae_id
        for name, key, said in (
            ("saes", "half-done", "opened before it is whole; resume its training with R"),
            ("saes", "lone", "opened before it is whole; no job can finish it; x removes it"),
            ("saes", "fetched", "opened before it is whole; resume its import with R"),
            ("saes", "demo-topk-2", "opened before it is whole; no job can finish it"),
            ("saes", "damaged", "damaged cannot be read; x removes it"),
            ("runs", "half-done", "trained on before it is whole; resume its capture with R"),
            ("runs", "lone", "trained on before it is whole; no job can finish it"),
        ):
            await select(pilot, name, key)
            footer = screen_text(pilot).splitlines()[-1]
            assert "mark" not in footer
            assert "export" not in footer
            await press(pilot, "enter")
            assert said in notices(pilot)
            assert app.current_mode == "runs"
            assert len(app.screen_stack) == 1
        assert app.context.sae_id == open_one
        await select(pilot, "saes", "demo-topk")
        assert "space mark" in screen_text(pilot).splitlines()[-1]


@pytest.mark.slow
async def test_removing_a_run_says_what_needs_it_and_not_while_a_job_does(run_app, fake_jobs):
    workspace = fake_jobs.workspace
    for run_id in ("old", "busy"):
        add_run(workspace, run_id, "sample", NOW)
    add_sae(workspace, "trained", "sample", "old", NOW)
    fake_jobs.add("running", "train", name="new", params={"run_id": "busy"})
    async with run_app(workspace, size=(120, 40)) as pilot:
        rows(pilot, "runs").select("busy")
        await settle(pilot)
        await press(pilot, "x")
        assert "run 'busy' is in use by job" in notices(pilot)
        rows(pilot, "runs").select("old")
        await settle(pilot)
        await press(pilot, "x")
        told = pilot.app.screen.query_one(".hint", Static).render().plain
        assert "index and evaluate need another run: trained" in told
        await press(pilot, "y")
        assert [row.key for row in rows(pilot, "runs").rows] == ["busy"]


@pytest.mark.slow
async def test_the_menu_of_new_things_says_what_is_not_possible_and_why(
    empty_workspace, run_app, submitted
):
    async with run_app(empty_workspace) as pilot:
        await press(pilot, "n")
        assert "Train an SAE on a run" in screen_text(pilot)
        assert "needs a run" in screen_text(pilot)
        await press(pilot, "t")
        assert isinstance(pilot.app.screen, NewMenu)
        assert "needs a run" in notices(pilot)
        await press(pilot, "G", "enter")
        assert [call["kind"] for call in submitted] == ["demo"]
