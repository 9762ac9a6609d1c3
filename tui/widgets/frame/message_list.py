"""`!`: what the app told, the latest first, with what to do about it."""

import time
from collections.abc import Sequence

from textual import on
from textual.app import ComposeResult
from textual.content import Content

from tui.actions import bindings
from tui.message_log import Place, Told
from tui.preferences.key_words import key
from tui.text import printable
from tui.widgets.frame.popup import Popup
from tui.widgets.lists.row_list import Cell, Column, Row, RowList
from tui.widgets.words import Words

_STYLES = {"error": "$error", "warning": "$warning"}


class MessageRows(RowList):
    """Rows that can be opened where the message has a place."""

    def __init__(self, told: Sequence[Told]) -> None:
        columns = [Column("time", 8), Column("message")]
        super().__init__(columns, empty="No messages yet", id="messages-list")
        self._told = told

    @property
    def told(self) -> Told | None:
        """The message under the cursor."""
        return self._told[int(self.key)] if self.key is not None else None

    def text_to_copy(self) -> tuple[str, str]:
        told = self.told
        if told is None:
            return "", ""
        return "\n".join(filter(None, (told.sentence, told.remedy))), "the message"

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        if action == "select_row":
            return self.told is not None and self.told.place is not None
        return super().check_action(action, parameters)


class MessagesPopup(Popup[Place]):
    """Dismisses with the place of the chosen message."""

    OPEN_WORDS = "show"
    HEADING = "Messages"
    BINDINGS = bindings("popup", "close")

    def __init__(self, told: Sequence[Told]) -> None:
        super().__init__(classes="messages")
        self._told = tuple(told)

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        return action != "messages"  # that is what it shows

    def compose_box(self) -> ComposeResult:
        yield MessageRows(self._told)
        yield Words("", id="messages-whole", markup=False)

    def on_mount(self) -> None:
        rows = self.query_one(RowList)
        rows.set_rows([_row(index, told) for index, told in enumerate(self._told)])
        rows.focus()

    @on(RowList.Highlighted)
    def _show_whole(self, event: RowList.Highlighted) -> None:
        if event.key is None:
            return
        self.refresh_bindings()
        told = self._told[int(event.key)]
        parts: list[tuple[str, str]] = [(_one_line(told), _STYLES.get(told.severity, ""))]
        if told.remedy:
            parts.append((f"\n{printable(told.remedy)}", "$foreground"))
        if told.place is not None:
            parts += [(f"\n{key('list.open')}", "bold $primary"), (" shows it", "$muted")]
        self.query_one("#messages-whole", Words).update(Content.assemble(*parts))

    @on(RowList.Opened)
    def _open(self, event: RowList.Opened) -> None:
        place = self._told[int(event.key)].place
        if place is not None:
            self.dismiss(place)


def _row(index: int, told: Told) -> Row:
    clock = time.strftime("%H:%M:%S", time.localtime(told.time))
    return Row(
        str(index),
        (Cell(clock, "$muted"), Cell(_one_line(told), _STYLES.get(told.severity, ""))),
    )


def _one_line(told: Told) -> str:
    again = f" ({told.times} times)" if told.times > 1 else ""
    return printable(told.sentence) + again
