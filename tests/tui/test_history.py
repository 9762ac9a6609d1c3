"""Backspace goes back through features and screens; escape never leaves a screen."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.helpers.index_fixture import make_index
from tests.tui.driving import press, screen_text, settle
from tui.app import MiCrowApp
from tui.history import History, Visited
from tui.screens.features.detail import FeatureDetailPane
from tui.state import SavedState, StateFile

SAE = "fixture-sae"


@given(st.lists(st.integers(0, 3), min_size=1, max_size=12))
def test_going_back_and_forward_again_ends_where_it_began(way: list[int]):
    history, here = History(), Visited("runs")
    for feature in way:
        history.leave(here)
        here = Visited("features", feature)
    steps, at = 0, here
    while (before := history.back(at)) is not None:
        at, steps = before, steps + 1
    assert at == Visited("runs")
    for _ in range(steps):
        after = history.forward(at)
        assert after is not None
        at = after
    assert at == here
    assert history.forward(at) is None


def test_a_new_way_forgets_what_was_ahead():
    history = History()
    history.leave(Visited("runs"))
    assert history.back(Visited("features", 1)) == Visited("runs")
    history.leave(Visited("runs"))
    assert history.forward(Visited("steer")) is None


async def test_backspace_walks_back_through_features_and_screens(run_app, empty_workspace):
    make_index(empty_workspace, SAE)
    async with run_app(empty_workspace, size=(120, 40), sae_id=SAE) as pilot:
        await press(pilot, "2", "number_sign", *"12", "enter", "number_sign", *"7", "enter", "5")
        assert pilot.app.current_mode == "concepts"
        await press(pilot, "escape", "escape", "escape")
        assert pilot.app.current_mode == "concepts"
        await press(pilot, "backspace")
        pane = pilot.app.screen.query_one(FeatureDetailPane)
        assert (pilot.app.current_mode, pane.feature) == ("features", 7)
        await press(pilot, "backspace")
        assert pane.feature == 12
        await press(pilot, "alt+right")
        assert pane.feature == 7
        await press(pilot, "shift+backspace")
        assert pilot.app.current_mode == "concepts"


async def test_where_a_feature_took_the_place_of_the_table_backspace_is_the_way_back_to_it(
    run_app, empty_workspace
):
    make_index(empty_workspace, SAE)
    async with run_app(empty_workspace, size=(80, 24), sae_id=SAE) as pilot:
        await press(pilot, "5", "2", "j", "j")
        screen = pilot.app.screen
        third = screen.table.feature
        await press(pilot, "enter", "right_square_bracket")
        fourth = screen.open_feature
        assert screen.is_alone
        await press(pilot, "number_sign", *"7", "enter")
        assert (screen.is_alone, screen.open_feature) == (True, 7)
        await press(pilot, "backspace")
        assert (screen.is_alone, screen.open_feature) == (True, fourth)
        await press(pilot, "backspace")
        assert not screen.is_alone
        assert screen.table.has_focus
        assert screen.table.feature == fourth != third
        await press(pilot, "shift+backspace")
        assert (screen.is_alone, screen.open_feature) == (True, fourth)
        await press(pilot, "backspace", "backspace")
        assert pilot.app.current_mode == "concepts"


async def test_a_table_gone_back_to_by_escape_is_not_gone_back_to_again(run_app, empty_workspace):
    make_index(empty_workspace, SAE)
    async with run_app(empty_workspace, size=(80, 24), sae_id=SAE) as pilot:
        await press(pilot, "5", "2", "enter", "escape", "j", "enter", "slash", "escape")
        assert not pilot.app.screen.is_alone
        await press(pilot, "backspace")
        assert pilot.app.current_mode == "concepts"


async def test_a_jump_from_the_table_leads_back_to_its_row(run_app, empty_workspace):
    make_index(empty_workspace, SAE)
    async with run_app(empty_workspace, size=(80, 24), sae_id=SAE) as pilot:
        await press(pilot, "2", "j")
        screen, second = pilot.app.screen, pilot.app.screen.table.feature
        await press(pilot, "number_sign", *"12", "enter", "backspace")
        assert (screen.is_alone, screen.table.feature) == (False, second)


@pytest.mark.slow
async def test_at_the_beginning_backspace_says_so(run_app, empty_workspace):
    async with run_app(empty_workspace) as pilot:
        await press(pilot, "backspace")
        assert pilot.app.current_mode == "runs"
        assert "Nothing was open before" in screen_text(pilot)


@pytest.mark.slow
async def test_a_field_says_how_to_leave_it_and_keeps_backspace(run_app, app_workspace):
    async with run_app(app_workspace) as pilot:
        await press(pilot, "3", "escape", "e", "a", "b", "backspace")
        assert pilot.app.screen.focused.text == "a"
        assert "esc leave the field" in screen_text(pilot)
        await press(pilot, "escape")
        assert "esc leave the field" not in screen_text(pilot)
        assert pilot.app.current_mode == "inspect"


@pytest.mark.slow
async def test_the_way_back_outlives_the_app_and_leads_to_another_sae(empty_workspace):
    for sae_id in (SAE, "other-sae"):
        make_index(empty_workspace, sae_id)
    file = StateFile(empty_workspace.root)
    async with MiCrowApp(empty_workspace, SAE, SavedState(), file).run_test() as pilot:
        await settle(pilot)
        await press(pilot, "number_sign", *"12", "enter", "4")
        pilot.app.exit()
    app = MiCrowApp(empty_workspace, "other-sae", file.read(), file)
    async with app.run_test() as pilot:
        await settle(pilot)
        await press(pilot, "5", "backspace", "backspace")
        pane = pilot.app.screen.query_one(FeatureDetailPane)
        assert (app.context.sae_id, pane.feature) == (SAE, 12)
        await press(pilot, "alt+right")
        assert (app.context.sae_id, app.current_mode) == ("other-sae", "features")


@pytest.mark.slow
async def test_a_feature_of_an_sae_that_is_gone_is_passed_over(empty_workspace):
    make_index(empty_workspace, SAE)
    places = {"behind": [["runs", None, None], ["features", 3, "removed"]]}
    app = MiCrowApp(empty_workspace, None, SavedState("concepts", history=places))
    async with app.run_test() as pilot:
        await settle(pilot)
        await press(pilot, "backspace")
        assert app.current_mode == "runs"


@pytest.mark.parametrize(
    "places",
    [{"behind": 3}, {"ahead": [["moon", None, None]]}, {"behind": [["runs", "x", None]]}],
)
async def test_a_damaged_history_is_told_and_the_rest_is_taken_up(
    empty_workspace, monkeypatch, places
):
    app, told = MiCrowApp(empty_workspace, None, SavedState("concepts", history=places)), []
    monkeypatch.setattr(app, "notify", lambda message, **_: told.append(message))
    async with app.run_test() as pilot:
        await settle(pilot)
        assert app.current_mode == "concepts"
        assert len(told) == 1
        assert "history" in told[0]
