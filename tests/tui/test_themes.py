"""Every theme is readable: 4.5:1 for each rank of text on each ground, in colour and in grey."""

import pytest
from textual.color import Color

from tests.tui.driving import press, screen_text, settle
from tui.themes.named import DEFAULT, KNOWN, OWN, theme
from tui.themes.readable import GROUNDS, HEAT_STEPS, READABLE, ROLES, contrast
from tui.widgets.lists.row_list import RowList

COLOURED_THEMES = [name for name, known in KNOWN.items() if not known.ansi]


@pytest.mark.parametrize("name", COLOURED_THEMES)
def test_every_role_reads_on_every_ground_and_on_the_cursor(name: str):
    found = theme(name)
    colours = found.to_color_system().generate() | found.variables
    pairs = [(role, ground) for role in ROLES for ground in GROUNDS]
    pairs += [(f"{role}-on-cursor", "cursor") for role in ROLES]
    pairs += [(f"heat-{step}-text", f"heat-{step}") for step in range(1, HEAT_STEPS + 1)]
    pairs += [("input-selection-foreground", "input-selection-background")]
    worst = {
        pair: round(ratio, 2)
        for pair in pairs
        if (ratio := contrast(*(Color.parse(colours[one]) for one in pair))) < READABLE
    }
    assert not worst


async def test_the_row_under_the_cursor_is_drawn_in_colours_for_it(app_workspace, run_app):
    """Reads the colours that were drawn, whatever styled them."""
    async with run_app(app_workspace, size=(120, 40)) as pilot:
        await press(pilot, "j")
        rows = pilot.app.screen.query_one("#list-jobs", RowList)
        rows.focus()
        await settle(pilot)
        strip = rows.render_line(rows.cursor)
        styles = [segment.style for segment in strip if segment.text.strip()]
        drawn = [
            contrast(Color.from_rich_color(style.color), Color.from_rich_color(style.bgcolor))
            for style in styles
            if style is not None and style.color and style.bgcolor
        ]
        assert len(drawn) >= 3
        assert min(drawn) >= READABLE


async def test_a_theme_is_shown_under_the_cursor_and_escape_leaves_the_old_one(
    empty_workspace, run_app
):
    async with run_app(empty_workspace) as pilot:
        await pilot.app.run_action("themes")
        await settle(pilot)
        await press(pilot, "j")
        assert pilot.app.theme == list(KNOWN)[1]
        await press(pilot, "escape")
        assert pilot.app.theme == DEFAULT
        await pilot.app.run_action("themes")
        await settle(pilot)
        await press(pilot, "j", "j", "enter")
        assert pilot.app.theme == list(KNOWN)[2]


async def test_the_screen_is_seen_in_a_theme_beside_the_choice(empty_workspace, run_app):
    async with run_app(empty_workspace, size=(80, 24)) as pilot:
        await pilot.app.run_action("themes")
        await settle(pilot)
        assert pilot.app.screen.query_one(".popup-box").region.x >= 40
        await press(pilot, "j")
        drawn = pilot.app.screen._compositor.render_strips()[1].crop(0, 30)
        styles = [part.style for part in drawn if part.text.strip()]
        wanted = Color.parse(pilot.app.theme_variables["muted"])
        assert {Color.from_rich_color(style.color) for style in styles if style} >= {wanted}


async def test_the_themes_of_our_own_come_round(empty_workspace, run_app):
    async with run_app(empty_workspace) as pilot:
        seen = []
        for _ in OWN:
            await pilot.app.run_action("next_theme")
            await settle(pilot)
            seen.append(pilot.app.theme)
            assert screen_text(pilot).strip()
        assert sorted(seen) == sorted(OWN)


@pytest.mark.slow
@pytest.mark.parametrize("name", list(OWN))
async def test_every_theme_of_our_own_draws_every_screen(app_workspace, run_app, name: str):
    async with run_app(app_workspace) as pilot:
        pilot.app.theme = name
        for digit in "123456":
            await press(pilot, "escape", digit)
            assert screen_text(pilot).strip()


@pytest.mark.slow
async def test_every_theme_is_drawn(app_workspace, run_app):
    async with run_app(app_workspace) as pilot:
        for digit, name in zip("123456" * len(KNOWN), KNOWN, strict=False):
            pilot.app.theme = name
            await press(pilot, "escape", digit)
            assert pilot.app.current_theme.name == name
            assert screen_text(pilot).strip()
