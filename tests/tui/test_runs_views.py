"""What Runs shows of a run and of an SAE, and what stands under its lists."""

import json

import pytest

from mi_crow.jobs import list_jobs
from mi_crow.jobs.device_lock import QueueLook
from mi_crow.jobs.events import append_event
from mi_crow.jobs.gauges import Gauges, GpuGauge
from mi_crow.jobs.status import write_status
from tests.tui.conftest import EVALUATION, NOW, add_run
from tests.tui.driving import SIZES, notices, press, screen_text, select, settle
from tests.tui.stand_ins import SAE, give_index
from tui.app import MiCrowApp
from tui.screens.runs import run_view
from tui.screens.runs.sae_view import measured
from tui.widgets.detail_lines import DetailLines
from tui.widgets.forms.popup import FormPopup


async def test_a_run_shows_what_was_captured_and_some_of_its_texts(app_workspace, run_app):
    async with run_app(app_workspace, size=(200, 60)) as pilot:
        await select(pilot, "runs", "demo")
        text = screen_text(pilot)
        for words in (
            "1,024: 922 to train on, 102 held out",
            "Documents by label",
            "harbour   256 ━",
            "128 wide",
            "demo-topk  topk, 2,048 latents  FVU 0.118  L0 16.0  evaluated",
            "Two ships came in before dawn",
            "harbour · 7",
            "context length",
        ):
            assert words in text, words


@pytest.mark.slow
async def test_a_run_whose_documents_are_damaged_says_so_and_shows_the_rest(app_workspace, run_app):
    tokens = app_workspace.run_dir("demo") / "tokens"
    (tokens / "part-000-00000.parquet").write_bytes(b"PAR1 not really")
    async with run_app(app_workspace, size=(200, 60)) as pilot:
        await select(pilot, "runs", "demo")
        text = screen_text(pilot)
        assert "damaged (" in text
        assert "capture the run again" in text
        assert "128 wide" in text
        assert "80,331" in text


@pytest.mark.slow
async def test_texts_are_data(app_workspace, run_app):
    from pyarrow import Table, parquet

    path = app_workspace.run_dir("demo") / "tokens" / "part-000-00000.parquet"
    rows = {"text": ["[bold]x[/] \x1b[31m"], "label": ["[red]\n"], "split": ["train"]}
    parquet.write_table(Table.from_pydict(rows | {"token_ids": [[1, 2]]}), path)
    async with run_app(app_workspace, size=(120, 40)) as pilot:
        await select(pilot, "runs", "demo")
        pilot.app.screen.query_one("#detail").focus()
        await press(pilot, "G")
        text = screen_text(pilot)
        assert "[bold]x[/] ␛[31m" in text
        assert "[red]⏎ · 2 tokens" in text


async def test_an_sae_shows_what_its_file_says_beside_what_was_measured(app_workspace, run_app):
    folder = app_workspace.sae_dir("demo-topk")
    cfg = json.loads((folder / "cfg.json").read_text())
    cfg["metadata"] |= {"context_size": 128, "prepend_bos": True}
    cfg["metadata"]["mi_crow"] |= {"source": "org/saes", "format": "openai", "outlier_norm": 1720.4}
    (folder / "cfg.json").write_text(json.dumps(cfg))
    trained = {"config": {}, "result": {"fvu": 0.131, "l0": 16.3, "dead_share": 0.04}}
    (folder / "training.json").write_text(json.dumps(trained))
    async with run_app(app_workspace, size=(200, 60)) as pilot:
        await select(pilot, "saes", "demo-topk")
        text = screen_text(pilot)
        for words in (
            "16 declared, L0 16.0 measured",
            "org/saes · openai",
            "contexts of 128 tokens, with BOS, tokens up to a",
            "norm of 1720",
            "Its file says",
            "0.118  (0.131 after training)",
            "n i index",
        ):
            assert words in text, words


@pytest.mark.slow
async def test_training_from_an_sae_starts_on_its_run(app_workspace, run_app):
    async with run_app(app_workspace, size=(120, 40)) as pilot:
        await select(pilot, "saes", "smol-sae")
        await press(pilot, "n", "t")
        assert isinstance(pilot.app.screen, FormPopup)
        assert "smol-l15" in screen_text(pilot)


@pytest.mark.slow
async def test_w_on_an_sae_opens_the_export_of_it(app_workspace, run_app):
    async with run_app(app_workspace, size=(120, 40)) as pilot:
        await select(pilot, "saes", "smol-sae")
        assert "w export" in screen_text(pilot)
        await press(pilot, "w")
        assert isinstance(pilot.app.screen, FormPopup)
        assert "smol-sae" in screen_text(pilot)


async def test_a_wide_screen_shows_the_machine_and_the_log_of_the_job_that_runs(
    app_workspace, run_app, monkeypatch
):
    gpu = GpuGauge("0 NVIDIA H200", 0.83, 40_000_000_000, 141_000_000_000)
    gauges = Gauges(16, 2.5, 3_000_000_000, 128_000_000_000, (gpu,), 14_000_000_000, 62_000_000_000)
    monkeypatch.setattr("mi_crow.jobs.gauges.read_gauges", lambda folder=None: gauges)
    queues = [QueueLook("cuda-0", "train-big", "/data/other", ("index-b",))]
    monkeypatch.setattr("mi_crow.jobs.device_lock.look_at_queues", lambda: queues)
    async with run_app(app_workspace, size=(200, 60)) as pilot:
        text = screen_text(pilot)
        for words in (
            "load 2.5 on 16 cores",
            "40.0 GB of 141 GB, 83% busy · NVIDIA H200",
            "14.0 GB of 62.0 GB free",
            "cuda-0: train-big · 1 waiting · workspace /data/other",
            "Log of train smol-sae",
            "step 246 of 600",
        ):
            assert words in text, words
        failed = next(job for job in list_jobs(app_workspace) if job.status == "failed")
        await select(pilot, "jobs", failed.job_id)
        text = screen_text(pilot)
        assert "Log of train wide" in text
        assert text.count("not enough memory [bold]really[/bold]") == 1
        await pilot.resize_terminal(80, 24)
        await settle(pilot)
        assert "This machine" not in screen_text(pilot)


async def test_jobs_of_other_workspaces_that_end_leave_the_queue(
    empty_workspace, run_app, monkeypatch
):
    add_run(empty_workspace, "demo", "sample", NOW)
    queues = [QueueLook("cpu", "train-big", "/data/other", ())]
    monkeypatch.setattr("mi_crow.jobs.device_lock.look_at_queues", lambda: list(queues))
    async with run_app(empty_workspace, size=(200, 60)) as pilot:
        runs = pilot.app.screen
        assert "cpu: train-big" in screen_text(pilot)
        queues[:] = [QueueLook("cpu", "index-b", "/data/other", ())]
        runs.look_at_queues()
        await settle(pilot)
        assert "cpu: index-b" in screen_text(pilot)
        await press(pilot, "2")
        queues.clear()
        await press(pilot, "1")
        assert "cpu:" not in screen_text(pilot)
        read = []
        monkeypatch.setattr(runs, "_read_aside", lambda: read.append(True))
        runs.look_at_queues()
        await settle(pilot)
        assert not read


@pytest.mark.slow
async def test_memory_has_a_chart_and_attempts_are_listed(app_workspace, fake_jobs, run_app):
    running = next(job for job in list_jobs(app_workspace) if job.status == "running")
    for step in (252, 258, 264):
        readings = {"fvu": 0.1, "gpu_memory": step * 1e8, "gpu_memory_peak": 31.5e9}
        fake_jobs.progress(running.job_id, step, 600, "step", readings)
    lost = next(job for job in list_jobs(app_workspace) if job.status == "lost")
    append_event(app_workspace.job_dir(lost.job_id), "resumed")
    append_event(app_workspace.job_dir(lost.job_id), "started", host="node-7", attempt=2)
    async with run_app(app_workspace, size=(200, 60)) as pilot:
        await select(pilot, "jobs", running.job_id)
        text = screen_text(pilot)
        assert "26.4 GB, at most 31.5 GB so far" in text
        assert "GPU memory  now 26.4 GB" in text
        await select(pilot, "jobs", lost.job_id)
        text = screen_text(pilot)
        assert "Attempts" in text
        assert "node-7" in text


@pytest.mark.slow
async def test_nothing_is_drawn_again_while_nothing_happens(app_workspace, run_app):
    async with run_app(app_workspace, size=(200, 60)) as pilot:
        drawn: list[int] = []
        for pane in ("#aside", "#detail"):
            pilot.app.screen.query_one(pane).refresh_line = drawn.append
        for _ in range(3):
            pilot.app.look_now()
            await settle(pilot)
        assert drawn == []


@SIZES
@pytest.mark.parametrize("key", ["demo"])
def test_picture_of_a_run(snap_compare, app_workspace, size, key):
    (app_workspace.sae_dir("smol-sae") / "evaluation.json").write_text(json.dumps(EVALUATION))
    app = MiCrowApp(app_workspace, "demo-topk")

    async def drive(pilot) -> None:
        await settle(pilot)
        await press(pilot, "1")
        await select(pilot, "runs", key)

    assert snap_compare(app, terminal_size=size, run_before=drive)


async def test_a_finished_job_shows_what_it_found_and_what_it_made(
    app_workspace, fake_jobs, run_app
):
    fake_jobs.add(
        "finished",
        "evaluate",
        params={"sae_id": "demo-topk"},
        result={"sae_id": "demo-topk", "fvu": 0.25, "l0": 31.0, "loss_recovered": 0.875},
    )
    async with run_app(app_workspace, size=(200, 60), sae_id=SAE) as pilot:
        give_index(pilot.app)
        await press(pilot, "1")
        job = next(job for job in pilot.app.context.jobs() if job.result and job.kind == "evaluate")
        await select(pilot, "jobs", job.job_id)
        text = screen_text(pilot)
        assert "loss recovered             0.875" in text
        assert text.count("On held-out text") == 1
        assert "topk SAE" in text
        assert "Its features" in text
        await select(pilot, "saes", "demo-topk")
        assert "Its features" in screen_text(pilot)


@pytest.mark.parametrize("rows", ["runs", "saes"])
async def test_a_huge_screen_is_filled(app_workspace, run_app, rows):
    async with run_app(app_workspace, size=(300, 100), sae_id=SAE) as pilot:
        give_index(pilot.app)
        await press(pilot, "1")
        await select(pilot, rows, "demo" if rows == "runs" else SAE)
        pane = pilot.app.screen.query_one("#detail", DetailLines)
        assert pane.row_count > (70 if rows == "runs" else 30)
        assert pane.row_count <= pane.size.height


async def test_the_menu_of_new_things_hears_of_the_first_look(app_workspace, run_app, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(MiCrowApp, "look_now", lambda self: None)
        async with run_app(app_workspace) as pilot:
            assert "no SAE" not in screen_text(pilot)
            await press(pilot, "n")
            assert "needs an SAE" in screen_text(pilot)
            patch.undo()
            pilot.app.look_now()
            await settle(pilot)
            assert "needs an SAE" not in screen_text(pilot)
            await press(pilot, "e")
            assert "Evaluate an SAE" in screen_text(pilot)


@pytest.mark.parametrize("left", [(), ("saved",), ("saved", "sae")])
async def test_a_lost_job_says_why_and_whether_anything_was_saved(fake_jobs, run_app, left):
    workspace = fake_jobs.workspace
    job = fake_jobs.add("lost", "train", name="sae-1")
    folder = workspace.job_dir(job)
    write_status(folder, {"status": "running", "output": "sae-1", "attempt": 1})
    if "saved" in left:
        append_event(folder, "checkpoint", name="step-40")
    if "sae" in left:  # and nobody has removed it
        (workspace.saes_dir / "sae-1" / "checkpoints" / "step-40").mkdir(parents=True)
    says = "R resumes it" if "sae" in left else "R starts it again, nothing was saved"
    async with run_app(workspace, size=(120, 40)) as pilot:
        await select(pilot, "jobs", job)
        assert f"lost · {says}" in screen_text(pilot)
        assert "its process died without reporting why" in screen_text(pilot)


async def test_an_import_that_broke_off_does_not_start_from_nothing(fake_jobs, run_app):
    job = fake_jobs.add("lost", "import", name="sae-1", params={"path": "org/run"})
    async with run_app(fake_jobs.workspace, size=(120, 40)) as pilot:
        await select(pilot, "jobs", job)
        assert "R starts it again, what was downloaded is used" in screen_text(pilot)


async def test_enter_on_an_import_asks_for_its_index(app_workspace, fake_jobs, run_app):
    check = {"check": {"dataset": {"source": "mine.txt"}}}
    job = fake_jobs.add("finished", "import", name="smol-sae", params={"path": "x", **check})
    async with run_app(app_workspace, size=(120, 40)) as pilot:
        await select(pilot, "jobs", job)
        await press(pilot, "enter")
        form = pilot.app.screen
        assert isinstance(form, FormPopup)
        assert form.texts["sae_id"] == "smol-sae"
        assert "mine.txt" in form.texts.values()


async def test_a_job_that_is_lost_is_told_with_the_remedy(app_workspace, fake_jobs, run_app):
    running = next(job for job in fake_jobs._locks if "train" in job)
    async with run_app(app_workspace) as pilot:
        fake_jobs.release(running)
        pilot.app.look_now()
        await settle(pilot)
        told = pilot.app.message_log.read()[0]
        assert told.sentence == "train smol-sae lost: its process died without reporting why"
        assert told.remedy == "R on Runs resumes it"
        assert notices(pilot).endswith("R on Runs resumes it; ! then enter shows the job")


def test_an_evaluation_of_several_layers_says_each():
    found = {
        "fvu": 0.2,
        "layers": [
            {"layer": "base:resid_post.2", "fvu": 0.1825},
            {"layer": "mlp_out.3", "fvu": 0.25, "l0": 4.5, "dead_share": 0.125},
            "damaged",
        ],
        "origins": {"shared": 1700, "base": 12, "tuned": 30, "unclear": 0, "dead": "?"},
    }
    for width in (60, 120):
        text = "\n".join(part.plain for part in measured(found, {}, width))
        lines = [" ".join(line.split()) for line in text.splitlines()]
        assert "base:resid_post.2 FVU 0.182" in lines
        assert "mlp_out.3 FVU 0.250 · L0 4.5 · dead 12.5%" in lines
        assert "shared 1,700 · base 12 · tuned 30 · unclear 0" in lines


def test_the_number_of_equally_frequent_labels_is_said_once():
    assert run_view._label_words({"law": 300, "chess": 300}) == "300 each: law, chess"
    assert run_view._label_words({"law": 300, "chess": 299}) == "law 300 · chess 299"
    assert run_view._label_words({"law": 300}) == "law 300"
    many = run_view._label_words({f"label {n}": 1000 for n in range(40)})
    assert many.startswith("1,000 each: label 0, label 1, ")
    assert many.endswith(" more")
