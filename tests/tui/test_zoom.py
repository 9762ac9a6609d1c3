"""`+` gives one pane the whole body, follows the focus, and comes back at the next start."""

import pytest
from textual.pilot import Pilot
from textual.widget import Widget

from tests.tui.driving import press, screen_text, settle
from tui.actions import SCREENS
from tui.app import MiCrowApp
from tui.screens.base import MiCrowScreen
from tui.screens.features.detail import FeatureDetailPane
from tui.screens.zoom import pane_of
from tui.state import StateFile
from tui.widgets.lists.row_list import RowList

SAE = "fixture-sae"


def zoomed_pane(pilot: Pilot) -> Widget | None:
    screen = pilot.app.screen
    assert isinstance(screen, MiCrowScreen)
    return screen.zoomed


def focus_of(pilot: Pilot) -> str | None:
    focused = pilot.app.screen.focused
    return focused.id if focused is not None else None


@pytest.mark.slow
@pytest.mark.parametrize("name", SCREENS)
async def test_every_screen_zooms_the_pane_with_the_focus_and_comes_back(run_app, indexed, name):
    async with run_app(indexed, size=(200, 60), sae_id=SAE) as pilot:
        await press(pilot, str(SCREENS.index(name) + 1))
        screen = pilot.app.screen
        await press(pilot, "plus", "plus")  # what shares its room has seen the whole layout
        before = {widget: widget.size for widget in screen.query("#body *")}
        pane = pane_of(screen.focused)
        assert pane is not None
        await press(pilot, "plus")
        body = screen.query_one("#body").size
        assert pane.size.width >= body.width - 4
        assert pane.size.height >= body.height - 6  # its titles above it
        assert [one for one in screen.focus_chain if pane not in one.ancestors_with_self] == []
        assert "+ all panes" in screen_text(pilot)
        await press(pilot, "plus")
        assert {widget: widget.size for widget in screen.query("#body *")} == before
        assert "all panes" not in screen_text(pilot)


async def test_a_zoom_follows_the_focus_from_list_to_list_and_to_the_open_feature(
    run_app, app_workspace
):
    async with run_app(app_workspace, size=(120, 40)) as pilot:
        await press(pilot, "plus", "G", "j")
        saes = pilot.app.screen.query_one("#list-saes", RowList)
        assert saes.has_focus
        assert "SAEs" in screen_text(pilot)
        assert "Activation runs" not in screen_text(pilot)
        assert saes.size.height > 30
        pilot.app.look_now()  # lists share the height again whenever something changed
        await settle(pilot)
        await pilot.resize_terminal(80, 24)
        await settle(pilot)
        assert saes.size.height == 20
        await press(pilot, "escape")
        assert "Activation runs" in screen_text(pilot)


async def test_a_prompt_is_seen_in_a_zoomed_pane_and_the_open_feature_takes_the_zoom_over(
    run_app, indexed
):
    async with run_app(indexed, size=(120, 40), sae_id=SAE) as pilot:
        await press(pilot, "2", "plus", "slash")
        assert (
            "density<" in screen_text(pilot).splitlines()[-2]
        )  # the reference, in the line that asks
        await press(pilot, "escape", "enter")
        pane = pilot.app.screen.query_one(FeatureDetailPane)
        assert zoomed_pane(pilot) is pane.query_one("#feature-texts")
        assert pane.examples.size.width > 110
        await press(pilot, "escape", "escape")
        assert zoomed_pane(pilot) is None
        assert pane.display


@pytest.mark.parametrize("size", [(80, 24), (200, 60)])
async def test_the_side_of_a_feature_alone_shows_all_its_logits(run_app, indexed, size):
    async with run_app(indexed, size=size, sae_id=SAE) as pilot:
        await press(pilot, "2", "enter", "tab", "plus")
        side = pilot.app.screen.query_one("#feature-side")
        assert zoomed_pane(pilot) is side
        assert side.size.width > size[0] - 3
        assert "Top activations" not in screen_text(pilot)
        detail = pilot.app.context.features.detail(pilot.app.screen.open_feature)
        words = [token.strip() for token, _ in (*detail.promoted, *detail.suppressed)]
        seen = screen_text(pilot)
        await press(pilot, "shift+tab", "G")  # scrolls them to their end
        seen += screen_text(pilot)
        assert all(word in seen for word in words)
        await press(pilot, "plus")
        assert pilot.app.screen.focused.id == "related-neighbours"
        await press(pilot, "escape", "plus")
        if size == (80, 24):
            assert zoomed_pane(pilot) is None
            assert "all panes" not in screen_text(pilot)


@pytest.mark.slow
async def test_what_was_zoomed_comes_back(indexed):
    file = StateFile(indexed.root)
    async with MiCrowApp(indexed, None, file.read(), file).run_test(size=(120, 40)) as pilot:
        await settle(pilot)
        await press(pilot, "4", "tab", "tab", "plus")
        name = focus_of(pilot)
        pilot.app.exit()
    assert name != "steer-stack"
    async with MiCrowApp(indexed, None, file.read(), file).run_test(size=(120, 40)) as pilot:
        await settle(pilot)
        assert zoomed_pane(pilot) is pilot.app.screen.focused
        assert focus_of(pilot) == name


@pytest.mark.slow
async def test_a_zoom_of_something_that_is_gone_is_no_zoom(indexed):
    file = StateFile(indexed.root)
    async with MiCrowApp(indexed, None, file.read(), file).run_test() as pilot:
        await settle(pilot)
        await press(pilot, "plus")
        pilot.app.exit()
    file.path.write_text(file.path.read_text().replace('"zoom": "list-', '"zoom": "gone-'))
    async with MiCrowApp(indexed, None, file.read(), file).run_test() as pilot:
        await settle(pilot)
        assert zoomed_pane(pilot) is None
