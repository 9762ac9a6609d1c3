"""Choosing and ordering the columns of a table or a list."""

from collections.abc import Mapping, Sequence

from textual import on
from textual.app import ComposeResult

from tui.actions import bindings
from tui.text import printable
from tui.widgets.frame.popup import Popup
from tui.widgets.lists.row_list import Cell, Column, Row, RowList
from tui.widgets.words import Words

_NAME = 22
_AROUND = 6  # lines of the box, which has nine in ten: borders, what the column shows
_BEFORE_HELP = _NAME + 5  # the bar of the cursor, gaps and the scrollbar


class ColumnList(RowList):
    """The columns, those that are shown first and in their order.

    `helps` says of each known column what it shows; `always` is the one that cannot be hidden.
    """

    BINDINGS = bindings("columns")

    def __init__(
        self,
        shown: Sequence[str],
        helps: Mapping[str, str],
        left_out: Sequence[str],
        default: Sequence[str],
        always: str,
    ) -> None:
        super().__init__([Column("column", _NAME), Column("what")], id="columns-list")
        self._default = default
        self._names = list(dict.fromkeys((*shown, *helps)))
        self._shown = set(shown)
        self._helps = helps
        self._left_out = frozenset(left_out)
        self._always = always

    @property
    def helps(self) -> Mapping[str, str]:
        """What each known column shows."""
        return self._helps

    @property
    def help_of_cursor(self) -> str:
        """What the column under the cursor shows."""
        return printable(self._helps.get(self.key or "", ""))

    @property
    def chosen(self) -> tuple[str, ...]:
        """The columns to show."""
        return tuple(name for name in self._names if name in self._shown)

    def on_mount(self) -> None:
        self._show()

    def _show(self) -> None:
        self.set_rows([self._row(name) for name in self._names])

    def _row(self, name: str) -> Row:
        on = name in self._shown
        help = self._helps.get(name, "not in this index")
        if on and name in self._helps and name in self._left_out:
            help += "  (no room at this width)"
        box = Cell("[x] " if on else "[ ] ", "$accent" if on else "$faint", ((name, ""),))
        return Row(name, (box, Cell(printable(help), "$muted")))

    def action_switch(self) -> None:
        if self.key is not None and self.key != self._always:
            self._shown ^= {self.key}
            self._show()

    def action_move(self, steps: int) -> None:
        """Moves the column under the cursor to the left or the right in the table."""
        place, names = self.cursor, self._names
        target = place + steps
        if 0 <= target < len(names):
            names[place], names[target] = names[target], names[place]
            self._show()  # the cursor stays on its column

    def action_default(self) -> None:
        """The columns of a new table."""
        self._names = list(dict.fromkeys((*self._default, *self._names)))
        self._shown = set(self._default)
        self._show()


class ColumnsPopup(Popup[tuple[str, ...]]):
    """Dismisses with the names of the chosen columns."""

    HEADING = "Columns"
    BINDINGS = bindings("popup", "close")

    def __init__(self, rows: ColumnList) -> None:
        super().__init__(classes="columns")
        self._list = rows

    def compose_box(self) -> ComposeResult:
        yield self._list
        yield Words("", id="columns-whole", markup=False)

    def on_mount(self) -> None:
        self._list.focus()

    def on_resize(self) -> None:
        self.call_after_refresh(self._make_room)

    def _make_room(self) -> None:
        longest = max(map(len, self._list.helps.values()), default=0)
        said = longest > self._list.size.width - _BEFORE_HELP
        self.query_one("#columns-whole").display = said
        self._list.styles.max_height = (
            max(self.size.height * 9 // 10 - _AROUND, 2) if said else "100%"
        )

    @on(RowList.Highlighted)
    def _say_whole(self) -> None:
        """What the column shows, where its line has no room for it."""
        line = self.query_one("#columns-whole", Words)
        line.update(self._list.help_of_cursor)

    @on(RowList.Opened)
    def _keep(self) -> None:
        self.dismiss(self._list.chosen)
