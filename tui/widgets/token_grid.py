"""A grid of rows by tokens under a cursor: features of a text, layers of a model."""

from collections.abc import Sequence
from dataclasses import dataclass

from rich.cells import cell_len
from textual import events
from textual.content import Content
from textual.message import Message
from textual.reactive import reactive

from tui.text import printable
from tui.widgets.lists.row_list import fitted
from tui.widgets.token_cursor import TokenCursor
from tui.widgets.token_heat import HeatMode, heat_mode, heat_step, heat_style

_SPACE = "␣"  # before the text of a cell that starts with one
_LABEL_SHARE = 3  # the labels take at most the width by this


@dataclass(frozen=True)
class GridRow:
    """One row. `heat` is what colours a cell, as a share of 1; the text says the same in words."""

    key: str
    label: str
    heat: tuple[float, ...]
    texts: tuple[str, ...]  # empty: nothing there
    mark: str = ""


class TokenGrid(TokenCursor):
    """Cells under the keys of a text: left and right by token, up and down by row. The tokens are
    above; what does not fit scrolls with the cursor."""

    row: reactive[int] = reactive(0, init=False, repaint=False)
    column: reactive[int] = reactive(0, init=False, repaint=False)

    class Moved(Message):
        """The cursor is on another cell."""

    def __init__(self, cell: int, id: str | None = None) -> None:
        """`cell` is the width of a cell, without the gap before it."""
        super().__init__(id=id)
        self._cell = cell
        self._tokens: tuple[str, ...] = ()
        self._rows: tuple[GridRow, ...] = ()
        self._first_row = self._first_column = 0

    def show(
        self,
        tokens: Sequence[str],
        rows: Sequence[GridRow],
        column: int = 0,
        row: int = 0,
        cell: int | None = None,
    ) -> None:
        """Shows a grid with the cursor on `column` of `row`; `cell` is the width of its cells, by
        default as before."""
        self._tokens, self._rows = tuple(tokens), tuple(rows)
        self._cell = cell or self._cell
        self.set_reactive(TokenGrid.row, max(0, min(row, len(self._rows) - 1)))
        self.set_reactive(TokenGrid.column, max(0, min(column, len(tokens) - 1)))
        self._redraw()

    @property
    def key(self) -> str | None:
        """The key of the row under the cursor."""
        return self._rows[self.row].key if self._rows else None

    # Drawing: a line of tokens, then the rows in view.

    @property
    def row_count(self) -> int:
        return 1 + min(len(self._rows) - self._first_row, self._shown_rows)

    @property
    def _shown_rows(self) -> int:
        return max(self.size.height - 1, 1)

    @property
    def _label_width(self) -> int:
        longest = max((cell_len(printable(one.label)) for one in self._rows), default=0) + 2
        return min(longest, max(self.text_width // _LABEL_SHARE, 8))

    @property
    def _shown_columns(self) -> int:
        return max((self.text_width - self._label_width) // (self._cell + 1), 1)

    def line_content(self, line: int, look: str) -> Content:
        columns = range(len(self._tokens))[self._first_column :][: self._shown_columns]
        if line == 0:
            label = Content.styled(f"{self.column + 1} of {len(self._tokens)}", "$faint")
            cells = [self._token(column) for column in columns]
        else:
            place = self._first_row + line - 1
            row = self._rows[place]
            label = Content.assemble((row.mark, "$accent"), (printable(row.label), ""))
            if place == self.row:
                label = label.stylize("bold")
            cells = [self._cell_content(place, column) for column in columns]
        return Content.assemble(fitted(label, self._label_width), *cells)

    def _token(self, column: int) -> Content:
        text = printable(self._tokens[column]).strip() or "·"
        style = "bold $primary" if column == self.column else "$muted"
        return Content(" ") + fitted(Content.styled(text, style), self._cell)

    def _cell_content(self, place: int, column: int) -> Content:
        row = self._rows[place]
        text, mode = row.texts[column], heat_mode(self.app)
        step = heat_step(row.heat[column], 1.0)
        here = place == self.row and column == self.column
        space = _SPACE if text[:1] == " " else ""  # “ last” is a word, “un” goes on with one
        text = space + printable(text).strip() or "·"
        shown = fitted(Content(text), self._cell, "right" if text[:1].isdigit() else "left")
        style = _style(step, mode, here, self.has_focus)
        return Content(" ") + (shown.stylize(style) if style else shown.stylize("$faint"))

    def _redraw(self) -> None:
        if self.row < self._first_row:
            self._first_row = self.row
        elif self.row >= self._first_row + self._shown_rows:
            self._first_row = self.row - self._shown_rows + 1
        if self.column < self._first_column:
            self._first_column = self.column
        elif self.column >= self._first_column + self._shown_columns:
            self._first_column = self.column - self._shown_columns + 1
        # Nothing is left empty while rows or columns hide, also once the size is known.
        room = len(self._rows) - self._shown_rows, len(self._tokens) - self._shown_columns
        self._first_row = max(min(self._first_row, room[0]), 0)
        self._first_column = max(min(self._first_column, room[1]), 0)
        self.forget_strips()
        self.refresh()

    def on_resize(self) -> None:
        self._redraw()

    def on_focus(self) -> None:
        self._redraw()

    def on_blur(self) -> None:
        self._redraw()

    # Moving.

    @property
    def token_count(self) -> int:
        return len(self._tokens) if self._rows else 0

    @property
    def page(self) -> int:
        return self._shown_rows

    def move_by(self, *, tokens: int = 0, lines: int = 0) -> None:
        if not self._rows:
            return
        self.set_reactive(TokenGrid.row, max(0, min(self.row + lines, len(self._rows) - 1)))
        last = len(self._tokens) - 1
        self.set_reactive(TokenGrid.column, max(0, min(self.column + tokens, last)))
        self._redraw()
        self.post_message(self.Moved())

    def on_click(self, event: events.Click) -> None:
        column = (event.x - self._label_width) // (self._cell + 1) + self._first_column
        row = event.y - 1 + self._first_row
        if event.y and 0 <= row < len(self._rows) and 0 <= column < len(self._tokens):
            self.move_by(tokens=column - self.column, lines=row - self.row)


def _style(step: int, mode: HeatMode, here: bool, focused: bool) -> str:
    style = heat_style(step, mode)
    if here:
        turned = "underline" if "reverse" in style else "reverse"
        style = f"{style} {turned if focused else 'underline'}"
    return style.strip()
