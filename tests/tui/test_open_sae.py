"""The open SAE, when another program renames or removes it, and what is shown of its folder."""

import shutil
from dataclasses import replace

import pytest

from mi_crow.jobs.renaming import rename_sae
from mi_crow.mechanistic.steering.interventions import Intervention, parse_intervention
from mi_crow.mechanistic.steering.schedules import parse_condition
from mi_crow.store.notes import write_note
from mi_crow.store.workspace import Workspace
from tests.tui.conftest import NOW, add_sae
from tests.tui.driving import notices, press, screen_text, select, settle, table
from tui import messages
from tui.app import MiCrowApp
from tui.history import History, Visited
from tui.screens.features.map_place import MapPlace
from tui.screens.steer.stack import of_renamed
from tui.state import SavedState
from tui.watch import look, renamed


async def test_the_open_sae_stays_open_when_it_is_renamed_elsewhere(open_index, indexed):
    place = MapPlace("fixture-sae", (0.0, 0.0, 1.0, 1.0), (0.5, 0.5), 3)
    async with open_index() as pilot:
        app = pilot.app
        await press(pilot, "space", "enter")
        opened = app.screen.open_feature
        assert opened is not None
        app.screen._map_place = place
        rename_sae(indexed, "fixture-sae", "harbour")
        app.look_now()
        await settle(pilot)
        assert app.context.sae_id == "harbour"
        assert app.context.features.meta().sae_id == "harbour"
        assert app.screen.open_feature == opened
        assert len(table(pilot).marks) == 1
        assert app.screen.map_place == replace(place, sae_id="harbour")
        header, text = screen_text(pilot).splitlines()[0], screen_text(pilot)
        assert "harbour" in header
        assert "no feature index" not in text


async def test_marks_and_interventions_follow_an_sae_that_is_renamed(empty_workspace, run_app):
    for name in ("smol-sae", "demo-topk"):
        add_sae(empty_workspace, name, "sample", "demo", NOW)
    async with run_app(empty_workspace, size=(120, 40), sae_id="demo-topk") as pilot:
        app = pilot.app
        await app.go("steer", messages.SendToSteer(7, "demo-topk"))
        await settle(pilot)
        await press(pilot, "1")
        runs = app.screen
        await select(pilot, "saes", "smol-sae")
        await press(pilot, "space")
        for old, new in (("demo-topk", "harbour"), ("smol-sae", "sails")):
            rename_sae(empty_workspace, old, new)
        app.look_now()
        await settle(pilot)
        assert app.context.sae_id == "harbour"
        assert [one.sae for one in app.context.steered] == ["harbour"]
        assert runs.state()["marks"] == ["sails"]


def test_an_sae_that_is_renamed_during_a_look_is_found_under_its_new_name(
    empty_workspace, monkeypatch
):
    add_sae(empty_workspace, "demo-topk", "sample", "demo", NOW)
    first = look(empty_workspace, None)
    add_sae(empty_workspace, "another", "sample", "demo", NOW)
    scan = Workspace.scan_saes

    def scanned(workspace):
        folder = workspace.saes_dir / "demo-topk"
        if folder.exists():
            folder.rename(workspace.saes_dir / "harbour")
        return scan(workspace)

    monkeypatch.setattr(Workspace, "scan_saes", scanned)
    second = look(empty_workspace, first)
    assert {sae.sae_id for sae in second.saes} == {"another", "harbour"}
    assert renamed(first, second) == {"demo-topk": "harbour"}


def test_a_stack_follows_an_sae_under_its_new_name():
    stack = [
        Intervention("feature:demo/3", "add", 2.0, weights="0" * 64, enabled=False),
        parse_intervention("layer:resid_post.2=x0.5"),
        Intervention("feature:other/3", "floor", 1.0, condition=parse_condition("demo/5>2")),
    ]
    first, layer, other = of_renamed(stack, "demo", "harbour")
    assert first == Intervention("feature:harbour/3", "add", 2.0, weights="0" * 64, enabled=False)
    assert layer == stack[1]
    assert other.condition is not None
    assert (other.sae, other.condition.sae) == ("other", "harbour")


def test_places_that_were_left_are_those_of_the_renamed_sae():
    history = History()
    for sae_id in ("demo", "other"):
        history.leave(Visited("features", 3, sae_id))
    history.rename_sae("demo", "harbour")
    assert [one[2] for one in history.as_json()["behind"]] == ["harbour", "other"]


async def test_screens_that_were_not_opened_yet_take_up_the_new_name(app_workspace):
    held = Intervention("feature:demo-topk/3", "add", 2.0).as_json()
    place = MapPlace("demo-topk", (0.0, 0.0, 1.0, 1.0), (0.5, 0.5), 3).as_json()
    screens = {
        "steer": {"stack": [held, "damaged"]},
        "features": {"sae": "demo-topk", "map": place},
    }
    app = MiCrowApp(app_workspace, "demo-topk", SavedState(screens=screens))
    async with app.run_test(size=(80, 24)) as pilot:
        app.saved_state = SavedState(screens=screens)
        app.sae_renamed("demo-topk", "harbour")
        await pilot.pause()
        assert app.saved_state.screens["features"]["sae"] == "harbour"
        assert app.saved_state.screens["features"]["map"] == {**place, "sae": "harbour"}
        stack = app.saved_state.screens["steer"]["stack"]
        assert stack[0]["target"] == "feature:harbour/3"
        assert held["target"] == "feature:demo-topk/3"


@pytest.mark.parametrize("others", [(), ("smol-sae",)], ids=["none", "another"])
async def test_an_sae_that_was_removed_elsewhere_is_not_open_any_more(
    empty_workspace, run_app, others
):
    for name in (*others, "demo-topk"):
        add_sae(empty_workspace, name, "sample", "demo", NOW)
    async with run_app(empty_workspace, size=(120, 40), sae_id="demo-topk") as pilot:
        app = pilot.app
        app.look_now()
        await settle(pilot)
        shutil.rmtree(empty_workspace.saes_dir / "demo-topk")
        app.look_now()
        await settle(pilot)
        assert app.context.sae_id == next(iter(others), None)
        assert "demo-topk" not in screen_text(pilot).splitlines()[0]
        told = "; smol-sae is open now" if others else ""
        assert f"demo-topk is not there any more{told}" in notices(pilot).splitlines()


async def test_an_sae_that_cannot_be_read_stays_open(app_workspace, run_app):
    async with run_app(app_workspace, sae_id="demo-topk") as pilot:
        app = pilot.app
        (app_workspace.saes_dir / "demo-topk" / "cfg.json").write_text("{")
        app.look_now()
        await settle(pilot)
        assert app.context.find_sae("demo-topk") is None
        assert app.context.sae_id == "demo-topk"


@pytest.mark.parametrize("shown", [True, False], ids=["shown", "behind another screen"])
@pytest.mark.parametrize("name", ["runs", "saes"])
async def test_a_note_from_the_command_line_is_shown(app_workspace, run_app, name, shown):
    row, parent = {
        "runs": ("demo", app_workspace.activations_dir),
        "saes": ("demo-topk", app_workspace.saes_dir),
    }[name]
    async with run_app(app_workspace, size=(120, 40)) as pilot:
        await select(pilot, name, row)
        if not shown:
            await press(pilot, "2")
        write_note(parent / row, "written elsewhere")
        pilot.app.look_now()
        await settle(pilot)
        if not shown:
            await press(pilot, "1")
        assert "written elsewhere" in screen_text(pilot)
