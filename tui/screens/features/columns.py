"""Which column sorts the feature table, and what each of them shows."""

from collections.abc import Sequence

from textual import on

from mi_crow.mechanistic.features.catalogue import column_named
from tui.text import printable
from tui.widgets.lists.list_popup import ListPopup
from tui.widgets.lists.row_list import Cell, Column, Row, RowList


def helps(names: Sequence[str]) -> dict[str, str]:
    """What each of these columns shows."""
    return {name: column_named(name).help for name in names}


class SortPopup(ListPopup[str]):
    """Dismisses with the index's order by the chosen column."""

    OPEN_WORDS = "sort"
    HEADING = "Sort by"
    COLUMNS = (Column("column", 22), Column("what"))
    MOST_ROWS = None

    def __init__(self, known: Sequence[str], sort: str) -> None:
        super().__init__(classes="columns")
        self._known, self._sort = known, sort

    def list_rows(self) -> list[Row]:
        columns = {column_named(name).sort: column_named(name) for name in reversed(self._known)}
        return [
            Row(sort, (Cell(printable(one.name)), Cell(printable(one.help), "$muted")))
            for sort, one in reversed(columns.items())
        ]

    def show_rows(self) -> None:
        super().show_rows()
        self.row_list.select(self._sort)

    @on(RowList.Opened)
    def _chosen(self, event: RowList.Opened) -> None:
        self.dismiss(event.key)
