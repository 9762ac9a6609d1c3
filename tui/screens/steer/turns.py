"""The popup over the messages of a chat: who said what on each side, and where to go on from."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

from textual import on
from textual.app import ComposeResult

from mi_crow.mechanistic.steering.chat.branches import Branches
from tui.actions import bindings
from tui.preferences.key_words import key
from tui.text import printable
from tui.widgets.frame.popup import Popup
from tui.widgets.lists.row_list import Cell, Column, Row, RowList

BOTH = "both"
_SIDES = ("baseline", "steered")


@dataclass(frozen=True)
class TurnChoice:
    """What to do with a chat, or with one of its messages."""

    action: str  # edit | remove | baseline | steered | system | new | prompt
    place: int = 0
    side: str = BOTH  # both | baseline | steered


class TurnsPopup(Popup[TurnChoice]):
    """Lists the messages; those that differ between the sides are there once for each."""

    HEADING = "Chat"
    BINDINGS = [*bindings("popup", "close"), *bindings("turns")]

    def __init__(self, chat: Branches) -> None:
        super().__init__(classes="presets turns")
        self._alike = chat.alike
        self._rows = turn_rows(chat)

    def compose_box(self) -> ComposeResult:
        yield RowList(
            [Column("who", 24), Column("message")],
            empty=lambda: f"nothing said yet: {key('steer.prompt')} writes a message",
        )

    def on_mount(self) -> None:
        rows = self.query_one(RowList)
        rows.set_rows(self._rows)
        rows.styles.height = min(max(len(self._rows), 1), 16)
        rows.action_last()
        rows.focus()

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        if action != "choose" or not parameters:
            return True
        if parameters[0] in _SIDES:
            return not self._alike
        return bool(self._rows) or parameters[0] not in ("edit", "remove")

    @on(RowList.Opened)
    def _open(self) -> None:
        self.action_choose("edit")

    def action_choose(self, action: str) -> None:
        place, _, side = (self.query_one(RowList).key or f"0/{BOTH}").partition("/")
        choice = TurnChoice(action, int(place), side)
        self.dismiss(cast("TurnChoice", choice))


def turn_rows(chat: Branches) -> list[Row]:
    """The messages in their order, numbered from 1; the keys are `place/side`."""
    rows: list[Row] = []
    for place in range(max(len(chat.baseline), len(chat.steered))):
        said = {
            side: messages[place]
            for side, messages in zip(_SIDES, (chat.baseline, chat.steered), strict=True)
            if place < len(messages)
        }
        if len(said) == 2 and said["baseline"] == said["steered"]:
            said = {BOTH: said["steered"]}
        for side, one in said.items():
            where = () if side == BOTH else ((f"  {side}", "$accent"),)
            who = Cell(f"{place + 1}  {printable(one['role'])}", "bold $foreground", where)
            rows.append(Row(f"{place}/{side}", (who, Cell(printable(one["content"].strip())))))
    return rows


def chat_words(chat: Branches, editing: str = "") -> Sequence[tuple[str, str]]:
    """The line over the field of a message: what the chat is, or what is edited."""
    if editing:
        return ((editing, "$accent"),)
    total = max(len(chat.baseline), len(chat.steered))
    if not total:
        return (("Chat", "bold $primary"), ("  new: write a message", "$muted"))
    apart = "" if chat.alike else ", sides apart"
    many = f"  {total} message{'' if total == 1 else 's'}{apart}"
    return (
        ("Chat", "bold $primary"),
        (many, "$muted"),
        (f" · {key('steer.chat')} lists", "$faint"),
    )
