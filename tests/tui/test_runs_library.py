"""The popup over published SAEs on Runs, and what it puts into the form of an import."""

import pytest

from tests.tui.driving import press, screen_text, settle
from tui.app import MiCrowApp
from tui.screens.runs.library import LibraryPopup
from tui.widgets.field import Field
from tui.widgets.lists.row_list import RowList

SEARCH = "gemma-2-2b layer:12 width:65k l0<60"


async def opened(pilot) -> None:
    await press(pilot, "1", "n", "l")
    assert isinstance(pilot.app.screen, LibraryPopup)
    pilot.app.screen.query_one(Field).value = SEARCH
    await settle(pilot)


@pytest.mark.parametrize(
    "size",
    [(80, 24), pytest.param((200, 60), marks=pytest.mark.slow)],
    ids=["small", "large"],
)
def test_published_saes(app_workspace, snap_compare, size):
    assert snap_compare(MiCrowApp(app_workspace), run_before=opened, terminal_size=size)


async def test_the_chosen_one_goes_into_the_form_of_an_import(app_workspace):
    async with MiCrowApp(app_workspace).run_test(size=(80, 24)) as pilot:
        await opened(pilot)
        rows = pilot.app.screen.query_one(RowList)
        assert "4 SAEs" in screen_text(pilot)
        await press(pilot, "down", "down")
        source = rows.key
        assert source is not None
        await press(pilot, "enter")
        texts = {field.id: field.value for field in pilot.app.screen.query(Field)}
        assert source in texts.values()
        assert "google/gemma-2-2b" in texts.values()
        # A value longer than its field is seen, with its end at the cursor.
        assert source[-30:] in screen_text(pilot)


async def test_a_mistake_in_the_search_is_told_where_it_is_typed(app_workspace):
    async with MiCrowApp(app_workspace).run_test(size=(80, 24)) as pilot:
        await opened(pilot)
        pilot.app.screen.query_one(Field).value = "layr:3"
        await settle(pilot)
        assert "'layr' is not a condition" in screen_text(pilot)
        await press(pilot, "escape")
        assert not isinstance(pilot.app.screen, LibraryPopup)
