"""Marked SAEs on Runs, and their comparison: table, overlaid curves, FVU against L0."""

import json
import math
import shutil

import pytest

from mi_crow.jobs.renaming import rename_sae
from mi_crow.mechanistic.sae.evaluation.standing import Standing
from mi_crow.mechanistic.sae.train.metrics import MetricsTable
from tests.tui.conftest import EVALUATION, NOW, add_sae
from tests.tui.driving import SIZES, notices, press, screen_text, select, settle
from tui.app import MiCrowApp
from tui.screens.runs.charts import Sign, which_k_chart
from tui.screens.runs.compare_popup import SaeComparePopup
from tui.screens.runs.figures.covered import covered
from tui.state import StateFile
from tui.widgets.lists.row_list import RowList

# name, steps, batch size, what FVU and L0 tend to
TRAINED = (
    ("sweep-k8", 600, 2048, 0.31, 8.0),
    ("sweep-k16", 600, 2048, 0.19, 16.1),
    ("sweep-k64", 300, 4096, 0.08, 63.2),
)


def add_trained(workspace, name: str, steps: int, batch: int, fvu: float, l0: float) -> None:
    add_sae(workspace, name, "sample", "demo", NOW - 3000 + steps)
    folder = workspace.sae_dir(name)
    result = {"fvu": fvu, "l0": l0, "dead_share": 0.05, "seconds": 61.0, "steps": steps}
    result["tokens"] = steps * batch
    training = {"config": {"arch": "topk", "training": {}}, "result": result}
    (folder / "training.json").write_text(json.dumps(training))
    rows = []
    for step in range(0, steps + 1, 20):
        now = fvu + (1 - fvu) * math.exp(-step / 60)
        tokens = step * batch
        rows.append({"step": step, "tokens": tokens, "fvu": now, "heldout_fvu": now, "l0": l0})
    MetricsTable(rows).write(folder / "metrics.parquet")


@pytest.fixture
def sweep(app_workspace):
    """Three SAEs of a sweep beside the evaluated one, all on one layer."""
    for one in TRAINED:
        add_trained(app_workspace, *one)
    return app_workspace


async def test_an_open_comparison_shows_what_is_evaluated_or_removed_meanwhile(sweep, run_app):
    async with run_app(sweep, size=(120, 40)) as pilot:
        for name in ("sweep-k8", "sweep-k16", "sweep-k64"):
            await select(pilot, "saes", name)
            await press(pilot, "space")
        await press(pilot, "equals_sign")
        assert "0.118" not in screen_text(pilot)
        shutil.rmtree(sweep.sae_dir("sweep-k64"))
        evaluated = sweep.sae_dir("sweep-k16") / "evaluation.json"
        evaluated.write_text(json.dumps(EVALUATION))
        pilot.app.look_now()
        await settle(pilot)
        popup, text = pilot.app.screen, screen_text(pilot)
        assert isinstance(popup, SaeComparePopup)
        assert popup.query_one(RowList).has_focus
        assert "2 SAEs" in text
        assert "sweep-k64" not in text
        assert "0.118" in text
        assert "probes" in text
        evaluated = sweep.sae_dir("sweep-k8") / "evaluation.json"
        evaluated.write_text(json.dumps({**EVALUATION, "fvu": 0.2221}))
        pilot.app.look_now()
        await settle(pilot)
        assert "0.222" in screen_text(pilot)
        rename_sae(sweep, "sweep-k8", "harbour")
        pilot.app.look_now()
        await settle(pilot)
        assert "harbour" in screen_text(pilot)
        assert "2 SAEs" in screen_text(pilot)
        shutil.rmtree(sweep.sae_dir("sweep-k16"))
        pilot.app.look_now()
        await settle(pilot)
        assert "SAEs  1" in screen_text(pilot)
        assert "1 SAE on" in screen_text(pilot)
        await press(pilot, "escape")
        assert isinstance(pilot.app, MiCrowApp)
        assert popup not in pilot.app.context._listeners


async def test_the_table_has_what_a_sweep_chooses_its_k_by(sweep, run_app):
    folder = sweep.sae_dir("sweep-k8")
    (folder / "evaluation.json").write_text(json.dumps({**EVALUATION, "c_dec": 0.0317}))
    async with run_app(sweep, size=(80, 24)) as pilot:
        for name in ("sweep-k8", "sweep-k64"):
            await select(pilot, "saes", name)
            await press(pilot, "space")
        await press(pilot, "equals_sign")
        heading, first, second = screen_text(pilot).splitlines()[2:5]
        assert heading.split()[-4:-1] == ["dead", "c_dec", "probes"]
        known = next(line for line in (first, second) if "sweep-k8" in line)
        assert known.split()[-3:-1] == ["0.032", "0.990"]


async def test_marked_saes_are_compared_and_enter_selects_one(sweep, run_app):
    async with run_app(sweep, size=(120, 40)) as pilot:
        rows = await select(pilot, "saes", "sweep-k8")
        await press(pilot, "space")
        await select(pilot, "saes", "sweep-k64")
        await press(pilot, "space")
        assert screen_text(pilot).count("● sweep-") == 2
        await press(pilot, "equals_sign")
        popup = pilot.app.screen
        assert isinstance(popup, SaeComparePopup)
        table = popup.query_one("#comparing-table", RowList)
        assert {row.key for row in table.rows} == {"sweep-k8", "sweep-k64"}
        text = screen_text(pilot)
        for words in ("2 SAEs on model.layers.2 of sample", "0.310", "63.2", "1.23M", "held-out"):
            assert words in text, words
        assert "(4 SAEs)" in text  # the front shows every SAE on the layer
        table.select("sweep-k8")
        await press(pilot, "enter")
        assert rows.key == "sweep-k8"
        assert rows.has_focus


@pytest.mark.slow
async def test_without_marks_all_on_the_layer_are_compared(sweep, run_app):
    async with run_app(sweep, size=(120, 40)) as pilot:
        await select(pilot, "saes", "sweep-k16")
        await press(pilot, "equals_sign")
        table = pilot.app.screen.query_one("#comparing-table", RowList)
        names = {name for name, *_ in TRAINED}
        assert {row.key for row in table.rows} == {"demo-topk", *names}
        assert "0.994" in screen_text(pilot)  # loss recovered, of the evaluated one


@pytest.mark.slow
async def test_each_curve_carries_the_letter_of_its_row(sweep, run_app):
    async with run_app(sweep, size=(120, 40)) as pilot:
        await select(pilot, "saes", "sweep-k16")
        await press(pilot, "v", "asterisk", "equals_sign")
        table = pilot.app.screen.query_one("#comparing-table", RowList)
        charts = screen_text(pilot).partition("held-out FVU")[2]
        drawn = [row.cells[0].text.strip() for row in table.rows if row.key != "smol-sae"]
        assert all(letter in charts for letter in drawn)
        assert "2 layers" in screen_text(pilot)


@pytest.mark.slow
async def test_one_mark_is_too_few_and_escape_unmarks(sweep, run_app):
    async with run_app(sweep) as pilot:
        await select(pilot, "saes", "sweep-k16")
        await press(pilot, "space", "equals_sign")
        assert not isinstance(pilot.app.screen, SaeComparePopup)
        assert "1 SAE is marked; mark 2 to 12 SAEs with space" in notices(pilot)
        await press(pilot, "escape")
        assert "● sweep" not in screen_text(pilot)


async def test_the_charts_say_which_sae_has_no_curve_and_why(sweep, run_app):
    sweep.sae_dir("sweep-k8").joinpath("metrics.parquet").unlink()
    sweep.sae_dir("sweep-k16").joinpath("metrics.parquet").write_bytes(b"PAR1 not really")
    async with run_app(sweep, size=(200, 60)) as pilot:
        await select(pilot, "saes", "sweep-k16")
        await press(pilot, "equals_sign")
        table = pilot.app.screen.query_one("#comparing-table", RowList)
        letters = {row.key: row.cells[0].text.strip() for row in table.rows}
        text = screen_text(pilot)
        for name, why in (
            ("demo-topk", "not trained here"),
            ("sweep-k8", "metrics.parquet is gone"),
            ("sweep-k16", "metrics.parquet cannot be read"),
        ):
            assert f"{letters[name]} {why}" in text


async def test_curves_that_lie_on_each_other_are_said_to(sweep, run_app):
    add_trained(sweep, "sweep-again", 300, 2048, 0.19, 16.1)  # as sweep-k16, half as long
    async with run_app(sweep, size=(200, 60)) as pilot:
        await select(pilot, "saes", "sweep-k16")
        await press(pilot, "equals_sign")
        table = pilot.app.screen.query_one("#comparing-table", RowList)
        letters = {row.key: row.cells[0].text.strip() for row in table.rows}
        first, second = sorted((letters["sweep-k16"], letters["sweep-again"]))
        text = screen_text(pilot)
        assert f"held-out FVU  logarithmic  {second} lies on {first}" in text
        assert f"L0  {second} lies on {first}" in text


def test_curves_are_told_apart_by_a_dot():
    flat, near = [(0.0, 0.0), (10.0, 8.0)], [(5.0, 4.05), (20.0, 16.0)]
    apart, short = [(0.0, 1.0), (10.0, 9.0)], [(0.0, 0.0)]
    series = {0: flat, 1: apart, 2: near, 3: short, 4: []}
    assert covered(series, 10, 0.0) == {0: [2]}
    assert covered({0: flat, 1: apart}, 2, 0.0) == {0: [1]}
    assert covered({}, 10, 0.0) == {}


@pytest.mark.slow
async def test_damaged_files_leave_gaps_in_the_comparison(sweep, run_app):
    for name, *_ in TRAINED:
        folder = sweep.sae_dir(name)
        (folder / "training.json").write_text('{"result": [1], "config": 3}')
        (folder / "metrics.parquet").write_bytes(b"PAR1 not really")
    async with run_app(sweep) as pilot:
        await select(pilot, "saes", "sweep-k16")
        await press(pilot, "equals_sign")
        text = screen_text(pilot)
        assert "sweep-k64" in text
        assert "0.118" in text


@pytest.mark.slow
async def test_marks_and_the_row_come_back_and_what_is_no_list_is_told(sweep, monkeypatch):
    file = StateFile(sweep.root)
    async with MiCrowApp(sweep, None, file.read(), file).run_test() as pilot:
        await settle(pilot)
        await select(pilot, "saes", "sweep-k16")
        await press(pilot, "space")
        await select(pilot, "saes", "sweep-k8")
        pilot.app.exit()
    async with MiCrowApp(sweep, None, file.read(), file).run_test() as pilot:
        await settle(pilot)
        assert "● sweep-k16" in screen_text(pilot)
        rows = pilot.app.screen.query_one("#list-saes", RowList)
        assert (rows.key, rows.has_focus) == ("sweep-k8", True)
        pilot.app.exit()
    file.path.write_text(file.path.read_text().replace('"list": "saes"', '"list": "sights"'))
    app, told = MiCrowApp(sweep, None, file.read(), file), []
    monkeypatch.setattr(app, "notify", lambda message, **_: told.append(message))
    async with app.run_test() as pilot:
        await settle(pilot)
        assert any("'sights' is not a list of Runs" in words for words in told)


@SIZES
def test_picture_of_a_comparison(snap_compare, sweep, size):
    evaluation = EVALUATION | {"fvu": 0.16, "l0": 30.8, "loss_recovered": 0.985}
    (sweep.sae_dir("sweep-k64") / "evaluation.json").write_text(json.dumps(evaluation))
    app = MiCrowApp(sweep, "demo-topk")

    async def drive(pilot) -> None:
        await settle(pilot)
        await press(pilot, "1")
        await select(pilot, "saes", "sweep-k16")
        await press(pilot, "equals_sign")

    assert snap_compare(app, terminal_size=size, run_before=drive)


def test_what_a_k_is_chosen_by_is_drawn_against_l0():
    known = [
        Standing("a", 0.2, 8.0, source="evaluation", ce_added=0.3, c_dec=0.05),
        Standing("b", 0.1, 32.0, source="evaluation", ce_added=0.1, c_dec=0.02, probe_accuracy=0.8),
    ]
    for reading, name in (("ce_added", "CE added"), ("c_dec", "decoder correlation c_dec")):
        lines = which_k_chart(known, reading, {"a": Sign("A")}, 60, 8)
        text = "\n".join(line.plain for line in lines)
        assert f"{name} against L0  (2 SAEs)" in text
        assert "A" in text.replace("SAEs", "")
        assert "●" in text
    assert which_k_chart(known, "probe_accuracy", {}, 60, 8) == []  # only one has it
