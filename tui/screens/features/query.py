"""What the feature table shows: order, search, filter, and the step to the next one; pure."""

from dataclasses import dataclass, replace

from tui.widgets.feature_columns import COLUMNS

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

    def next_sort(self) -> "TableQuery":
        """Sorted by the next column; readings start with the greatest, ids and names with the
        first."""
        sort = SORTS[(SORTS.index(self.sort) + 1) % len(SORTS)]
        return replace(self, sort=sort, descending=sort not in ("feature", "concept"))

    def next_show(self) -> "TableQuery":
        names = list(SHOWN)
        return replace(self, show=names[(names.index(self.show) + 1) % len(names)])
