"""The lines that a text takes on the screen are those of what it says now."""

from textual.app import App
from textual.content import Content

from tests.tui.driving import screen_text, settle
from tui.terminal.frames import OneFrame
from tui.widgets.words import Words


class _TextScreen(OneFrame[None]):
    def compose(self):
        yield Words("one", id="fixed")
        yield Words("one", id="free")
        yield Words("below", id="below")


class _TextApp(App[None]):
    CSS = "#fixed { height: 2; } #free { height: auto; }"

    def get_default_screen(self):
        return _TextScreen()


async def test_a_text_moves_others_where_it_takes_other_lines():
    async with _TextApp().run_test(size=(20, 10)) as pilot:
        fixed, free, _ = pilot.app.screen.query(Words)
        for text, height in (("two", 1), ("a\nb\nc", 3), (Content("a\nb"), 2), ("x" * 30, 2)):
            fixed.update(text)
            free.update(text)
            await pilot.pause()
            assert (fixed.size.height, free.size.height) == (2, height)
            assert str(free.visual)[:1] in screen_text(pilot)


async def test_what_is_written_between_a_layout_and_its_turn_has_its_lines():
    async with _TextApp().run_test(size=(20, 10)) as pilot:
        _, free, below = pilot.app.screen.query(Words)
        free.update("a\nb")
        below.update("two\nlines")
        below._check_refresh()  # its turn comes first, and all is laid out for it
        pilot.app.screen._refresh_layout()
        assert free.size.height == 2
        free.update("a\nb\nc")
        await settle(pilot)
        assert free.size.height == 3
        assert below.region.y == 5
