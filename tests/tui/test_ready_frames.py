"""What is ready before it is asked for, and what a frame leaves as it stands."""

import asyncio

import pytest
from rich.console import Console
from rich.segment import Segment
from rich.style import Style as GroundStyle
from textual import events
from textual._ansi_theme import DEFAULT_TERMINAL_THEME
from textual._compositor import Compositor
from textual._context import visible_screen_stack
from textual.color import Color
from textual.containers import Vertical
from textual.filter import ANSIToTruecolor
from textual.scrollbar import ScrollBarRender
from textual.strip import Strip
from textual.style import Style
from textual.visual import RenderOptions
from textual.widget import Widget

from mi_crow.mechanistic.features.queries import FeatureStore
from tests.tui.driving import press, screen_text, settle
from tui.screens.base import MiCrowScreen
from tui.screens.features.detail import FeatureDetailPane
from tui.terminal.compositor import PieceCompositor
from tui.terminal.frames import KEPT_S
from tui.terminal.line_filter import filtered, gate
from tui.terminal.scrollbars import KeptBar
from tui.widgets.frame.footer import FooterBar
from tui.widgets.frame.header import TabLine


@pytest.fixture
async def wide_features(open_on):
    """Features with the table and the open feature beside it."""
    async with open_on("2", size=(200, 40)) as pilot:
        yield pilot


async def test_a_number_that_is_typed_is_read_before_it_is_entered(wide_features, monkeypatch):
    read: list[int] = []
    reading = FeatureStore.detail

    def counting(store, feature):
        read.append(feature)
        return reading(store, feature)

    monkeypatch.setattr(FeatureStore, "detail", counting)
    await press(wide_features, "#", "9")
    await settle(wide_features)
    assert read == [9]
    await press(wide_features, "enter")
    assert wide_features.app.screen.query_one(FeatureDetailPane).feature == 9
    assert read == [9]
    await press(wide_features, "#", *"999999", "escape")  # no feature has such a number
    assert max(read) < wide_features.app.context.features.meta().n_features


async def test_a_name_that_comes_while_a_number_is_typed_is_shown(wide_features):
    context = wide_features.app.context
    await press(wide_features, "#", "9")
    context.annotations.set_concept(context.sae_id, 9, "a late name")
    wide_features.app.look_now()
    await settle(wide_features)
    await press(wide_features, "enter")
    assert "#9  a late name" in screen_text(wide_features)


async def test_a_focus_that_moves_draws_nothing_else_again(wide_features, monkeypatch):
    lines: set[int] = set()
    draw = PieceCompositor._drawn

    def noting(compositor, spans):
        spans = list(spans)
        lines.update(y for y, _, _ in spans)
        return draw(compositor, spans)

    monkeypatch.setattr(PieceCompositor, "_drawn", noting)
    await press(wide_features, "tab")
    assert lines
    assert 0 not in lines  # of the header


async def test_a_name_is_drawn_before_anything_is_laid_out_for_what_follows(
    wide_features, monkeypatch
):
    happened: list[str] = []
    draw, reflow = PieceCompositor._drawn, Compositor.reflow

    def noting(compositor, spans):
        pieces = draw(compositor, spans)
        strips = [one for line in pieces for one in line.values() if one is not None]
        happened.append("named" if "qqq" in "".join(one.text for one in strips) else "drawn")
        return pieces

    def counting(compositor, *arguments):
        happened.append("laid out")
        return reflow(compositor, *arguments)

    await press(wide_features, "t", *"qqq")
    monkeypatch.setattr(PieceCompositor, "_drawn", noting)
    monkeypatch.setattr(Compositor, "reflow", counting)
    await press(wide_features, "enter")
    assert happened[0] == "named"
    assert "laid out" in happened


async def test_of_a_pane_that_only_frames_others_one_line_is_drawn(wide_features, monkeypatch):
    lines: list[int] = []
    draw = Vertical.render_lines

    def counting(pane, crop):
        lines.append(crop.height if pane.id == "feature-side" else 0)
        return draw(pane, crop)

    monkeypatch.setattr(Widget, "render_lines", counting)
    await press(wide_features, "#", "9", "enter")
    asked = [one for one in lines if one]
    assert asked
    assert sum(asked) <= 2 * len(asked)  # not its thirty


async def test_the_keys_of_a_place_are_written_once(wide_features, monkeypatch):
    await press(wide_features, "tab", "shift+tab")
    written: list[object] = []
    write = FooterBar.render
    monkeypatch.setattr(FooterBar, "render", lambda bar: (written.append(bar), write(bar))[1])
    before = screen_text(wide_features)
    await press(wide_features, "tab")
    assert screen_text(wide_features) != before
    await press(wide_features, "shift+tab")
    assert screen_text(wide_features) == before
    assert not written
    await press(wide_features, "#")
    assert written


async def test_a_screen_that_is_made_is_marked_before_it_is(open_on, monkeypatch):
    drawn: list[tuple[str, str]] = []
    draw_now = MiCrowScreen.draw_now

    def drawing(screen, widget):
        draw_now(screen, widget)
        drawn.append((pilot.app.current_mode, pilot.app.going_to))

    async with open_on("2", "enter", size=(120, 40)) as pilot:
        monkeypatch.setattr(MiCrowScreen, "draw_now", drawing)
        line = pilot.app.screen.query_one(TabLine)
        before = str(line.render().spans)
        await press(pilot, "enter")
        assert drawn == [("features", "inspect")]
        assert pilot.app.current_mode == "inspect"
        assert str(line.render().spans) != before
        await press(pilot, "escape", "2", "3")
        assert len(drawn) == 1  # it is there


def test_a_line_that_no_filter_changes_stays_the_same():
    ground = Color.parse("#101010")
    filters = gate(ANSIToTruecolor(DEFAULT_TERMINAL_THEME))
    plain, red = GroundStyle(color="#ff0000"), GroundStyle(color="red")
    dim = GroundStyle(color="#ff0000", dim=True)
    strips = [Strip([Segment(*one)]) for one in (("a", plain), ("b", None), ("a\x07", plain))]
    strips += [Strip([Segment("a", style)]) for style in (red, dim)]
    found = filtered(strips, filters, ground)
    assert [one is two for one, two in zip(strips, found, strict=True)] == [True] * 2 + [False] * 3
    for before, after in zip(strips, found, strict=True):
        assert after == before.apply_filter(filters[0], ground)


async def test_a_key_is_drawn_as_soon_as_it_has_acted_and_once(open_on, monkeypatch):
    monkeypatch.setattr("tui.terminal.frames.KEPT_S", 60.0)  # however long the key takes
    async with open_on("1", "G", size=(200, 40)) as pilot:
        app, frames = pilot.app, []
        screen, draw = app.screen, PieceCompositor.render_partial_update

        def counting(compositor):
            frames.append(compositor)
            return draw(compositor)

        monkeypatch.setattr(PieceCompositor, "render_partial_update", counting)
        before, screen._drawn_at = app.focused, 0.0  # not just now
        app._driver.process_message(events.Key("g", "g"))
        while not app.keys_act:
            await asyncio.sleep(0)
        while app.keys_act:
            screen._on_timer_update()  # Textual's timer, which is always about to
            await asyncio.sleep(0.001)
        assert app.focused is not before  # another list
        assert (len(frames), screen._dirty_widgets) == (1, set())


async def test_a_key_that_takes_long_keeps_no_frame_back_for_long(open_on, monkeypatch):
    async with open_on("1", size=(80, 24)) as pilot:
        screen, footer = pilot.app.screen, pilot.app.screen.query_one(FooterBar)
        monkeypatch.setattr(pilot.app, "_key_acts", True)
        screen._dirty_widgets.add(footer)
        screen._on_timer_update()
        assert screen._dirty_widgets
        screen._kept_since -= KEPT_S
        screen._on_timer_update()
        assert not screen._dirty_widgets


async def test_keys_that_stay_the_same_are_not_drawn_again(open_on, monkeypatch):
    async with open_on("1", size=(80, 24)) as pilot:
        drawn: list[object] = []
        refresh = FooterBar.refresh

        def counting(bar, *arguments, **settings):
            drawn.append(bar)
            return refresh(bar, *arguments, **settings)

        monkeypatch.setattr(FooterBar, "refresh", counting)
        pilot.app.screen.refresh_bindings()
        await settle(pilot)
        assert not drawn
        await press(pilot, "tab")  # to something with other keys
        assert drawn


async def test_a_move_among_the_concepts_lays_nothing_out(open_on, monkeypatch):
    def named(app):
        for feature in range(3):
            app.context.annotations.set_concept(app.context.sae_id, feature, f"name {feature}")

    async with open_on("5", size=(200, 24), before=named) as pilot:
        laid_out: list[bool] = []
        refresh = Widget.refresh

        def noting(widget, *regions, **settings):
            laid_out.append(bool(widget.id == "concepts-note" and settings.get("layout")))
            return refresh(widget, *regions, **settings)

        monkeypatch.setattr(Widget, "refresh", noting)
        before = screen_text(pilot)
        await press(pilot, "j")
        assert screen_text(pilot) != before
        assert not any(laid_out)


async def test_a_layout_that_moves_no_scrollbar_is_final(wide_features, monkeypatch):
    laid_out: list[object] = []
    reflow = Compositor.reflow

    def counting(compositor, *arguments):
        laid_out.append(compositor)
        return reflow(compositor, *arguments)

    monkeypatch.setattr(Compositor, "reflow", counting)
    await press(wide_features, "#")
    assert len(laid_out) == 1


@pytest.mark.parametrize("position", [0, 7, 80])
@pytest.mark.parametrize("vertical", [True, False])
def test_a_scrollbar_is_drawn_as_textual_draws_it(vertical, position):
    width, height = (2, 20) if vertical else (20, 2)
    sizes = {"virtual_size": 100, "window_size": 20, "position": position, "thickness": 2}
    bar = ScrollBarRender(**sizes, vertical=vertical, style="red on blue")
    console = Console(width=width, color_system="truecolor")
    options = console.options.update(width=width, height=height)
    ground = Style.from_rich_style(GroundStyle.parse("white on black"))
    expected = console.render_lines(bar, options, style=ground.rich_style, pad=False)
    kept = KeptBar(**sizes, vertical=vertical, style="red on blue")
    strips = kept.render_strips(width, height, ground, RenderOptions(lambda _: ground, {}))
    assert [Strip(line).simplify() for line in expected] == [one.simplify() for one in strips]


@pytest.mark.parametrize("theme", ["", "paper"])
async def test_what_is_under_a_popup_looks_as_textual_draws_it(run_app, app_workspace, theme):
    async with run_app(app_workspace, size=(80, 24)) as pilot:
        if theme:
            pilot.app.theme = next(name for name in pilot.app.available_themes if theme in name)
        await press(pilot, "n")  # a menu
        await press(pilot, "question_mark")  # help over it
        popup = pilot.app.screen

        def drawn(render) -> list[Strip]:
            visible_screen_stack.set(pilot.app._background_screens)
            render(popup)
            return [line.simplify() for line in popup._render_cache.lines]

        own = drawn(type(popup)._render_content)
        assert [line.text for line in own] != [" " * 80] * 24
        assert own == drawn(Widget._render_content)
