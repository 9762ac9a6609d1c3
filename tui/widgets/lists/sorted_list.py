"""A list that can be put in order by any of its columns: `o`, `O`, or a click on a title."""

from collections.abc import Sequence

from textual.reactive import reactive

from tui.actions import bindings
from tui.widgets.lists.row_list import Column, Row, RowList
from tui.widgets.lists.row_order import RowOrder, ordered


class SortedList(RowList):
    """Keeps the order that somebody chose, whatever rows come; the cursor stays on its row."""

    BINDINGS = bindings("sorting")
    order: reactive[RowOrder] = reactive(RowOrder(), init=False, repaint=False)
    _given: tuple[Row, ...] = ()

    def set_rows(self, rows: Sequence[Row]) -> None:
        self._given = tuple(rows)
        super().set_rows(ordered(self._given, self.columns, self.order))

    def watch_order(self) -> None:
        self.set_rows(self._given)
        self._keep_cursor_visible()

    def title_of(self, column: Column) -> str:
        if column.title != self.order.column:
            return column.title
        arrow = "↓" if self.order.descending else "↑"
        return f"{column.title[: column.width - 1] if column.width else column.title}{arrow}"

    def title_clicked(self, x: int) -> None:
        column = self.column_at(x)
        if column is not None:
            self.order = self.order.by(column, self._given, self.columns)

    def action_next_order(self) -> None:
        self.order = self.order.next(self.shown_columns(), self._given, self.columns)

    def action_reverse_order(self) -> None:
        if self.order.column:
            self.order = RowOrder(self.order.column, not self.order.descending)

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        if action in ("next_order", "reverse_order"):
            return len(self.rows) > 1
        return super().check_action(action, parameters)
