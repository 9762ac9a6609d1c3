"""Columns of one's choice: chosen, ordered, sorted by, kept; each is as wide as what is in it."""

import re
from collections.abc import Mapping

import pytest

from mi_crow.errors import MiCrowError
from mi_crow.mechanistic.features.catalogue import COLUMNS, DEFAULT
from mi_crow.mechanistic.features.records import FeatureRow
from mi_crow.store.json_object import JsonObject
from tests.helpers.index_fixture import TOPICS
from tests.tui.driving import notices, press, screen_text, settle, table
from tui.screens.features.heading import TableHeading
from tui.screens.features.marking import saved_columns, saved_marks
from tui.screens.features.screen import FeaturesScreen
from tui.widgets.lists.feature_columns import layout, row_content, titles_content

LABEL = next(iter(TOPICS))
EVERYTHING = (*(column.name for column in COLUMNS), f"auroc:{LABEL}")


def shown(pilot) -> list[str]:
    return [column.name for column, _ in table(pilot).layout_now.columns]


async def test_columns_are_chosen_and_ordered(open_index):
    async with open_index((80, 24)) as pilot:
        await press(pilot, "enter", "vertical_line")  # the open feature has the table's place
        assert "no room" not in screen_text(pilot)
        await press(pilot, "escape", "escape")
        await press(pilot, "vertical_line", "j", "space", "j", "J", "enter")
        assert shown(pilot) == ["feature", "max", "fires", "mean", "meaning", "score", "auroc"]
        titles = screen_text(pilot).splitlines()[3]
        assert titles.index("max") < titles.index("fires")
        assert "density" not in titles


@pytest.mark.slow
@pytest.mark.parametrize(("size", "times"), [((80, 24), 1), ((160, 40), 0)])
async def test_what_a_column_shows_is_read_to_the_end(open_index, size, times: int):
    async with open_index(size) as pilot:
        await press(pilot, "vertical_line", *"jjjjj")
        text = screen_text(pilot)
        assert text.count("else its label") == 1
        assert pilot.app.screen.query_one("#columns-whole").display == bool(times)


@pytest.mark.slow
async def test_escape_leaves_the_columns_as_they_were(open_index):
    async with open_index((80, 24)) as pilot:
        await press(pilot, "vertical_line", "j", "space", "escape")
        assert tuple(shown(pilot)) == DEFAULT


@pytest.mark.slow
async def test_the_number_stays_and_the_default_comes_back(open_index):
    async with open_index((80, 24)) as pilot:
        await press(pilot, "vertical_line", "space", "j", "space", "enter")
        assert shown(pilot)[0] == "feature"
        await press(pilot, "vertical_line", "D", "enter")
        assert tuple(shown(pilot)) == DEFAULT


@pytest.mark.slow
async def test_every_column_can_be_shown_and_is_read(open_index):
    async with open_index((200, 24)) as pilot:
        screen = pilot.app.screen
        for name in EVERYTHING:
            screen._show_columns(("feature", name))
            await settle(pilot)
            assert set(shown(pilot)) == {"feature", name}
        assert not notices(pilot)


@pytest.mark.slow
async def test_a_click_on_a_title_sorts_and_a_second_one_turns_it_round(open_index):
    async with open_index((80, 24)) as pilot:
        screen = pilot.app.screen
        assert isinstance(screen, FeaturesScreen)
        x = screen_text(pilot).splitlines()[3].index("max") + 1
        for descending in (True, False):
            await pilot.click(TableHeading, offset=(x, 1))
            await settle(pilot)
            query = screen._query
            assert (query.sort, query.descending) == ("max_act", descending)
        assert "max↑" in screen_text(pilot)


@pytest.mark.slow
async def test_any_column_sorts_from_the_list_of_all(open_index):
    async with open_index((80, 24)) as pilot:
        pilot.app.screen.action_sort_by()
        await settle(pilot)
        await press(pilot, "G", "enter")
        assert pilot.app.screen._query.sort.startswith("auroc:")
        assert " by " in screen_text(pilot).splitlines()[2]


@pytest.mark.slow
async def test_columns_and_marks_come_back(open_index):
    async with open_index((120, 24)) as pilot:
        screen = pilot.app.screen
        screen._show_columns(("feature", "tokens", f"auroc:{LABEL}"))
        await press(pilot, "space", "space")
        saved = JsonObject.of(screen.state(), "state")
        assert saved_columns(saved) == ("feature", "tokens", f"auroc:{LABEL}")
        assert list(saved_marks(saved)) == list(table(pilot).marks)


@pytest.mark.parametrize(
    "saved",
    [{"columns": ["colour"]}, {"columns": 7}, {"marks": [[5, 1]]}, {"marks": ["a"]}],
    ids=str,
)
def test_a_damaged_saved_state_is_refused(saved: Mapping):
    read = JsonObject.of(dict(saved), "state")
    take = saved_columns if "columns" in saved else saved_marks
    with pytest.raises(MiCrowError):
        take(read)


@pytest.mark.slow
async def test_a_label_that_another_index_lacks_is_left_out_and_kept(open_index):
    async with open_index((120, 24)) as pilot:
        screen = pilot.app.screen
        screen._show_columns(("feature", "auroc:nowhere", "density"))
        await settle(pilot)
        assert shown(pilot) == ["feature", "density"]
        assert screen.state()["columns"] == ["feature", "auroc:nowhere", "density"]
        assert not notices(pilot)


@pytest.mark.parametrize("width", [20, 34, 46, 80, 120, 300])
def test_columns_fill_the_width_and_keep_their_numbers_whole(width: int):
    needs = {"feature": 6, "density": 6, "max": 7, "tokens": 44, "tags": 9}
    found = layout(EVERYTHING, needs, width)
    cells = sum(cells for _, cells in found.columns) + 2 * (len(found.columns) - 1) + 2
    assert cells <= width
    assert found.columns[0][0].name == "feature"
    assert all(cells >= needs.get(c.name, 0) for c, cells in found.columns if c.is_number)
    assert {c.name for c, _ in found.columns} | set(found.left_out) == set(EVERYTHING)
    for column, _ in found.columns:
        assert titles_content(found, column.sort, True).cell_length <= width


@pytest.mark.parametrize("width", [30, 46, 60])
def test_a_narrow_table_leaves_out_figures_before_names(width: int):
    needs = {"feature": 5, "layer": 12, "density": 5, "max": 5, "meaning": 40}
    found = layout((DEFAULT[0], "layer", *DEFAULT[1:]), needs, width)
    assert "meaning" in {column.name for column, _ in found.columns}


def test_names_and_layers_make_room_for_density_and_maximum():
    needs = {"feature": 5, "layer": 13, "density": 6, "max": 5, "meaning": 40, "score": 4}
    found = layout((DEFAULT[0], "layer", *DEFAULT[1:]), needs, 45)  # beside a feature at 120x40
    widths = {column.name: cells for column, cells in found.columns}
    assert set(widths) == {"feature", "layer", "density", "max", "meaning"}
    assert (widths["layer"], widths["meaning"]) == (5, 11)
    layer = {"layer": "resid_post.11"}
    row = FeatureRow(7, 10, 0.04, 12.5, 1.0, "gardens", None, None, more=layer)
    assert re.search(r"  11 +4.0%  12.50  gardens", row_content(7, row, found, " ").plain)
    wide = layout((DEFAULT[0], "layer", *DEFAULT[1:]), needs, 90)
    assert "resid_post.11 " in row_content(7, row, wide, " ").plain


@pytest.mark.parametrize("width", [34, 80, 200])
def test_a_column_is_found_under_its_title(width: int):
    found = layout(DEFAULT, {}, width)
    titles = titles_content(found, "", True).plain
    for column, _ in found.columns:
        assert found.column_at(titles.index(column.title[:4])) == column
