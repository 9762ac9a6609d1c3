"""The texts on which a feature fires, with token heat; list keys go from one to the next."""

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from textual import events
from textual.content import Content
from textual.geometry import Region
from textual.message import Message
from textual.reactive import reactive

from tui.actions import bindings
from tui.text import number, printable
from tui.widgets.lists.line_view import LineView
from tui.widgets.token_heat import (
    HeatMarks,
    HeatMode,
    Line,
    heat_line,
    heat_mode,
    quoted,
    token_window,
    wrap_tokens,
)

if TYPE_CHECKING:
    from mi_crow.mechanistic.features.records import Example

_ELLIPSIS = "…"


def example_lines(
    example: "Example", top: float, width: int, max_lines: int, mode: HeatMode = "colour"
) -> list[Content]:
    """One example: its peak written out, then the tokens around it in at most `max_lines` lines.

    `top` is the activation of the last step, so that examples of one feature compare.
    """
    texts, acts = list(example.tokens), list(example.acts)
    peak = min(max(example.position - example.window_start, 0), max(len(texts) - 1, 0))
    token = quoted(texts[peak]) if texts else ""
    label = printable(example.label) if example.label else ""
    head = Content.assemble(
        (f"{number(example.activation, 2):>6}", "bold $accent"),
        f" {token}",
        (f"   {label}" if label else "", "$muted"),
        (f"   document {example.document}", "$faint"),
    )
    lines: Sequence[Line] = ()
    values: list[float] = []
    marks = HeatMarks()
    for cut in range(4):  # words that do not break well need a little more room than they count
        cells = (width - 1) * max_lines - 2 - cut * (width // 6)
        start, stop = token_window(texts, peak, cells) if texts else (0, 0)
        before = [_ELLIPSIS] if start > 0 or example.window_start > 0 else []
        after = [_ELLIPSIS] if stop < len(texts) else []
        lines = wrap_tokens([*before, *texts[start:stop], *after], width)
        values = [0.0] * len(before) + acts[start:stop] + [0.0] * len(after)
        marks = HeatMarks(
            peak=peak - start + len(before),
            dimmed=frozenset(([0] if before else []) + ([len(values) - 1] if after else [])),
        )
        if len(lines) <= max_lines:
            break
    lines = _around(lines, marks.peak, max_lines)
    head = head.truncate(width, ellipsis=True)
    return [head, *(heat_line(line, values, top, mode, marks) for line in lines)]


def _around(lines: Sequence[Line], peak: int | None, count: int) -> Sequence[Line]:
    """At most `count` of the lines, the one with the peak among them (line feeds make many)."""
    at = next((n for n, line in enumerate(lines) if any(p.index == peak for p in line)), 0)
    first = max(0, min(at - count + 2, len(lines) - count))
    return lines[first : first + count]


class ExampleList(LineView):
    """Examples under one another."""

    BINDINGS = bindings("list")
    cursor: reactive[int] = reactive(0, init=False, repaint=False)

    @dataclass
    class Opened(Message):
        """Enter, or a click on the example that already had the cursor."""

        example: "Example"

    def __init__(self, id: str | None = None) -> None:
        super().__init__(id=id)
        self._examples: Sequence[Example] = ()
        self._top = 0.0
        self._empty = ""
        self._starts: list[int] = []

    def show(self, examples: "Sequence[Example]", top: float, empty: str = "") -> None:
        """Shows `examples`; `top` is the activation that gets the last heat step."""
        self._examples, self._top, self._empty = tuple(examples), top, empty
        self.set_reactive(ExampleList.cursor, 0)
        self.scroll_to(0, 0, animate=False, force=True)
        self.rewrap()

    @property
    def example(self) -> "Example | None":
        """The example under the cursor."""
        return self._examples[self.cursor] if self._examples else None

    def rewrap(self) -> None:
        width, mode = self.text_width - 2, heat_mode(self.app)
        room = 2 if self.size.height < 18 else 3 if self.size.height < 40 else 4
        lines: list[Content] = []
        self._starts = []
        for example in self._examples:
            self._starts.append(len(lines))
            body = example_lines(example, self._top, max(width, 8), room, mode)
            lines += [Content("  ") + line for line in body]
            lines.append(Content(""))
        if not self._examples and self._empty:
            lines = [Content.assemble("  ", (self._empty, "$muted"))]
        self.set_lines(lines)
        self._keep_cursor_visible()

    def look_of(self, line: int) -> str:
        return "cursor" if self.has_focus and line in self._lines_of(self.cursor) else ""

    def line_content(self, line: int, look: str) -> Content:
        content = self._lines[line]
        return Content.styled("▌", "$primary") + content[1:] if look else content

    def _lines_of(self, place: int) -> range:
        """The lines of the example at `place`, without the blank one below them."""
        if not 0 <= place < len(self._starts):
            return range(0)
        first = self._starts[place]
        after = self._starts[place + 1 : place + 2] or [len(self._lines)]
        return range(first, after[0] - 1)

    def _refresh_example(self, place: int) -> None:
        lines = self._lines_of(place)
        if lines:
            self.refresh_lines(lines.start, len(lines))

    # Moving.

    def validate_cursor(self, cursor: int) -> int:
        return max(0, min(cursor, len(self._examples) - 1))

    def watch_cursor(self, before: int, now: int) -> None:
        self._keep_cursor_visible()
        self._refresh_example(before)
        self._refresh_example(now)

    def _keep_cursor_visible(self) -> None:
        if self._starts:
            lines = self._lines_of(self.cursor)
            region = Region(0, lines.start, 1, len(lines))
            self.scroll_to_region(region, animate=False, force=True)

    def on_resize(self) -> None:
        self.rewrap()

    def on_focus(self) -> None:
        self._refresh_example(self.cursor)

    def on_blur(self) -> None:
        self._refresh_example(self.cursor)

    def action_cursor_down(self) -> None:
        self.cursor += 1

    def action_cursor_up(self) -> None:
        self.cursor -= 1

    def action_page_down(self) -> None:
        self._to_line(round(self.scroll_offset.y) + self.size.height)

    def action_page_up(self) -> None:
        self._to_line(self._lines_of(self.cursor).start - self.size.height)

    def _to_line(self, line: int) -> None:
        if self._starts:
            self.cursor = max(bisect_right(self._starts, max(line, 0)) - 1, 0)

    def action_first(self) -> None:
        self.cursor = 0

    def action_last(self) -> None:
        self.cursor = len(self._examples) - 1

    def action_select_row(self) -> None:
        if self.example is not None:
            self.post_message(self.Opened(self.example))

    def on_click(self, event: events.Click) -> None:
        if not self._starts:
            return
        place = max(bisect_right(self._starts, event.y + round(self.scroll_offset.y)) - 1, 0)
        if place == self.cursor:
            self.action_select_row()
        self.cursor = place
