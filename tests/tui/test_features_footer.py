"""The footer of Features: what escape does, and what can be done with marks."""

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


async def test_an_open_feature_says_the_way_back_and_leaves_the_hidden_table_alone(open_on):
    async with open_on("2", "g", size=(80, 24)) as pilot:
        ids = list(table(pilot).shown_ids)
        await press(pilot, "enter")
        assert "esc table" in footer(pilot)
        assert "o order" not in footer(pilot)
        await press(pilot, "o", "O", "f", "vertical_line")
        assert list(table(pilot).shown_ids) == ids
        await press(pilot, "escape")
        assert "o order" in footer(pilot)


async def test_an_unknown_tag_is_told_in_the_empty_table(open_on):
    async with open_on("2", "g", size=(120, 40)) as pilot:
        await press(pilot, "slash", *"tag:nosuch", "enter")
        assert "no tag “nosuch”" in screen_text(pilot)
