"""In which order a list shows its rows; pure."""

from collections.abc import Sequence
from dataclasses import dataclass

from mi_crow.errors import CorruptDataError
from tui.widgets.lists.row_list import Column, ListedRow


@dataclass(frozen=True)
class RowOrder:
    """By the column with the title `column`; without one, the order in which the rows come."""

    column: str = ""
    descending: bool = False

    def as_json(self) -> list[str | bool]:
        return [self.column, self.descending]

    @classmethod
    def from_json(cls, saved: object, columns: Sequence[Column]) -> "RowOrder":
        """Raises CorruptDataError for what is not an order of these columns."""
        match saved:
            case [str(column), bool(descending)]:
                if not column or column in {known.title for known in columns}:
                    return cls(column, descending)
        raise CorruptDataError(f"{saved!r:.60} is not the order of a list")

    def by(
        self, column: Column, rows: Sequence[ListedRow], columns: Sequence[Column]
    ) -> "RowOrder":
        """By `column`, the large numbers first; the other way round where it is by it already."""
        if column.title == self.column:
            return RowOrder(self.column, not self.descending)
        place = columns.index(column)
        values = [row.value(place) for row in rows]
        return RowOrder(column.title, any(isinstance(value, int | float) for value in values))

    def next(
        self, shown: Sequence[Column], rows: Sequence[ListedRow], columns: Sequence[Column]
    ) -> "RowOrder":
        """By the next of the columns that are shown; after the last one, as the rows come."""
        titles = [column.title for column in shown]
        place = titles.index(self.column) + 1 if self.column in titles else 0
        if place == len(shown):
            return RowOrder()
        return RowOrder().by(shown[place], rows, columns)


def ordered(
    rows: Sequence[ListedRow], columns: Sequence[Column], order: RowOrder
) -> Sequence[ListedRow]:
    """The rows in this order; those without a value stay last either way."""
    places = [place for place, column in enumerate(columns) if column.title == order.column]
    if not places:
        return rows
    place = places[0]
    values = [row.value(place) for row in rows]
    known = [at for at, value in enumerate(values) if value is not None]
    known.sort(key=lambda at: _sort_key(values[at]), reverse=order.descending)
    empty = (row for row, value in zip(rows, values, strict=True) if value is None)
    return [*(rows[at] for at in known), *empty]


def _sort_key(value: float | str | None) -> tuple[bool, float, str]:
    """Numbers before words, should a column hold both."""
    if isinstance(value, str):
        return True, 0.0, value
    return False, value or 0.0, ""
