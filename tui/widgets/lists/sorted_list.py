"""A list that can be put in order by any of its columns, and whose columns can be chosen."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, cast

from textual.reactive import reactive

from mi_crow.errors import UserError
from mi_crow.store.json_object import JsonObject
from tui.actions import bindings
from tui.preferences.list_columns import chosen_columns
from tui.text import printable
from tui.widgets.lists.cursor_list import Sentence
from tui.widgets.lists.row_list import Column, ListedRow, RowList
from tui.widgets.lists.row_order import RowOrder, ordered

if TYPE_CHECKING:
    from tui.workbench import Workbench


class SortedList(RowList):
    """Keeps the order that somebody chose, whatever rows come; the cursor stays on its row."""

    BINDINGS = bindings("sorting")
    order: reactive[RowOrder] = reactive(RowOrder(), init=False, repaint=False)
    columns_chosen: reactive[tuple[str, ...]] = reactive((), init=False, repaint=False)
    _given: tuple[ListedRow, ...] = ()

    def __init__(
        self,
        columns: Sequence[Column],
        *,
        empty: Sentence = "",
        id: str | None = None,
        listed: str = "",
    ) -> None:
        """`listed` is what the settings call it, where its columns can be chosen."""
        super().__init__(columns, empty=empty, id=id)
        self.listed = listed

    def on_mount(self) -> None:
        if self.listed:
            self.columns_chosen = self._usual()

    def _usual(self) -> tuple[str, ...]:
        """The columns of a new list, by the settings."""
        return cast("Workbench", self.app).preferences.columns_of(self.listed)

    def watch_columns_chosen(self) -> None:
        self.choose(self.columns_chosen)

    def set_rows(self, rows: Sequence[ListedRow]) -> None:
        self._given = tuple(rows)
        super().set_rows(ordered(self._given, self.columns, self.order))

    def text_to_copy(self) -> tuple[str, str]:
        """The first column is a name: without marks, as commands take it."""
        if self.key is None:
            return "", ""
        return "\t".join([printable(self.key), *self.shown_texts()[1:]]), "the row"

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

    def action_columns(self) -> None:
        from tui.widgets.lists.columns_popup import ColumnList, ColumnsPopup

        def chosen(names: tuple[str, ...] | None) -> None:
            if names is not None:
                self.columns_chosen = chosen_columns(self.listed, names)

        shown = {column.name for column in self.shown_columns()}
        popup = ColumnsPopup(
            ColumnList(
                self.columns_chosen,
                {column.name: column.help for column in self.columns},
                [name for name in self.columns_chosen if name not in shown],
                self._usual(),
                always=self.columns[0].name,
            )
        )
        self.app.push_screen(popup, chosen)

    def columns_as_json(self) -> dict[str, list[str]]:
        """The columns that somebody chose, and those of the settings at that time."""
        return {"shown": list(self.columns_chosen), "usual": list(self._usual())}

    def restore_columns(self, saved: JsonObject) -> None:
        """Takes up what `columns_as_json` gave, unless the settings have changed since.

        Raises CorruptDataError for columns that there are none of.
        """
        if list(saved.array("usual", [])) != list(self._usual()):
            return
        try:
            self.columns_chosen = chosen_columns(self.listed, saved.array("shown", []))
        except UserError as error:
            raise saved.wrong("shown", "a list of columns") from error

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        if action in ("next_order", "reverse_order"):
            return len(self.rows) > 1
        if action == "columns":
            return bool(self.listed)
        return super().check_action(action, parameters)
