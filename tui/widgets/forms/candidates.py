"""The list under a field: texts that it could have, and what to know about each."""

from collections.abc import Sequence

from textual.geometry import Offset
from textual.widget import Widget

from tui.text import printable
from tui.widgets.forms.fields import Candidate
from tui.widgets.lists.row_list import Cell, Column, Row, RowList

MOST_ROWS = 8
_LONGEST_NOTE = 30


class CandidateList(RowList, can_focus=False):
    """Shown over the form, below the field that has the focus, which moves its cursor."""

    def __init__(self) -> None:
        super().__init__((Column("text"),), id="candidates", classes="-lit")
        self.display = False
        self._field: Widget | None = None  # below which it is
        self._placed_width = 0

    def on_mount(self) -> None:
        # What the form says of its texts may come late, and move the field.
        self.screen.screen_layout_refresh_signal.subscribe(self, lambda _: self._stand())

    def open_at(self, field: Widget, found: Sequence[Candidate], chosen: str) -> None:
        """Shows `found` at the `field`, above it where there is no room below."""
        rows = [
            Row(one.text, (Cell(printable(one.text)), Cell(printable(one.note), "$muted")))
            for one in found
        ]
        longest = min(max((len(one.note) for one in found), default=0), _LONGEST_NOTE)
        note = (Column("note", longest, "right", from_width=40),) if longest else ()
        self._columns = (Column("text"), *note)
        self.styles.height = min(len(rows), MOST_ROWS)
        self._field = field
        self.set_rows(rows)
        self.cursor = next((at for at, row in enumerate(rows) if row.key == chosen), 0)
        self.display = True
        self.screen.refresh_bindings()  # what escape does
        self._stand()
        self.refresh(layout=True)

    def _stand(self) -> None:
        """Stands at its field, wherever that is by now."""
        if self._field is None or not self.display:
            return
        at, height = self._field.region, min(self.row_count, MOST_ROWS)
        below = at.bottom + height < self.screen.size.height
        offset = Offset(at.x, at.bottom if below else at.y - height)
        if (offset, at.width) != (self.absolute_offset, self._placed_width):
            self.absolute_offset, self._placed_width = offset, at.width
            self.styles.width = at.width
            self.refresh(layout=True)

    def close(self) -> bool:
        """False when it was not open."""
        was_open, self.display = self.display, False
        if was_open:
            self.screen.refresh_bindings()
        return was_open


def matching(candidates: Sequence[Candidate], typed: str) -> list[Candidate]:
    """Those that go on from what was `typed`, then those that hold it, then those whose other
    words go on from it or hold it."""
    wanted = typed.casefold()
    found: tuple[list[Candidate], ...] = ([], [], [], [])
    for one in candidates:
        text, words = one.text.casefold(), one.words.casefold()
        tests = (text.startswith(wanted), wanted in text, words.startswith(wanted), wanted in words)
        if any(tests):
            found[tests.index(True)].append(one)
    return [one for rank in found for one in rank]
