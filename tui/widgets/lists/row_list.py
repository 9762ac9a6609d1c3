"""A list of rows with aligned columns: virtual, quiet, moved with the keys of the action table."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

from textual import events
from textual.app import RenderResult
from textual.content import Content, Span
from textual.message import Message
from textual.widget import Widget

from tui.preferences.list_columns import Column
from tui.widgets.lists.cursor_list import CursorList, Sentence

_MARKS = " ●•▸▾"  # what is before a name in the first column
_NOTHING = ("", "–")  # what a cell shows that holds no value
_LEAST = 12  # cells of a column that takes what is left, beside others that somebody chose


@dataclass(frozen=True, slots=True)
class Cell:
    """Plain text in a theme style (`$muted`, `bold $accent`), and more of it in other styles.
    `value` is what orders the rows where the text does not."""

    text: str
    style: str = ""
    more: tuple[tuple[str, str], ...] = ()
    value: float | str | None = None


@dataclass(frozen=True, slots=True)
class Row:
    """One row; `key` is what opening it means."""

    key: str
    cells: tuple[Cell, ...] = field(default=())

    def value(self, place: int) -> float | str | None:
        return value_of(self.cells[place]) if place < len(self.cells) else None


def value_of(cell: Cell) -> float | str | None:
    """What orders the rows by this cell; None where it shows nothing."""
    if cell.value is not None:
        return cell.value
    text = cell.text.strip()
    return None if text in _NOTHING else text.casefold()


class ListedRow(Protocol):
    """What a list asks of its rows. Of many thousands, cells that nobody looks at are better not
    made."""

    @property
    def key(self) -> str: ...

    @property
    def cells(self) -> tuple[Cell, ...]: ...

    def value(self, place: int) -> float | str | None:
        """What orders the rows by the column at `place`; None where the cell is empty."""
        ...


class RowList(CursorList):
    """Rows under the cursor keys. Rows are plain text, never markup."""

    @dataclass(eq=False, repr=False)
    class Highlighted(Message):
        """The cursor is on another row, or the row under it changed."""

        row_list: "RowList"
        key: str | None

        @property
        def control(self) -> "RowList":
            return self.row_list

    @dataclass(eq=False, repr=False)
    class Opened(Message):
        """Enter, or a click on the row that already had the cursor."""

        row_list: "RowList"
        key: str

        @property
        def control(self) -> "RowList":
            return self.row_list

    @dataclass(eq=False, repr=False)
    class ToEnd(Message):
        """The cursor was sent to the first row (-1) or to the last (1): of this list, and of those
        that are in one column with it."""

        row_list: "RowList"
        direction: int

    @dataclass(eq=False, repr=False)
    class Overrun(Message):
        """A move beyond the first (-1) or the last (+1) row."""

        row_list: "RowList"
        direction: int

        @property
        def control(self) -> "RowList":
            return self.row_list

    def __init__(
        self,
        columns: Sequence[Column],
        *,
        empty: Sentence = "",
        id: str | None = None,
        classes: str | None = None,
    ) -> None:
        super().__init__(empty, id, classes)
        self._columns = tuple(columns)
        self._chosen: tuple[str, ...] = ()
        self._brought: frozenset[str] = frozenset()
        self._rows: tuple[ListedRow, ...] = ()

    @property
    def columns(self) -> tuple[Column, ...]:
        return self._columns

    @property
    def rows(self) -> tuple[ListedRow, ...]:
        return self._rows

    @property
    def row(self) -> ListedRow | None:
        """The row under the cursor."""
        return self._rows[self.cursor] if self._rows else None

    @property
    def row_count(self) -> int:
        return len(self._rows)

    @property
    def key(self) -> str | None:
        """The key of the row under the cursor."""
        return self.row.key if self.row is not None else None

    def text_to_copy(self) -> tuple[str, str]:
        if not self._rows:
            return "", ""
        return "\t".join(text.strip(_MARKS) for text in self.shown_texts()).strip(), "the row"

    def shown_texts(self) -> list[str]:
        """What the shown columns say of the row under the cursor, in full."""
        cells = self._rows[self.cursor].cells
        shown = [cells[at] for at, _ in self._fitting(self.text_width - 2) if at < len(cells)]
        return ["".join((cell.text, *(text for text, _ in cell.more))) for cell in shown]

    def set_rows(self, rows: Sequence[ListedRow]) -> None:
        """Shows `rows`; the cursor stays on the row with the same key where there is one."""
        rows = tuple(rows)
        if rows == self._rows:
            return
        old_key = self.key
        self._rows = rows
        keys = [row.key for row in rows]
        self.rows_changed(
            keys.index(old_key) if old_key in keys else min(self.cursor, len(rows) - 1)
        )
        self.tell_highlighted()

    def select(self, key: str) -> None:
        """Puts the cursor on the row with this key, if there is one."""
        for index, row in enumerate(self._rows):
            if row.key == key:
                self.cursor = index

    # Drawing.

    def heading(self, title: str, *, counted: bool = True) -> Content:
        """The line above the list: what it holds, how many, and the titles of the columns. One
        that is not `counted` stands below a title of its own, and is empty over an empty list."""
        own = Content.assemble(
            (title, "bold $primary"), (f"  {len(self._rows)}" if self._rows else "", "$muted")
        )
        if not counted:
            own = Content.styled(title if self._rows else "", "$faint")
        titles = [self.title_of(column) for column in self._columns]
        if titles[0] != self._columns[0].title:
            own += Content.styled(f" {titles[0][-1]}", "$accent")  # the arrow of an order
        cells = tuple(
            Cell(title, "$faint" if title == column.title else "$accent")
            for title, column in zip(titles, self._columns, strict=True)
        )
        shown = self._layout(Row("", cells), self.text_width - 2)
        rest = [
            fitted(Content.styled(cell.text, cell.style), width, align)
            for cell, width, align in shown[1:]
        ]
        first = fitted(own, shown[0][1], "left")
        return Content.assemble(" ", Content(" ").join([first, *(rest if self._rows else [])]))

    def title_of(self, column: Column) -> str:
        """What is over a column."""
        return column.title

    def title_clicked(self, x: int) -> None:
        """The line of titles was clicked in cell `x`. Lists that have an order follow it."""

    def choose(self, names: Sequence[str]) -> None:
        """Shows the columns called `names`, in their order; without names, those that it has by
        itself."""
        usual = tuple(column.name for column in self._columns if not column.extra)
        chosen = () if tuple(names) == usual else tuple(names)
        if chosen != self._chosen:
            self._chosen = chosen
            self.forget_strips()
            self.refresh()

    def bring(self, *names: str) -> None:
        """Shows these extra columns among those that it has by itself, which have the room that is
        left: the rows have something to say there."""
        if frozenset(names) != self._brought:
            self._brought = frozenset(names)
            self.forget_strips()
            self.refresh()

    def shown_columns(self) -> list[Column]:
        """The columns for which the list is wide enough."""
        return [column for _, column in self._fitting(self.text_width - 2)]

    def _fitting(self, width: int) -> list[tuple[int, Column]]:
        """The columns that are shown in `width` cells, and the places of their cells in a row."""
        first, *more = enumerate(self._columns)
        if not self._chosen:
            brought = [
                column
                for _, column in more
                if column.extra and column.name in self._brought and width >= column.from_width
            ]
            room = width - sum(column.width + 1 for column in brought)
            return [
                first,
                *(
                    (place, column)
                    for place, column in more
                    if column in brought or (not column.extra and room >= column.from_width)
                ),
            ]
        by_name = {column.name: (place, column) for place, column in more}
        shown = [first, *(by_name[name] for name in self._chosen if name in by_name)]
        while len(shown) > 1 and sum((one.width or _LEAST) + 1 for _, one in shown) - 1 > width:
            shown.pop()
        return shown

    def column_at(self, x: int) -> Column | None:
        """The column whose title is in cell `x`; with the gap before it."""
        cells = tuple(Cell(column.title) for column in self._columns)
        end = 1
        shown = self._layout(Row("", cells), self.text_width - 2)
        for column, (_, width, _) in zip(self.shown_columns(), shown, strict=True):
            end += width + 1
            if x < end - 1:
                return column
        return None

    def row_content(self, index: int, width: int, marker: str) -> Content:
        # Put together by hand: a page draws every row, and joining contents takes thrice the time.
        text, spans = marker, [Span(0, len(marker), "$primary")] if marker.strip() else []
        for place, (cell, room, align) in enumerate(self._layout(self._rows[index], width - 2)):
            text += " " * bool(place)
            own, styled = _fitted_cell(cell, room, align)
            spans += [Span(len(text) + a, len(text) + b, style) for a, b, style in styled]
            text += own
        return Content(text, spans)

    def _layout(self, row: ListedRow, width: int) -> list[tuple[Cell, int, str]]:
        cells = row.cells
        shown = [(cells[at], column) for at, column in self._fitting(width) if at < len(cells)]
        fixed = sum(column.width for _, column in shown) + len(shown) - 1
        flexible = [column for _, column in shown if column.width == 0]
        share = max((width - fixed) // len(flexible), 4) if flexible else 0
        return [(cell, column.width or share, column.align) for cell, column in shown]

    # Moving.

    def tell_highlighted(self) -> None:
        self.post_message(self.Highlighted(self, self.key))

    def _move(self, target: int) -> None:
        beyond = target < 0 or target >= len(self._rows)
        at_edge = self.cursor in (0, len(self._rows) - 1) or not self._rows
        if beyond and at_edge and abs(target - self.cursor) == 1:
            self.post_message(self.Overrun(self, 1 if target > self.cursor else -1))
        else:
            self.cursor = target

    def action_cursor_down(self) -> None:
        self._move(self.cursor + 1)

    def action_cursor_up(self) -> None:
        self._move(self.cursor - 1)

    def action_first(self) -> None:
        super().action_first()
        self.post_message(self.ToEnd(self, -1))

    def action_last(self) -> None:
        super().action_last()
        self.post_message(self.ToEnd(self, 1))

    def action_select_row(self) -> None:
        if self.key is not None:
            self.post_message(self.Opened(self, self.key))

    def on_resize(self) -> None:
        self.set_line_count(len(self._rows))
        self._keep_cursor_visible()

    def on_focus(self) -> None:
        self.tell_highlighted()


class ListHeading(Widget):
    """The line above a list; as wide as the list, so that the titles are over their columns."""

    def __init__(
        self, title: str, row_list: RowList, id: str | None = None, *, counted: bool = True
    ) -> None:
        """`counted`: how many rows there are stands beside the title."""
        super().__init__(id=id)
        self._title, self._counted = title, counted
        self._row_list = row_list

    def on_mount(self) -> None:
        for name in ("order", "columns_chosen"):
            if hasattr(self._row_list, name):
                self.watch(self._row_list, name, self._titles_changed, init=False)

    def _titles_changed(self) -> None:
        self.refresh()

    def call_it(self, title: str) -> None:
        """Another name for the first column."""
        if title != self._title:
            self._title = title
            self.refresh()

    def on_resize(self) -> None:
        self.call_after_refresh(self.refresh)  # once the list has its width as well

    def on_click(self, event: events.Click) -> None:
        self._row_list.title_clicked(event.x)

    def render(self) -> RenderResult:
        return self._row_list.heading(self._title, counted=self._counted)


def fitted(text: Content, width: int, align: str = "left") -> Content:
    """`text` in exactly `width` cells."""
    if text.cell_length > width:
        text = text.truncate(width, ellipsis=True)
    pad = width - text.cell_length
    return text.pad_left(pad) if align == "right" else text.pad_right(pad)


def _fitted_cell(cell: Cell, width: int, align: str) -> tuple[str, Sequence[Span]]:
    """The text of a cell in exactly `width` cells of the screen, and its styles."""
    parts = ((cell.text, cell.style), *cell.more)
    plain = "".join(text for text, _ in parts)
    room = width - len(plain)
    if room < 0 or not (plain.isascii() and plain.isprintable()):
        content = fitted(Content.assemble(*parts), width, align)
        return content.plain, content.spans
    before = room if align == "right" else 0
    spans, at = [], before
    for text, style in parts:
        if style and text:
            spans.append(Span(at, at + len(text), style))
        at += len(text)
    return f"{' ' * before}{plain}{' ' * (room - before)}", spans
