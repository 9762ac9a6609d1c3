"""What the feature table shows: order, search, filter, and the step to the next one; pure."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from mi_crow.mechanistic.features.catalogue import BY_LABEL, COLUMNS, starts_with_least
from mi_crow.mechanistic.features.query_language import (
    ORDERS,
    FeatureQuery,
    QueryError,
    parse_query,
)
from mi_crow.store.json_object import JsonObject
from tui.widgets.prompt_line import Mistake

RELEVANCE = "relevance"  # the index's name for how well a feature matches the search

# What is shown, by name: the words for people and the settings of the index's filter.
SHOWN = {
    "firing": {"alive": True},
    "named": {"named": True},
    "unnamed": {"alive": True, "named": False},
    "all": {},
}


def mistake_in(text: str) -> str | Mistake:
    """What is wrong with a query, and where; empty when nothing is."""
    try:
        parse_query(text)
    except QueryError as error:
        return mistake_at(error)
    return ""


def mistake_at(error: QueryError, skipped: int = 0) -> Mistake:
    """What an error says, without the number of its place, which is seen; so many characters of
    the text were `skipped` before the query was read."""
    words = f"{error.reason}; {error.hint}" if error.hint else error.reason
    return Mistake(words, error.start + skipped, error.end + skipped)


def understood(text: str) -> str:
    """A query up to its first mistake, such as a condition that is still being typed."""
    try:
        parse_query(text)
    except QueryError as error:
        text = text[: error.start]
    return text.strip()


@dataclass(frozen=True)
class TableQuery:
    """One view of the table."""

    sort: str = "density"
    descending: bool = True
    search: str = ""  # in the query language
    show: str = "firing"
    before: tuple[str, bool] = ("density", True)  # the order to go back to after a search

    @property
    def title(self) -> str:
        """The order's name: its column's title, or what a query calls it."""
        titles = {column: name for name, column in ORDERS.items()}
        titles |= {column.sort: column.title for column in reversed(COLUMNS)}
        return titles.get(self.sort, self.sort.removeprefix(BY_LABEL))

    @property
    def parsed(self) -> FeatureQuery:
        """What the search asks for."""
        return parse_query(self.search)

    def next_sort(self, sorts: Sequence[str]) -> "TableQuery":
        """Sorted by the next of `sorts`, and by relevance where the search ranks."""
        sorts = tuple(dict.fromkeys((*sorts, RELEVANCE) if self.parsed.ranks else sorts))
        at = sorts.index(self.sort) if self.sort in sorts else -1
        return self.sorted_by(sorts[(at + 1) % len(sorts)])

    def sorted_by(self, sort: str) -> "TableQuery":
        """In this order: numbers start with the greatest, ids and texts with the first. The order
        that it has already is turned round."""
        if sort == self.sort:
            return replace(self, descending=not self.descending)
        return replace(self, sort=sort, descending=not starts_with_least(sort))

    def searching(self, search: str) -> "TableQuery":
        """The same with another search: its own order first; else, where it ranks features and
        the one before did not, the best matches; and without such a search the order from before,
        unless another was chosen meanwhile."""
        found = replace(self, search=search)
        had, has = self.parsed, found.parsed
        if has.sort is not None and (has.sort, has.descending) != (had.sort, had.descending):
            return found._remembering(self, has.sort, has.descending is not False)
        if has.ranks and not had.ranks and has.sort is None:
            return found._remembering(self, RELEVANCE, True)
        chosen = had.sort if had.sort is not None else RELEVANCE
        if self.sort == chosen and not has.ranks and has.sort is None:
            sort, descending = self.before
            return replace(found, sort=sort, descending=descending)
        return found

    def _remembering(self, before: "TableQuery", sort: str, descending: bool) -> "TableQuery":
        """This query in another order, which goes back to the plain one of `before`."""
        plain = before.before if before.parsed.orders else (before.sort, before.descending)
        return replace(self, sort=sort, descending=descending, before=plain)

    def next_show(self) -> "TableQuery":
        names = list(SHOWN)
        return replace(self, show=names[(names.index(self.show) + 1) % len(names)])

    def as_json(self) -> dict[str, Any]:
        """What `from_json` reads."""
        return asdict(self) | {"before": list(self.before)}

    @classmethod
    def from_json(cls, saved: JsonObject) -> "TableQuery":
        """Raises CorruptDataError for what is not a query."""
        plain = cls()
        match saved.array("before", list(plain.before)) or plain.before:
            case str(sort), bool(descending):
                pass
            case _:
                raise saved.wrong("before", "an order and whether it descends")
        show = saved.text("show", plain.show)
        return cls(
            saved.text("sort", plain.sort),
            saved.flag("descending", plain.descending),
            saved.text("search", plain.search),
            show if show in SHOWN else plain.show,
            (sort, descending),
        )


def known_columns(labels: Sequence[str]) -> tuple[str, ...]:
    """The names of all columns of an index with these labels."""
    return (*(column.name for column in COLUMNS), *(f"{BY_LABEL}{label}" for label in labels))
