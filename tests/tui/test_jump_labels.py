"""`'` puts a letter over each pane and field; the letter gives it the focus."""

import pytest

from tests.tui.driving import press, screen_text, settle
from tui.actions import SCREENS
from tui.widgets.frame.jump import JumpLabel, JumpPopup, targets
from tui.widgets.frame.palette import PalettePopup
from tui.widgets.lists.row_list import RowList


@pytest.mark.slow
@pytest.mark.parametrize("name", SCREENS)
async def test_each_letter_leads_to_what_it_stands_over(run_app, app_workspace, name):
    async with run_app(app_workspace, size=(120, 40)) as pilot:
        await press(pilot, str(SCREENS.index(name) + 1))
        screen = pilot.app.screen
        panes = [widget for widget, _ in targets(screen)]
        for widget in panes:
            screen.set_focus(screen.query_one(screen.HOME))
            await press(pilot, "apostrophe")
            labels = pilot.app.screen.query(JumpLabel)
            assert len(labels) == len(panes)
            label = next(
                one
                for one in labels
                if one.region.offset == screen.find_widget(widget).region.offset
            )
            await press(pilot, label.letter)
            assert pilot.app.screen is screen
            assert screen.focused is widget


async def test_the_labels_lie_over_the_screen_and_say_how_to_leave(run_app, app_workspace):
    async with run_app(app_workspace) as pilot:
        before = screen_text(pilot)
        await press(pilot, "apostrophe")
        text = screen_text(pilot)
        assert " a " in text
        assert "esc closes" in text
        assert before.splitlines()[1] == text.splitlines()[1]
        await press(pilot, "escape")
        assert screen_text(pilot) == before


async def test_a_digit_goes_to_a_screen_and_a_click_to_a_pane(run_app, app_workspace):
    async with run_app(app_workspace) as pilot:
        await press(pilot, "apostrophe")
        saes = pilot.app.screen_stack[0].query_one("#list-saes", RowList)
        label = next(
            one for one in pilot.app.screen.query(JumpLabel) if one.region.y == saes.region.y
        )
        await pilot.click(label)
        await settle(pilot)
        assert saes.has_focus
        await press(pilot, "apostrophe", "4")
        assert pilot.app.current_mode == "steer"


@pytest.mark.slow
async def test_the_labels_go_when_what_they_stand_over_moves(run_app, app_workspace):
    async with run_app(app_workspace) as pilot:
        await press(pilot, "apostrophe")
        assert isinstance(pilot.app.screen, JumpPopup)
        await pilot.resize_terminal(120, 40)
        await settle(pilot)
        assert not isinstance(pilot.app.screen, JumpPopup)


async def test_labels_under_a_popup_leave_it_when_they_move(run_app, app_workspace):
    async with run_app(app_workspace) as pilot:
        await press(pilot, "apostrophe", "ctrl+p")
        await pilot.resize_terminal(120, 40)
        await settle(pilot)
        assert [type(one) for one in pilot.app.screen_stack[1:]] == [JumpPopup, PalettePopup]
        await press(pilot, "escape")
        assert len(pilot.app.screen_stack) == 1
