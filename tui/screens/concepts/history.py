"""The popup that lists what was changed in the concepts, by whom and when."""

from collections.abc import Sequence
from time import localtime, strftime
from typing import TYPE_CHECKING

from textual import on
from textual.app import ComposeResult
from textual.widgets import Static

from tui.actions import bindings
from tui.preferences.key_words import key
from tui.text import printable
from tui.widgets.frame.popup import Popup
from tui.widgets.lists.row_list import Cell, Column, Row, RowList

if TYPE_CHECKING:
    from mi_crow.mechanistic.concepts.annotations import PastChange

_MOST_ROWS = 12
_ROOM = 90  # cells: from here on `who` leaves enough for the change


class HistoryPopup(Popup[int]):
    """Dismisses with the number of the change to undo."""

    HEADING = "History"
    BINDINGS = bindings("popup", "close")

    def __init__(self, changes: "Sequence[PastChange]", reader: str) -> None:
        super().__init__(classes="history")
        self._changes = changes
        self._reader = reader  # the user's name, as `PastChange.actor`

    def compose_box(self) -> ComposeResult:
        yield RowList(columns_for(self._changes, self._reader), empty="no changes yet")
        yield Static(
            f"{key('list.open')} undoes the change · esc closes", classes="hint", markup=False
        )

    def on_mount(self) -> None:
        rows = self.query_one(RowList)
        rows.set_rows([history_row(one) for one in self._changes])
        rows.styles.height = min(max(len(self._changes), 1), _MOST_ROWS)
        rows.focus()

    @on(RowList.Opened)
    def _choose(self, event: RowList.Opened) -> None:
        self.dismiss(int(event.key))


def columns_for(changes: "Sequence[PastChange]", reader: str) -> tuple[Column, ...]:
    """A narrow terminal shows `who` only if somebody other than the reader changed something."""
    others = any(change.actor != reader for change in changes)
    who = Column("who", 10, from_width=0 if others else _ROOM)
    return Column("when", 11), who, Column("change"), Column("state", 6)


def history_row(change: "PastChange") -> Row:
    """One change; dimmed once it is undone."""
    style = "$faint" if change.undone else "$foreground"
    return Row(
        str(change.id),
        (
            Cell(strftime("%m-%d %H:%M", localtime(change.t)), "$muted"),
            Cell(printable(change.actor), "$muted"),
            Cell(printable(change.what), style),
            Cell("undone" if change.undone else "", "$faint"),
        ),
    )
