"""An answer that comes after another SAE, index or row was opened never shows as if it were its."""

import asyncio
import threading

import pytest
from textual.widgets import Static

from mi_crow.mechanistic.concepts.annotations import Annotations
from tests.helpers.index_fixture import make_index
from tests.tui.driving import notices, press, screen_text, settle
from tests.tui.stand_ins import give_index
from tui import messages
from tui.screens.features.detail import FeatureDetailPane
from tui.widgets.area import Area
from tui.widgets.lists.feature_table import FeatureTable
from tui.widgets.lists.row_list import RowList

pytestmark = pytest.mark.slow

SAE = "fixture-sae"


async def test_an_inspection_that_ends_after_another_sae_was_opened_is_dropped(
    run_app, app_workspace
):
    async with run_app(app_workspace, sae_id="demo-topk") as pilot:
        session = give_index(pilot.app)
        await settle(pilot)
        await press(pilot, "3")
        pilot.app.screen.query_one("#inspect-text", Area).text = "The ferry left."
        asked, go_on = threading.Event(), threading.Event()
        call = session.call

        def held(op, **params):
            if op == "inspect":
                asked.set()
                go_on.wait(60)
            return call(op, **params)

        session.call = held
        await pilot.press("ctrl+r")
        while not asked.is_set():
            await pilot.pause()
        pilot.app.open_sae("smol-sae")
        await pilot.pause()
        go_on.set()
        await settle(pilot)
        assert session.asked[-1][1]["sae_id"] == "demo-topk"
        assert pilot.app.screen.query_one("#list-text", RowList).rows == ()
        assert "Another SAE was opened meanwhile" in notices(pilot)


async def test_the_open_feature_is_read_again_from_a_rebuilt_index(run_app, empty_workspace):
    make_index(empty_workspace, SAE)
    async with run_app(empty_workspace, size=(120, 40), sae_id=SAE) as pilot:
        await press(pilot, "2", "number_sign", *"12", "enter")
        make_index(empty_workspace, SAE, seed=1)
        pilot.app.look_now()
        await settle(pilot)
        pane = pilot.app.screen.query_one(FeatureDetailPane)
        assert pane.shown is not None
        assert pane.shown.detail == pilot.app.context.features.detail(12)


async def test_what_was_read_of_one_index_is_not_shown_as_another_ones(run_app, empty_workspace):
    make_index(empty_workspace, SAE)
    make_index(empty_workspace, "second", seed=3)
    async with run_app(empty_workspace, size=(120, 40), sae_id=SAE) as pilot:
        await press(pilot, "2", "number_sign", *"12", "enter")
        screen = pilot.app.screen
        late = screen.query_one(FeatureDetailPane).shown
        listed = screen.query_one(FeatureTable)
        pilot.app.open_sae("second")
        await settle(pilot)
        screen._feature = late.feature
        screen._show_feature(late)
        await settle(pilot)
        assert screen.query_one(FeatureDetailPane).shown.store is pilot.app.context.features
        assert listed.row_at(0).feature == int(pilot.app.context.features.ids()[0])


async def test_a_name_goes_to_the_feature_that_it_was_asked_for(run_app, app_workspace):
    async with run_app(app_workspace, size=(120, 40), sae_id="demo-topk") as pilot:
        give_index(pilot.app)
        await settle(pilot)
        await press(pilot, "2", "number_sign", *"12", "enter", "escape", "t")
        pilot.app.screen.query_one(FeatureTable).go_to(43)  # as a click on it does
        await settle(pilot)
        await press(pilot, *"ropes", "enter")
        (concept,) = Annotations(app_workspace.annotations_path).concepts()
        assert (concept.feature, concept.name) == (12, "ropes")


async def test_the_header_says_which_sae_the_session_holds(run_app, app_workspace, monkeypatch):
    async with run_app(app_workspace, size=(120, 40), sae_id="demo-topk") as pilot:
        # No process stands behind this state, and a look at the workspace would notice it.
        monkeypatch.setattr(pilot.app.context, "check_session", lambda: None)
        state = messages.SessionState("ready", "demo-topk", "sample", "model.layers.2", "cuda:0")
        pilot.app.context._set_session(state)
        await settle(pilot)
        assert "demo-topk · cuda:0" in screen_text(pilot)
        pilot.app.open_sae("smol-sae")
        await settle(pilot)
        assert "smol-sae · cuda:0 holds demo-topk" in screen_text(pilot)


async def test_an_sae_renamed_while_its_model_loads_is_held_by_its_new_id(run_app, app_workspace):
    async with run_app(app_workspace, sae_id="demo-topk") as pilot:
        context, call = pilot.app.context, give_index(pilot.app).call

        def renamed_meanwhile(op, **params):
            if op == "load":
                context.rename_in_session("demo-topk", "harbour")
            return call(op, **params)

        context.session.call = renamed_meanwhile
        await asyncio.to_thread(context.ready_session)
        assert (context.session_state.phase, context.session_state.sae_id) == ("ready", "harbour")


async def test_control_keeps_what_it_measured_when_the_sae_is_renamed(run_app, app_workspace):
    async with run_app(app_workspace, size=(120, 40), sae_id="demo-topk") as pilot:
        session = give_index(pilot.app)
        answers = {
            "layers": {"layers": [{"name": "first", "kind": "Block"}]},
            "hooks": {"hooks": []},
            "layer_stats": {"layer": "first", "mean_norm": 12.5},
        }
        asked, call = [], session.call

        def answer(op, **params):
            asked.append(op)
            return answers.get(op) or call(op, **params)

        session.call = answer
        await press(pilot, "6", "l", "ctrl+r")
        assert "12.50" in screen_text(pilot)
        asked.clear()
        pilot.app.sae_renamed("demo-topk", "harbour")
        await settle(pilot)
        assert "12.50" in screen_text(pilot)
        assert "harbour · cpu" in screen_text(pilot)
        assert "demo-topk" not in screen_text(pilot)
        assert asked == []


async def test_control_reads_the_tree_again_when_another_model_was_loaded(run_app, app_workspace):
    async with run_app(app_workspace, size=(120, 40), sae_id="demo-topk") as pilot:
        session = give_index(pilot.app)
        answers = {
            "layers": {"layers": [{"name": "first", "kind": "Block"}]},
            "hooks": {"hooks": []},
            "layer_stats": {"layer": "first", "mean_norm": 12.5},
        }
        call = session.call
        session.call = lambda op, **params: answers.get(op) or call(op, **params)
        await press(pilot, "6", "l", "ctrl+r")
        text = screen_text(pilot)
        assert "12.50" in text
        assert "on “The ship leaves" in text
        pilot.app.screen.query_one("#probe-text", Area).text = "Another text"
        await settle(pilot)
        assert "on “The ship leaves" in screen_text(pilot)
        pilot.app.open_sae("smol-sae")
        await settle(pilot)
        assert "the model of demo-topk" in screen_text(pilot)
        answers["layers"] = {"layers": [{"name": "first"}, {"name": "second"}]}
        pilot.app.context.ready_session()
        await settle(pilot)
        rows = pilot.app.screen.query_one("#layers", RowList).rows
        assert [row.key for row in rows] == ["first", "second"]
        assert "12.50" not in screen_text(pilot)
        assert notices(pilot).count("error") == 0
        assert pilot.app.screen.query_one("#layer-text", Static) is not None
