"""The popup that lists what was changed in the concepts, by whom and when."""

from collections.abc import Sequence
from dataclasses import dataclass
from time import localtime, strftime
from typing import TYPE_CHECKING

from textual import on
from textual.content import Content

from tui.actions import bindings
from tui.preferences.key_words import key
from tui.text import printable
from tui.widgets.lists.list_popup import ListPopup
from tui.widgets.lists.row_list import Cell, Column, Row, RowList

if TYPE_CHECKING:
    from mi_crow.mechanistic.concepts.annotations import PastChange

_ROOM = 90  # cells: from here on `who` leaves enough for the change


@dataclass(frozen=True)
class Past:
    """Changes, and what they are changes of: an SAE, one of its features, everything."""

    of: str
    changes: "Sequence[PastChange]"


class HistoryPopup(ListPopup[int]):
    """Dismisses with the number of the change to undo."""

    BINDINGS = bindings("past") + bindings("popup", "close")
    MOST_ROWS = 12
    OPEN_WORDS = "undo"

    def __init__(self, kinds: Sequence[Past], reader: str) -> None:
        super().__init__(classes="history")
        self._kinds = kinds
        self._shown = 0
        self._reader = reader  # the user's name, as `PastChange.actor`

    def heading(self) -> str:
        return f"History of {self._kinds[self._shown].of}"

    def columns(self) -> Sequence[Column]:
        everything = [change for one in self._kinds for change in one.changes]
        return columns_for(everything, self._reader)

    def empty_words(self) -> str:
        return "no changes yet"

    def hint(self) -> str:
        undo, turn = key("list.open"), key("past.show")
        every = [change for one in self._kinds for change in one.changes]
        alone = all(change.actor == self._reader for change in every)
        by = f"all changes by {printable(self._reader)} · " if every and alone else ""
        return f"{by}{undo} undoes the change · {turn} of what · esc closes"

    def action_next_shown(self) -> None:
        self._shown = (self._shown + 1) % len(self._kinds)
        self.query_one(".popup-box").border_title = Content(printable(self.heading()))
        self.show_rows()

    def list_rows(self) -> list[Row]:
        return [history_row(one) for one in self._kinds[self._shown].changes]

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
