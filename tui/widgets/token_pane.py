"""A text as tokens with heat and a cursor that walks over them."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from itertools import zip_longest

from rich.cells import cell_len
from textual import events
from textual.content import Content
from textual.geometry import Region
from textual.message import Message
from textual.reactive import reactive

from tui.text import printable
from tui.widgets.lists.line_view import LineView
from tui.widgets.lists.row_list import fitted
from tui.widgets.token_cursor import TokenCursor
from tui.widgets.token_heat import (
    HeatMarks,
    Line,
    Piece,
    heat_line,
    heat_mode,
    peak_index,
    wrap_tokens,
)

_WIDEST = 16  # cells of a token that has labels under it


@dataclass(frozen=True)
class _UnderLine:
    """The labels of one rank under a line of tokens: token, label, cells."""

    labels: tuple[tuple[int, str, int], ...]


class TokenPane(LineView, TokenCursor):
    """Tokens under the keys: left and right by token, up and down by line. A move draws the lines
    of the two tokens that it changes. Labels may be under each token."""

    cursor: reactive[int] = reactive(0, init=False, repaint=False)

    @dataclass
    class Moved(Message):
        """The cursor is on another token."""

        pane: "TokenPane"
        token: int

        @property
        def control(self) -> "TokenPane":
            return self.pane

    def __init__(self, id: str | None = None) -> None:
        super().__init__(id=id)
        self._texts: Sequence[str] = ()
        self._values: Sequence[float] = ()
        self._top: float | None = None
        self._dimmed: frozenset[int] = frozenset()
        self._differing: frozenset[int] = frozenset()
        self._under: Sequence[Sequence[str]] = ()
        self._wrapped: tuple[Line, ...] = ()
        self._labels: dict[int, _UnderLine] = {}  # by line
        self._seen: list[int] = []  # the tokens that have something to show, in order

    def show(
        self,
        texts: Sequence[str],
        dimmed: Collection[int] = (),
        differing: Collection[int] = (),
    ) -> None:
        """Shows a new text without heat. `dimmed`: special and outlier tokens; `differing`: those
        that another text does not have."""
        self._texts, self._dimmed = tuple(texts), frozenset(dimmed)
        self._differing = frozenset(differing)
        self._values, self._top, self._under = (), None, ()
        self.set_reactive(TokenPane.cursor, 0)
        self.rewrap()

    def heat(self, values: Sequence[float], top: float | None = None) -> None:
        """Heats the tokens with one value each (a feature's activations); `top` is what the hottest
        step stands for, by default the greatest value."""
        heat = tuple(values)
        if (heat, top) != (self._values, self._top):
            self._values, self._top = heat, top
            self._paint()

    def put_under(self, labels: Sequence[Sequence[str]]) -> None:
        """Shows labels under the tokens, for each some lines; without any the text alone."""
        self._under = tuple(tuple(one) for one in labels)
        self.rewrap()

    @property
    def token(self) -> int | None:
        """The token under the cursor."""
        return self.cursor if self._texts else None

    def rewrap(self) -> None:
        width = max(self.text_width - 1, 2)
        self._labels = {}
        self._wrapped = self._in_columns(width) if self._under else wrap_tokens(self._texts, width)
        self._seen = sorted({piece.index for line in self._wrapped for piece in line})
        if self._seen and self.cursor not in self._seen:
            self.set_reactive(TokenPane.cursor, self._seen[0])
        self._paint()

    def _in_columns(self, width: int) -> tuple[Line, ...]:
        """Lines of tokens, each over the lines of its labels and an empty one."""
        lines: list[Line] = []
        row: list[tuple[int, str, int]] = []  # token, text, cells
        used = 0
        for token, text in enumerate(self._texts):
            shown = printable(text).strip() or "·"
            labels = self._under[token] if token < len(self._under) else ()
            needed = max(cell_len(shown), *map(cell_len, labels), 1)
            cells = min(needed, _WIDEST, width) + 1
            if row and used + cells > width:
                self._add_columns(lines, row)
                row, used = [], 0
            row.append((token, shown, cells))
            used += cells
        if row:
            self._add_columns(lines, row)
        return tuple(lines)

    def _add_columns(self, lines: list[Line], row: Sequence[tuple[int, str, int]]) -> None:
        lines.append(
            tuple(
                Piece(token, fitted(Content(text), cells - 1).plain + " ")
                for token, text, cells in row
            )
        )
        columns = [self._under[token] if token < len(self._under) else () for token, _, _ in row]
        for rank in zip_longest(*columns, fillvalue=""):
            labels = tuple(
                (token, label, cells) for (token, _, cells), label in zip(row, rank, strict=True)
            )
            self._labels[len(lines)] = _UnderLine(labels)
            lines.append(tuple(Piece(token, " " * cells) for token, _, cells in labels))
        lines.append(())

    def _paint(self) -> None:
        """All lines as they look without the cursor."""
        self.set_lines([self._heated(line) for line in range(len(self._wrapped))])

    def _heated(self, line: int, cursor: int | None = None) -> Content:
        if (under := self._labels.get(line)) is not None:
            return self._label_line(under, cursor)
        peak = peak_index(self._values)
        top = self._values[peak] if peak is not None else 0.0
        marks = HeatMarks(peak, cursor, self._dimmed, self._differing)
        mode = heat_mode(self.app)
        return heat_line(self._wrapped[line], self._values, self._top or top, mode, marks)

    def _label_line(self, under: _UnderLine, cursor: int | None) -> Content:
        parts = []
        for token, label, cells in under.labels:
            style = "bold $foreground" if token == cursor else "$muted"
            cell = fitted(Content(printable(label)), cells - 1).stylize(style)
            parts += [cell, Content(" ")]
        return Content.assemble(*parts)

    def look_of(self, line: int) -> str:
        has_cursor = self.has_focus and line in self._lines_of(self.cursor)
        return f"cursor on {self.cursor}" if has_cursor else ""

    def line_content(self, line: int, look: str) -> Content:
        return self._heated(line, self.cursor) if look else self._lines[line]

    # Moving.

    def watch_cursor(self, before: int, now: int) -> None:
        if before != now:
            self._refresh_token(before)
            self._refresh_token(now)
            lines = self._lines_of(now) or range(1)
            region = Region(0, lines.start, 1, len(lines))
            self.scroll_to_region(region, animate=False, force=True)
            self.post_message(self.Moved(self, now))

    def _refresh_token(self, token: int) -> None:
        lines = self._lines_of(token)
        if lines:
            self.refresh_lines(lines.start, len(lines))

    def _lines_of(self, token: int) -> range:
        """The lines that show a token: a long one, or one with a line feed, has several."""
        shows = [
            number
            for number, line in enumerate(self._wrapped)
            if line and line[0].index <= token <= line[-1].index
        ]
        return range(shows[0], shows[-1] + 1) if shows else range(0)

    def _line_of(self, token: int) -> int:
        for number, line in enumerate(self._wrapped):
            if any(piece.index == token for piece in line):
                return number
        return 0

    def _column_of(self, token: int) -> int:
        column = 0
        for piece in self._wrapped[self._line_of(token)] if self._wrapped else ():
            if piece.index == token:
                break
            column += len(piece.text)
        return column

    def _at(self, line: int, column: int) -> int | None:
        """The token at a place, the line's last one beyond its end."""
        if not 0 <= line < len(self._wrapped) or not self._wrapped[line]:
            return None
        end = 0
        for piece in self._wrapped[line]:
            end += len(piece.text)
            if column < end:
                return piece.index
        return self._wrapped[line][-1].index

    @property
    def token_count(self) -> int:
        return len(self._texts)

    def move_by(self, *, tokens: int = 0, lines: int = 0) -> None:
        if lines:
            self._step_lines(lines)
        else:
            self._step(tokens)

    def _step(self, tokens: int) -> None:
        if self._seen:
            place = self._seen.index(self.cursor) + tokens
            self.cursor = self._seen[max(0, min(place, len(self._seen) - 1))]

    def _step_lines(self, lines: int) -> None:
        """Moves by lines of tokens; the labels under them are not stopped at."""
        own = self._token_lines()
        if not own:
            return
        here = self._line_of(self.cursor)
        target = own[max(0, min(own.index(here) + lines, len(own) - 1))]
        token = self._at(target, self._column_of(self.cursor))
        if token is not None and target != here:
            # A token that starts on the line above leads back there: take the one after it.
            starting = [piece.index for piece in self._wrapped[target] if piece.index > token]
            on_line = self._line_of(token) == target
            self.cursor = token if on_line or not starting else starting[0]

    def _token_lines(self) -> list[int]:
        return [n for n, line in enumerate(self._wrapped) if line and n not in self._labels]

    @property
    def page(self) -> int:
        """Lines of tokens in view, less one."""
        apart = len(self._wrapped) / max(len(self._token_lines()), 1)
        return max(int(self.size.height / max(apart, 1)) - 1, 1)

    def on_focus(self) -> None:
        self._refresh_token(self.cursor)

    def on_blur(self) -> None:
        self._refresh_token(self.cursor)

    def on_click(self, event: events.Click) -> None:
        token = self._at(event.y + round(self.scroll_offset.y), event.x)
        if token is not None:
            self.cursor = token
