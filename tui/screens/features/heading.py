"""The two lines over the feature table: what is shown, and the titles of the columns."""

from textual.app import RenderResult
from textual.content import Content
from textual.widget import Widget

from tui.screens.features.query import TableQuery
from tui.text import printable
from tui.widgets.lists.feature_columns import shown_columns, titles_content


class TableHeading(Widget):
    """`Features  312 of 2,048 firing · “sail”` above the titles."""

    def __init__(self, id: str) -> None:
        super().__init__(id=id)
        self._query = TableQuery()
        self._shown: int | None = None
        self._total = 0

    def show(self, query: TableQuery, shown: int | None, total: int) -> None:
        """`shown` of `total` features match; None while they are read."""
        self._query, self._shown, self._total = query, shown, total
        self.refresh()

    def render(self) -> RenderResult:
        query = self._query
        parts: list[tuple[str, str]] = [("Features", "bold $primary"), ("  ", "")]
        if self._shown is None:
            parts.append(("reading…", "$muted"))
        elif self._shown == self._total:
            parts.append((f"{self._total:,}", "$muted"))
        else:
            parts.append((f"{self._shown:,} of {self._total:,}", "$muted"))
        if query.show != "all":
            parts.append((f" {query.show}", "$muted"))
        if query.search:
            parts += [(" · ", "$faint"), (f"“{printable(query.search)}”", "$accent")]
        width, order = self.size.width, Content("")
        if query.sort not in {column.sort for column, _ in shown_columns(width - 1)}:
            arrow = "↓" if query.descending else "↑"
            order = Content.assemble((" · by ", "$faint"), (query.title + arrow, "$accent"))
        room = max(width - order.cell_length, 0)  # a long search must not hide the order
        first = Content.assemble(" ", *parts).truncate(room, ellipsis=True) + order
        titles = titles_content(max(width - 1, 1), query.sort, query.descending)
        return Content("\n").join([first.truncate(width, ellipsis=True), titles])
