"""The popup that shows where a feature fired on texts of one's own, and where it did not."""

from collections.abc import Mapping
from typing import Any

from textual.app import ComposeResult
from textual.content import Content
from textual.widgets import Static

from mi_crow.mechanistic.explain.check_result import Check, Place
from tui.actions import bindings
from tui.preferences.key_words import key
from tui.text import number, printable
from tui.widgets.lists.list_popup import ListPopup
from tui.widgets.lists.row_list import Cell, Column, Row

_COLUMNS = (
    Column("activation", 10, "right"),
    Column("expected", 10),
    Column("where"),
)


class CheckPopup(ListPopup[None]):
    """The figures above a list of places, at a threshold that two keys change."""

    BINDINGS = bindings("checked") + bindings("popup", "close")
    COLUMNS = _COLUMNS
    MOST_ROWS = 12

    def __init__(self, name: str, found: Mapping[str, Any]) -> None:
        super().__init__(classes="wide-list")
        self._name = name
        self._found = Check.from_json(found)

    def heading(self) -> str:
        return f"{self._name} on your text"

    def compose_box(self) -> ComposeResult:
        yield Static(figures(self._found), id="check-figures", markup=False)
        yield from super().compose_box()

    def empty_words(self) -> str:
        return "it fires nowhere, and nothing was expected"

    def hint(self) -> str:
        keys = f"{key('checked.less')} {key('checked.more')}"
        best = f", F1 is greatest above {number(self._found.best_threshold, 2)}"
        return f"{keys} threshold{best if self._found.can_alarm else ''} · esc closes"

    def list_rows(self) -> list[Row]:
        found = self._found
        return [_row(place, one, found.threshold) for place, one in enumerate(found.places)]

    def action_threshold(self, step: int) -> None:
        """The next threshold at which something may change."""
        found = self._found
        place = sum(one <= found.threshold for one in found.thresholds) - 1 + step
        self._found = found.at(found.thresholds[max(0, min(place, len(found.thresholds) - 1))])
        self.query_one("#check-figures", Static).update(figures(self._found))
        self.show_rows()


def figures(found: Check) -> Content:
    """`above 0.5  precision 80%  recall 50%  4 of 8 expected, 1 false alarm`."""
    alarms = found.false_alarms
    return Content.assemble(
        (f"above {number(found.threshold, 2)}  ", "$muted"),
        ("precision ", "$muted"),
        (_share(found.precision), "bold $accent"),
        ("  recall ", "$muted"),
        (_share(found.recall), "bold $accent"),
        (f"  {found.hits} of {found.expected} expected", "$muted"),
        (
            f", {alarms} false alarm{'s' * (alarms != 1)}"
            if found.can_alarm
            else ", no text in which it should be silent",
            "$muted",
        ),
    )


def _share(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.0f}%"


def _row(row: int, place: Place, threshold: float) -> Row:
    fires = place.activation > threshold
    style = "$foreground" if fires == place.expected else "$warning"
    activation = f"{place.activation:.2f}" if place.activation > 0 else "silent"
    return Row(
        str(row),
        (
            Cell(activation, style),
            Cell("yes" if place.expected else "no", style),
            Cell(
                printable(place.before)[-30:],
                "$muted",
                (
                    (printable(place.token), f"bold {style}"),
                    (printable(place.after)[:40], "$muted"),
                ),
            ),
        ),
    )
