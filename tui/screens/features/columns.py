"""Choosing and ordering the columns of the feature table, and the column that sorts it."""

from collections.abc import Sequence

from textual import on

from mi_crow.mechanistic.features.catalogue import (
    BY_LABEL,
    COLUMNS,
    column_named,
)
from tui.actions import bindings
from tui.text import printable
from tui.widgets.frame.popup import Popup
from tui.widgets.lists.row_list import Cell, Column, Row, RowList


def known_columns(labels: Sequence[str]) -> tuple[str, ...]:
    """The names of all columns of an index with these labels."""
    return (*(column.name for column in COLUMNS), *(f"{BY_LABEL}{label}" for label in labels))


class ColumnList(RowList):
    """The columns, those that are shown first and in their order."""

    BINDINGS = bindings("columns")

    def __init__(
        self,
        shown: Sequence[str],
        known: Sequence[str],
        left_out: Sequence[str],
        default: Sequence[str],
    ) -> None:
        super().__init__([Column("column", 22), Column("what")], id="columns-list")
        self._default = default
        self._names = list(dict.fromkeys((*shown, *known)))
        self._shown = set(shown)
        self._known = frozenset(known)
        self._left_out = frozenset(left_out)

    @property
    def chosen(self) -> tuple[str, ...]:
        """The columns to show. A feature's number always is: marks and rows go by it."""
        return tuple(name for name in self._names if name in self._shown)

    def on_mount(self) -> None:
        self._show()

    def _show(self) -> None:
        self.set_rows([self._row(name) for name in self._names])

    def _row(self, name: str) -> Row:
        column = column_named(name)
        on = name in self._shown
        help = column.help
        if name not in self._known:
            help = "not in this index"
        elif on and name in self._left_out:
            help += "  (no room at this width)"
        box = Cell("[x] " if on else "[ ] ", "$accent" if on else "$faint", ((name, ""),))
        return Row(name, (box, Cell(printable(help), "$muted")))

    def action_switch(self) -> None:
        if self.key is not None and self.key != "feature":
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

    def __init__(
        self,
        shown: Sequence[str],
        known: Sequence[str],
        left_out: Sequence[str],
        default: Sequence[str],
    ) -> None:
        super().__init__(classes="columns")
        self._list = ColumnList(shown, known, left_out, default)

    def compose_box(self):
        yield self._list

    def on_mount(self) -> None:
        self._list.focus()

    @on(RowList.Opened)
    def _keep(self) -> None:
        self.dismiss(self._list.chosen)


class SortPopup(Popup[str]):
    """Dismisses with the index's order by the chosen column."""

    HEADING = "Sort by"
    BINDINGS = bindings("popup", "close")

    def __init__(self, known: Sequence[str], sort: str) -> None:
        super().__init__(classes="columns")
        self._known, self._sort = known, sort

    def compose_box(self):
        yield RowList([Column("column", 22), Column("what")])

    def on_mount(self) -> None:
        columns = {column_named(name).sort: column_named(name) for name in reversed(self._known)}
        rows = [
            Row(sort, (Cell(printable(one.name)), Cell(printable(one.help), "$muted")))
            for sort, one in reversed(columns.items())
        ]
        found = self.query_one(RowList)
        found.set_rows(rows)
        found.select(self._sort)
        found.focus()

    @on(RowList.Opened)
    def _chosen(self, event: RowList.Opened) -> None:
        self.dismiss(event.key)
