"""The footer of Features: what escape does, and what can be done with marks."""

import pytest

from tests.tui.driving import press, screen_text, table


def footer(pilot) -> str:
    return screen_text(pilot).splitlines()[-1]


async def test_with_marks_it_offers_what_can_be_done_with_them(open_on):
    async with open_on("2", "g", size=(80, 24)) as pilot:
        assert "unmark" not in footer(pilot)
        await press(pilot, "space", "space")
        line = footer(pilot)
        assert "esc unmark 2" in line
        assert all(words in line for words in ("t tag", "s steer", "T tags", "e note"))
        await press(pilot, "escape")
        assert "unmark" not in footer(pilot)


async def test_a_line_that_asks_says_that_escape_leaves_it_and_the_marks(open_on):
    async with open_on("2", "g", size=(80, 24)) as pilot:
        await press(pilot, "space")
        for opens in ("T", "e", "slash", "number_sign"):
            await press(pilot, opens)
            assert "esc cancel" in footer(pilot), opens
            await press(pilot, "escape")
            assert "esc unmark 1" in footer(pilot), opens


async def test_an_open_feature_says_the_way_back_and_leaves_the_hidden_table_alone(open_on):
    async with open_on("2", "g", size=(80, 24)) as pilot:
        ids = list(table(pilot).shown_ids)
        await press(pilot, "enter")
        assert "esc table" in footer(pilot)
        await press(pilot, "O", "f", "vertical_line")
        assert list(table(pilot).shown_ids) == ids
        await press(pilot, "escape")
        assert "o order" in footer(pilot)


@pytest.mark.parametrize("zoomed", [False, True])
async def test_a_filter_and_an_order_bring_the_hidden_table_back(open_on, zoomed):
    size, zoom = ((120, 40), ["plus"]) if zoomed else ((80, 24), [])
    async with open_on("2", "g", size=size) as pilot:
        await press(pilot, "enter", *zoom, "slash")
        assert table(pilot).region
        await press(pilot, *"like:1", "enter")
        assert table(pilot).has_focus
        assert "esc table" not in footer(pilot)
        await press(pilot, "escape", "enter")
        before = pilot.app.screen.state()["sort"]
        await press(pilot, "o")
        assert table(pilot).has_focus
        assert table(pilot).region
        assert pilot.app.screen.state()["sort"] != before


async def test_the_way_to_all_features_is_named_while_some_are_left_out(open_index):
    async with open_index(size=(80, 24)) as pilot:
        await press(pilot, "slash", *"anchor", "enter")
        assert "esc all features" in footer(pilot)
        await press(pilot, "escape")
        assert table(pilot).row_count == len(table(pilot).shown_ids)
        assert "all features" not in footer(pilot)


async def test_an_unknown_tag_is_told_in_the_empty_table(open_on):
    async with open_on("2", "g", size=(120, 40)) as pilot:
        await press(pilot, "slash", *"tag:nosuch", "enter")
        assert "no tag “nosuch”" in screen_text(pilot)
