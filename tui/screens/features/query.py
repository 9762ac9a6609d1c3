"""What the feature table shows: order, search, filter, and the step to the next one; pure."""

from dataclasses import dataclass, replace

from tui.widgets.lists.feature_columns import COLUMNS

RELEVANCE = "relevance"  # the index's name for how well a feature matches the search

SORTS = tuple(column.sort for column in COLUMNS if column.sort)
# What is shown, by name: the words for people and the settings of the index's filter.
SHOWN = {
    "firing": {"alive": True},
    "named": {"named": True},
    "unnamed": {"alive": True, "named": False},
    "all": {},
}


@dataclass(frozen=True)
class TableQuery:
    """One view of the table."""

    sort: str = "density"
    descending: bool = True
    search: str = ""
    show: str = "firing"
    before: tuple[str, bool] = ("density", True)  # the order to go back to after a search

    @property
    def title(self) -> str:
        """The order's name: its column's title."""
        titles = {column.sort: column.title for column in COLUMNS if column.sort}
        return titles.get(self.sort, "relevance")

    def next_sort(self) -> "TableQuery":
        """Sorted by the next column, and by relevance where there is a search; numbers start with
        the greatest, ids and names with the first."""
        sorts = (*SORTS, RELEVANCE) if self.search else SORTS
        sort = sorts[(sorts.index(self.sort) + 1) % len(sorts)]
        return replace(self, sort=sort, descending=sort not in ("feature", "concept"))

    def searching(self, search: str) -> "TableQuery":
        """The same with another search: the first one puts the best matches first, and without one
        the order from before is back, unless another was chosen meanwhile."""
        if search and not self.search:
            before = (self.sort, self.descending)
            return replace(self, search=search, sort=RELEVANCE, descending=True, before=before)
        if not search and self.sort == RELEVANCE:
            sort, descending = self.before
            return replace(self, search="", sort=sort, descending=descending)
        return replace(self, search=search)

    def next_show(self) -> "TableQuery":
        names = list(SHOWN)
        return replace(self, show=names[(names.index(self.show) + 1) % len(names)])
