"""A list of one-line rows under a cursor: what every list shares."""

import re
from collections.abc import Callable
from textwrap import wrap

from textual import events
from textual.content import Content
from textual.geometry import Region
from textual.reactive import reactive
from textual.strip import Strip

from tui.actions import bindings
from tui.themes.readable import ROLES
from tui.widgets.lists.strip_view import StripView

Sentence = str | Callable[[], str]
"""What an empty list says; one that names keys is made when it is shown."""

_ROLE = re.compile(rf"\$({'|'.join(ROLES)})(?![\w-])")


def _on_cursor(content: Content) -> Content:
    """The same text in the colours that read on the ground of the cursor's row."""
    spans = [
        span._replace(style=_ROLE.sub(r"$\1-on-cursor", span.style))
        if isinstance(span.style, str) and " on " not in span.style
        else span
        for span in content.spans
    ]
    return Content(content.plain, spans)


class Cursor(StripView):
    """Moves a cursor over items with the keys of the action table. Subclasses say how many items
    there are, draw one again, and what choosing one means."""

    BINDINGS = bindings("list")
    cursor: reactive[int] = reactive(0, init=False, repaint=False)

    @property
    def item_count(self) -> int:
        raise NotImplementedError

    def refresh_item(self, place: int) -> None:
        """Draws an item that got or lost the cursor."""
        raise NotImplementedError

    def action_select_row(self) -> None:
        """Posts the message that the item under the cursor was chosen."""

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        return action != "select_row" or self.item_count > 0

    def validate_cursor(self, cursor: int) -> int:
        return max(0, min(cursor, self.item_count - 1))

    def on_focus(self) -> None:
        self.refresh_item(self.cursor)

    def on_blur(self) -> None:
        self.refresh_item(self.cursor)

    def action_cursor_down(self) -> None:
        self.cursor += 1

    def action_cursor_up(self) -> None:
        self.cursor -= 1

    def action_first(self) -> None:
        self.cursor = 0

    def action_last(self) -> None:
        self.cursor = self.item_count - 1


class CursorList(Cursor):
    """One-line rows; a move draws the two lines that it changes.

    Subclasses know their rows: `row_count`, `row_content`, and what a chosen row means.
    """

    COMPONENT_CLASSES = {"list--cursor", "list--cursor-blurred"}

    def __init__(
        self, empty: Sentence = "", id: str | None = None, classes: str | None = None
    ) -> None:
        super().__init__(id=id, classes=classes)
        self._empty = empty  # shown while there are no rows
        self._had_rows = False

    @property
    def item_count(self) -> int:
        return self.row_count

    def refresh_item(self, place: int) -> None:
        self.refresh_line(place)

    def row_content(self, index: int, width: int, marker: str) -> Content:
        """One row in `width` cells; `marker` is in the first of them."""
        raise NotImplementedError

    def tell_highlighted(self) -> None:
        """Posts the message that the cursor is on another row."""

    def say_empty(self, sentence: Sentence) -> None:
        """Shows `sentence` while there are no rows: none yet, not read yet, none that match."""
        if sentence != self._empty:
            self._empty = sentence
            self.refresh()

    def rows_changed(self, cursor: int) -> None:
        """Draws all rows again, with the cursor on row `cursor`."""
        if (self.row_count > 0) != self._had_rows:
            self._had_rows = not self._had_rows
            self.refresh_bindings()  # whether enter opens anything
        self.forget_strips()
        self.set_line_count(self.row_count)
        self.set_reactive(Cursor.cursor, max(cursor, 0))
        self._keep_cursor_visible()
        self.refresh()

    # Drawing.

    def render_line(self, y: int) -> Strip:
        if not self.row_count and self._empty:
            empty = self._empty if isinstance(self._empty, str) else self._empty()
            lines = wrap(empty, max(self.text_width - 1, 1))
            said = f" {lines[y]}" if y < len(lines) else ""
            return self._strip(Content.styled(said, "$muted"), self.text_width)
        return super().render_line(y)

    def look_of(self, line: int) -> str:
        if line != self.cursor:
            return ""
        lit = self.has_focus or self.has_class("-lit")
        return "list--cursor" if lit else "list--cursor-blurred"

    def line_content(self, line: int, look: str) -> Content:
        marker = "▌" if look == "list--cursor" else " "
        content = self.row_content(line, self.text_width, marker)
        return _on_cursor(content) if look == "list--cursor" else content

    # Moving.

    def watch_cursor(self, before: int, now: int) -> None:
        self._keep_cursor_visible()
        self.refresh_line(before)
        self.refresh_line(now)
        self.tell_highlighted()

    def _keep_cursor_visible(self) -> None:
        """Where the list has its lines for itself, a terminal scrolls it; beside another pane each
        line is sent again, so that it moves by a third of its height at once."""
        height, top, line = self.size.height, round(self.scroll_offset.y), self.cursor
        beyond = min(line - top, 0) + max(line - top - height + 1, 0)
        more = height // 3 if self.outer_size.width < self.app.size.width else 0
        if 0 < abs(beyond) <= more:
            line = max(0, min(line + (more if beyond > 0 else -more), self.row_count - 1))
        self.scroll_to_region(Region(0, line, 1, 1), animate=False, force=True)

    def action_page_down(self) -> None:
        self.cursor += max(self.size.height - 1, 1)

    def action_page_up(self) -> None:
        self.cursor -= max(self.size.height - 1, 1)

    def on_click(self, event: events.Click) -> None:
        index = event.y + round(self.scroll_offset.y)
        if 0 <= index < self.row_count:
            if index == self.cursor:
                self.action_select_row()
            self.cursor = index
