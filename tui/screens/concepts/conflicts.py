"""The popup that lists names which contradict each other."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from textual import on

from tui.actions import bindings
from tui.preferences.key_words import key
from tui.text import printable
from tui.widgets.lists.list_popup import ListPopup
from tui.widgets.lists.row_list import Cell, Column, Row, RowList

if TYPE_CHECKING:
    from mi_crow.mechanistic.concepts.conflicts import Conflict

_COLUMNS = (
    Column("cosine", 6, "right"),
    Column("names"),
    Column("features", 18),
    Column("what", 9, from_width=64),
)


class ConflictsPopup(ListPopup[tuple[str, "Conflict"]]):
    """Dismisses with what to do, `open` or `merge`, and the conflict."""

    HEADING = "Conflicts"
    BINDINGS = bindings("conflicts") + bindings("popup", "close")
    COLUMNS = _COLUMNS
    MOST_ROWS = 14

    def __init__(self, conflicts: "Sequence[Conflict]") -> None:
        super().__init__(classes="wide-list")
        self._conflicts = conflicts

    def empty_words(self) -> str:
        return "no name contradicts another"

    def hint(self) -> str:
        if not self._conflicts:
            return "esc closes"
        merge = f"{key('conflicts.merge')} gives near-identical ones the first name"
        return f"{key('list.open')} opens the feature · {merge}"

    def list_rows(self) -> list[Row]:
        return [_row(place, one) for place, one in enumerate(self._conflicts)]

    @property
    def _selected(self) -> "Conflict | None":
        place = self.row_list.key
        return self._conflicts[int(place)] if place is not None else None

    @on(RowList.Opened)
    def _open(self, event: RowList.Opened) -> None:
        self.dismiss(("open", self._conflicts[int(event.key)]))

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        if action == "merge":
            return bool(self._conflicts)
        return super().check_action(action, parameters)

    def action_merge(self) -> None:
        conflict = self._selected
        if conflict is not None and conflict.kind == "alike":
            self.dismiss(("merge", conflict))
        elif conflict is not None:
            self.notify(
                "These share a name and little else: rename one of them", severity="warning"
            )


def _row(place: int, conflict: "Conflict") -> Row:
    alike = conflict.kind == "alike"
    names = " | ".join(map(printable, conflict.names))
    features = " ".join(f"#{one}" for one in conflict.features[:3])
    more = f" +{len(conflict.features) - 3}" if len(conflict.features) > 3 else ""
    return Row(
        str(place),
        (
            Cell(f"{conflict.cosine:.2f}", "$secondary"),
            Cell(names, "$foreground"),
            Cell(features + more, "$primary"),
            Cell("alike" if alike else "far apart", "$muted"),
        ),
    )
