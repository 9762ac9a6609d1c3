"""The two lines over the feature table: what is shown, and the titles of the columns."""

from dataclasses import dataclass

from textual import events
from textual.app import RenderResult
from textual.content import Content
from textual.message import Message
from textual.widget import Widget

from tui.screens.features.query import TableQuery
from tui.text import printable
from tui.widgets.lists.feature_columns import titles_content
from tui.widgets.lists.feature_table import FeatureTable


class TableHeading(Widget):
    """`Features  312 of 2,048 firing · “sail”` above the titles."""

    @dataclass
    class SortWanted(Message):
        """A title was clicked: the index's order by its column."""

        sort: str

    def __init__(self, table: FeatureTable, id: str) -> None:
        super().__init__(id=id)
        self._table = table
        self._query = TableQuery()
        self._shown: int | None = None
        self._total = 0

    def show(self, query: TableQuery, shown: int | None, total: int) -> None:
        """`shown` of `total` features match; None while they are read."""
        self._query, self._shown, self._total = query, shown, total
        self.refresh()

    def on_click(self, event: events.Click) -> None:
        column = self._table.layout_now.column_at(event.x) if event.y == 1 else None
        if column is not None:
            self.post_message(self.SortWanted(column.sort))

    def render(self) -> RenderResult:
        query, width = self._query, self.size.width
        first = self._first_line(width)
        titles = titles_content(self._table.layout_now, query.sort, query.descending)
        return Content("\n").join([first.truncate(width, ellipsis=True), titles])

    def _first_line(self, width: int) -> Content:
        """In a narrow table the search and the order come before the title and the total."""
        query, order = self._query, Content("")
        if query.sort not in {column.sort for column, _ in self._table.layout_now.columns}:
            arrow = "↓" if query.descending else "↑"
            order = Content.assemble((" · by ", "$faint"), (query.title + arrow, "$accent"))
        search = Content("")
        if query.search:
            shown = f"“{printable(query.search)}”"
            search = Content.assemble((" · ", "$faint"), (shown, "$accent"))
        show = f" {query.show}" if query.show != "all" and self._shown is not None else ""
        if self._table.marks:
            hidden = self._hidden_marks()
            rest = f", {hidden:,} not shown" if hidden else ""
            marks = Content.styled(f"{len(self._table.marks):,} marked{rest}", "$warning")
            order = Content.assemble((" · ", "$faint"), marks, order)
        title = Content.assemble(("Features", "bold $primary"), "  ")
        full = Content.styled(self._count(with_total=True) + show, "$muted")
        short = Content.styled(self._count(with_total=False) + show, "$muted")
        for start in (title + full, full, short):
            first = Content(" ") + start + search
            if first.cell_length + order.cell_length <= width:
                break
        room = max(width - order.cell_length, 0)  # a long search must not hide the order
        return first.truncate(room, ellipsis=True) + order

    def _hidden_marks(self) -> int:
        """Marked features that the search leaves out: they are acted on too."""
        marks, shown = self._table.marks, self._table.shown_ids
        if not marks or self._shown is None or len(shown) == self._total:
            return 0
        return len(marks) - sum(feature in marks for feature in shown)

    def _count(self, *, with_total: bool) -> str:
        if self._shown is None:
            return "reading…"
        if self._shown == self._total or not with_total:
            return f"{self._shown:,}"
        return f"{self._shown:,} of {self._total:,}"
