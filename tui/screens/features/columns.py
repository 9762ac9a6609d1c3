"""Which column sorts the feature table, and what each of them shows."""

from collections.abc import Sequence

from textual import on

from mi_crow.mechanistic.features.catalogue import column_named
from tui.actions import bindings
from tui.text import printable
from tui.widgets.frame.popup import Popup
from tui.widgets.lists.row_list import Cell, Column, Row, RowList


def helps(names: Sequence[str]) -> dict[str, str]:
    """What each of these columns shows."""
    return {name: column_named(name).help for name in names}


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
