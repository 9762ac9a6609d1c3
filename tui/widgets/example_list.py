"""The texts on which a feature fires, with token heat; list keys go from one to the next."""

from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from textual import events
from textual.content import Content
from textual.geometry import Region
from textual.message import Message
from textual.strip import Strip

from tui.terminal.frames import OneFrame
from tui.threads import REST_S
from tui.widgets.example_lines import Drawing, ExampleLook, Folded, folded
from tui.widgets.lists.cursor_list import Cursor
from tui.widgets.lists.line_view import LineView
from tui.widgets.token_heat import heat_mode

if TYPE_CHECKING:
    from mi_crow.mechanistic.features.records import Example


class DrawnExamples:
    """Examples as lines, as far as they are drawn."""

    def __init__(self, examples: Sequence[Folded], top: float) -> None:
        """`top` is the activation that gets the last heat step."""
        self.examples = examples
        self.top = top
        self.lines: list[Content] = []
        self.starts: list[int] = []
        self.ends: list[int] = []

    @property
    def is_whole(self) -> bool:
        return len(self.starts) == len(self.examples)

    def draw(self, body: Callable[[int], list[Content]], until: int | None = None) -> None:
        """Draws the next examples, as many as make `until` lines. `body` gives those of one."""
        lines = self.lines.copy()  # what is shown is replaced, not written to
        for place in range(len(self.starts), len(self.examples)):
            if until is not None and len(lines) >= until:
                break
            of_one = body(place)
            self.starts.append(len(lines))
            lines += [Content("  ") + line for line in of_one]
            self.ends.append(len(lines))
            if len(of_one) > 1:
                lines.append(Content(""))
        self.lines = lines


class _Ahead(NamedTuple):
    """What is drawn before it is shown."""

    asked: object  # examples, their top activation and the way to draw them
    drawn: DrawnExamples
    strips: tuple[Strip, ...]


class ExampleList(LineView, Cursor):
    """Examples under one another."""

    @dataclass
    class Opened(Message):
        """Enter, or a click on the example that already had the cursor."""

        example: "Example"

    def __init__(self, id: str | None = None) -> None:
        super().__init__(id=id)
        self._empty = ""
        self._look: ExampleLook = "windows"
        self._drawn = DrawnExamples((), 0.0)
        self._drawn_for: object = None
        self._ahead: _Ahead | None = None

    def show(self, examples: "Sequence[Example]", top: float, empty: str = "") -> None:
        """Shows `examples`; `top` is the activation that gets the last heat step."""
        ahead, self._ahead, self._empty = self._ahead, None, empty
        self.set_reactive(ExampleList.cursor, 0)
        self.scroll_to(0, 0, animate=False, force=True)
        if ahead is None or ahead.asked != (examples, top, self._how):
            self._show(DrawnExamples(folded(examples), top))
            return
        self._show(ahead.drawn)
        width = self.text_width
        for line, strip in enumerate(ahead.strips):
            self._strips[line, width, ""] = strip

    def draw_ahead_of(self, examples: "Sequence[Example]", top: float) -> None:
        """Draws what `show` will be asked for soon, as far as there is room for it."""
        if self._look == "documents" or not self.size:
            return  # of those the one under the cursor is drawn in another way
        how, drawn = self._how, DrawnExamples(folded(examples), top)
        self._draw(drawn)
        width, shown = self.text_width, self.size.height + 1
        strips = tuple(self._strip(line, width) for line in drawn.lines[:shown])
        self._ahead = _Ahead((examples, top, how), drawn, strips)

    @property
    def example(self) -> "Example | None":
        """The example under the cursor."""
        examples = self._drawn.examples
        return examples[self.cursor].example if examples else None

    @property
    def item_count(self) -> int:
        """How many different texts there are."""
        return len(self._drawn.examples)

    @property
    def look(self) -> ExampleLook:
        """How the examples are drawn."""
        return self._look

    @look.setter
    def look(self, look: ExampleLook) -> None:
        if look != self._look:
            self._look = look
            self.scroll_to(0, 0, animate=False, force=True)
            self.rewrap()

    def rewrap(self) -> None:
        self._show(DrawnExamples(self._drawn.examples, self._drawn.top))

    @property
    def _how(self) -> object:
        """What lines are drawn by: as long as it is the same, so are they."""
        self._look_at_colours()
        return self.text_width, self._lines_each, self._look, heat_mode(self.app), self._drawn_in

    def _show(self, drawn: DrawnExamples) -> None:
        self._drawn, self._drawn_for = drawn, (self.text_width, self._lines_each)
        if not drawn.examples and self._empty:
            self.set_lines([Content.assemble("  ", (self._empty, "$muted"))])
        else:
            self._draw(drawn)
            # As many as there will be, or nearly so: the scrollbar stays as it is drawn first.
            count = round(len(drawn.lines) * len(drawn.examples) / max(len(drawn.starts), 1))
            self.set_lines(drawn.lines, count)
            if isinstance(self.screen, OneFrame) and self.screen.holds_frame:
                self.screen.call_with_frame(self._draw_rest_later)
            else:
                self.call_after_refresh(self._draw_rest)
        self._keep_cursor_visible()

    def _draw(self, drawn: DrawnExamples, *, whole: bool = False) -> None:
        """Draws the next examples, as many as there is room for, or all."""
        drawing = Drawing(drawn.top, max(self.text_width - 2, 8), heat_mode(self.app))
        body = partial(self._body, drawing, drawn.examples)
        drawn.draw(body, until=None if whole else self.size.height + 1)

    def _draw_rest_later(self) -> None:
        self.set_timer(REST_S, self._draw_rest)

    def _draw_rest(self) -> None:
        """Draws the examples below the screen, which the first frame did not wait for."""
        if not self._drawn.is_whole:
            self._draw(self._drawn, whole=True)
            self._lines = self._drawn.lines
            self.set_line_count(len(self._lines))

    def _body(self, drawing: Drawing, examples: Sequence[Folded], place: int) -> list[Content]:
        one = examples[place]
        if self._look == "aligned":
            return [drawing.aligned(one)]
        if self._look == "documents" and place == self.cursor:
            return drawing.document(one)
        if self._look != "windows":
            return [drawing.line(one)]
        return drawing.windows(one, self._lines_each)

    @property
    def _lines_each(self) -> int:
        height = self.size.height
        return 2 if height < 18 else 3 if height < 40 else 4

    def look_of(self, line: int) -> str:
        return "cursor" if self.has_focus and line in self._lines_of(self.cursor) else ""

    def line_content(self, line: int, look: str) -> Content:
        content = self._lines[line]
        return Content.styled("▌", "$primary") + content[1:] if look else content

    def _lines_of(self, place: int) -> range:
        """The lines of the example at `place`, without a blank one below them."""
        if not 0 <= place < len(self._drawn.starts):
            return range(0)
        return range(self._drawn.starts[place], self._drawn.ends[place])

    def refresh_item(self, place: int) -> None:
        lines = self._lines_of(place)
        if lines:
            self.refresh_lines(lines.start, len(lines))

    # Moving.

    def watch_cursor(self, before: int, now: int) -> None:
        if self._look == "documents":  # the one under the cursor is open
            self.rewrap()
            return
        self._keep_cursor_visible()
        self.refresh_item(before)
        self.refresh_item(now)

    def _keep_cursor_visible(self) -> None:
        if self._drawn.starts:
            if self.cursor >= len(self._drawn.starts):
                self._draw_rest()
            lines = self._lines_of(self.cursor)
            region = Region(0, lines.start, 1, min(len(lines), max(self.size.height, 1)))
            self.scroll_to_region(region, animate=False, force=True)

    def on_resize(self) -> None:
        if self._drawn_for != (self.text_width, self._lines_each):
            self.rewrap()
        else:
            self._keep_cursor_visible()

    def action_page_down(self) -> None:
        below = round(self.scroll_offset.y) + self.size.height
        if self._look == "documents" and self._lines_of(self.cursor).stop > below:
            self.scroll_to(y=below, animate=False)  # the rest of a long document
        else:
            self._to_line(below)

    def action_page_up(self) -> None:
        top = round(self.scroll_offset.y)
        if self._look == "documents" and self._lines_of(self.cursor).start < top:
            self.scroll_to(y=top - self.size.height, animate=False)
        else:
            self._to_line(self._lines_of(self.cursor).start - self.size.height)

    def _to_line(self, line: int) -> None:
        self._draw_rest()
        if self._drawn.starts:
            self.cursor = max(bisect_right(self._drawn.starts, max(line, 0)) - 1, 0)

    def action_select_row(self) -> None:
        if self.example is not None:
            self.post_message(self.Opened(self.example))

    def on_click(self, event: events.Click) -> None:
        if not self._drawn.starts:
            return
        place = max(bisect_right(self._drawn.starts, event.y + round(self.scroll_offset.y)) - 1, 0)
        if place == self.cursor:
            self.action_select_row()
        self.cursor = place
