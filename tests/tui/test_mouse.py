"""What the mouse selects is copied, a click is a click, and ctrl+c says what it does not do."""

import pytest
from textual.events import MouseDown, MouseMove, MouseUp

from mi_crow.store.workspace import Workspace
from tests.tui.driving import press, screen_text, settle
from tui.widgets.detail_lines import DetailLines
from tui.widgets.lists.row_list import RowList


@pytest.fixture(autouse=True)
def outside_tmux(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TMUX", raising=False)


async def drag(pilot, widget, *places: tuple[int, int]) -> None:
    kinds = [MouseDown, *[MouseMove] * (len(places) - 2), MouseUp]
    for kind, place in zip(kinds, places, strict=True):
        await pilot._post_mouse_events([kind], widget=widget, offset=place, button=1)
    await settle(pilot)


async def test_a_drag_copies_what_it_goes_over_and_nothing_beside_it(
    run_app, app_workspace: Workspace
):
    async with run_app(app_workspace, size=(120, 40)) as pilot:
        await settle(pilot)
        detail = pilot.app.screen.query_one(DetailLines)
        lines = detail.text_to_copy()[0].split("\n")
        await drag(pilot, detail, (2, 0), (4, 0), (5, 1), (5, 1))
        assert pilot.app.clipboard == f"{lines[0][2:]}\n{lines[1][:6]}"
        assert "Copied what you selected" in screen_text(pilot)
        await drag(pilot, detail, (5, 1), (3, 1), (0, 1), (0, 1))  # backwards
        assert pilot.app.clipboard == lines[1][:6]


async def test_a_drag_over_rows_opens_none_and_a_click_copies_none(
    run_app, app_workspace: Workspace
):
    async with run_app(app_workspace, size=(120, 40)) as pilot:
        await settle(pilot)
        jobs = pilot.app.screen.query(RowList).last(RowList)
        cursor = jobs.cursor
        await drag(pilot, jobs, (1, 1), (3, 1), (6, 1), (6, 1))
        copied = pilot.app.clipboard
        assert len(copied.strip()) > 1
        assert jobs.cursor == cursor
        await pilot.click(jobs, offset=(3, 1))
        assert jobs.cursor == 1
        assert pilot.app.clipboard == copied


async def test_ctrl_c_names_the_keys_that_quit_and_copy(run_app, app_workspace: Workspace):
    async with run_app(app_workspace, size=(120, 40)) as pilot:
        await press(pilot, "ctrl+c")
        assert "q quits · y copies what has the focus" in screen_text(pilot)
