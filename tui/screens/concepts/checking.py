"""The popup that shows where a feature fired on texts of one's own, and where it did not."""

from collections.abc import Mapping
from typing import Any

from textual.app import ComposeResult
from textual.content import Content
from textual.widgets import Static

from tui.text import printable
from tui.widgets.lists.list_popup import ListPopup
from tui.widgets.lists.row_list import Cell, Column, Row

_COLUMNS = (
    Column("activation", 10, "right"),
    Column("expected", 10),
    Column("where"),
)


class CheckPopup(ListPopup[None]):
    """The figures above a list of places; nothing to choose."""

    COLUMNS = _COLUMNS
    MOST_ROWS = 12

    def __init__(self, name: str, found: Mapping[str, Any]) -> None:
        super().__init__(classes="wide-list")
        self._name = name
        self._found = found

    def heading(self) -> str:
        return f"{self._name} on your text"

    def compose_box(self) -> ComposeResult:
        yield Static(figures(self._found), markup=False)
        yield from super().compose_box()

    def empty_words(self) -> str:
        return "it fires nowhere, and nothing was expected"

    def hint(self) -> str:
        return "esc closes"

    def list_rows(self) -> list[Row]:
        return [_row(number, one) for number, one in enumerate(self._found["places"])]


def figures(found: Mapping[str, Any]) -> Content:
    """`precision 80% · recall 50% · 4 of 8 expected · 1 false alarm`."""
    alarms = found["false_alarms"]
    return Content.assemble(
        ("precision ", "$muted"),
        (_share(found["precision"]), "bold $accent"),
        ("  recall ", "$muted"),
        (_share(found["recall"]), "bold $accent"),
        (f"  fires at {found['hits']} of {found['expected']} expected", "$muted"),
        (f", {alarms} false alarm{'s' * (alarms != 1)}", "$muted"),
    )


def _share(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.0f}%"


def _row(number: int, place: Mapping[str, Any]) -> Row:
    fires = place["activation"] > 0
    style = "$foreground" if fires == place["expected"] else "$warning"
    return Row(
        str(number),
        (
            Cell(f"{place['activation']:.2f}" if fires else "silent", style),
            Cell("yes" if place["expected"] else "no", style),
            Cell(
                printable(place["before"])[-30:],
                "$muted",
                (
                    (printable(place["token"]), f"bold {style}"),
                    (printable(place["after"])[:40], "$muted"),
                ),
            ),
        ),
    )
