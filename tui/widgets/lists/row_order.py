"""In which order a list shows its rows; pure."""

from collections.abc import Sequence
from dataclasses import dataclass

from mi_crow.errors import CorruptDataError
from tui.widgets.lists.row_list import Cell, Column, Row

_NOTHING = ("", "–")  # what a cell shows that holds no value


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

    def by(self, column: Column, rows: Sequence[Row], columns: Sequence[Column]) -> "RowOrder":
        """By `column`, the large numbers first; the other way round where it is by it already."""
        if column.title == self.column:
            return RowOrder(self.column, not self.descending)
        place = columns.index(column)
        values = [_value(row, place) for row in rows]
        return RowOrder(column.title, any(isinstance(value, int | float) for value in values))

    def next(
        self, shown: Sequence[Column], rows: Sequence[Row], columns: Sequence[Column]
    ) -> "RowOrder":
        """By the next of the columns that are shown; after the last one, as the rows come."""
        titles = [column.title for column in shown]
        place = titles.index(self.column) + 1 if self.column in titles else 0
        if place == len(shown):
            return RowOrder()
        return RowOrder().by(shown[place], rows, columns)


def ordered(rows: Sequence[Row], columns: Sequence[Column], order: RowOrder) -> Sequence[Row]:
    """The rows in this order; those without a value stay last either way."""
    places = [place for place, column in enumerate(columns) if column.title == order.column]
    if not places:
        return rows
    place = places[0]
    known = [row for row in rows if _value(row, place) is not None]
    known.sort(key=lambda row: _sort_key(_value(row, place)), reverse=order.descending)
    return [*known, *(row for row in rows if _value(row, place) is None)]


def _value(row: Row, place: int) -> float | str | None:
    cell = row.cells[place] if place < len(row.cells) else Cell("")
    if cell.value is not None:
        return cell.value
    text = cell.text.strip()
    return None if text in _NOTHING else text.casefold()


def _sort_key(value: float | str | None) -> tuple[bool, float, str]:
    """Numbers before words, should a column hold both."""
    if isinstance(value, str):
        return True, 0.0, value
    return False, value or 0.0, ""
