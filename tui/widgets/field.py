"""Text fields that behave: no blinking cursor, and every key that is not ours is typing.

What a field holds is what was put into it, character for character; what it shows is `printable`,
so that a text with an escape sequence in it can be edited, sent on and kept without reaching the
terminal. A character is shown as one character, so places in the text stay right.
"""

from rich.cells import cell_len, get_character_cell_size
from rich.text import Text
from textual import events
from textual.widgets import Input

from tui.text import printable


class Field(Input):
    """A one-line field. Nothing it shows is markup, and its cursor never blinks."""

    COMPONENT_CLASSES = {"field--wrong"}

    wrong: tuple[int, int] | None = None  # the part of the text that cannot be understood
    keeps_lines: bool = False  # of a paste, as line ends; else a space is between them

    def __init__(self, value: str = "", placeholder: str = "", **settings) -> None:
        super().__init__(value, placeholder, **settings)
        self.cursor_blink = False

    def mark(self, wrong: tuple[int, int] | None) -> None:
        """Shows which part of the text is wrong; None: no part of it."""
        if wrong != self.wrong:
            self.wrong = wrong
            self.refresh()

    def _on_paste(self, event: events.Paste) -> None:
        """Takes all lines; the class below would take the first and say nothing of the others."""
        event.stop()
        event.prevent_default()
        lines = event.text.strip("\r\n").splitlines()
        if not self.keeps_lines and len(lines) > 1:
            lines = [line.strip() for line in lines if line.strip()]
        text = ("\n" if self.keeps_lines else " ").join(lines)
        if text:
            self.replace(text, *self.selection)

    # How wide and where: of what is shown, not of what is held.

    @property
    def _value(self) -> Text:
        text = Text(printable(self.value), no_wrap=True, overflow="ignore", end="")
        if self.wrong is not None:
            style = self.get_component_rich_style("field--wrong", partial=True)
            text.stylize(style, *self.wrong)
        return text

    def _position_to_cell(self, position: int) -> int:
        return cell_len(printable(self.value[:position]))

    def _cell_offset_to_index(self, offset: int) -> int:
        left = offset + self.scroll_offset.x
        for index, character in enumerate(printable(self.value)):
            left -= get_character_cell_size(character)
            if left < 0:
                return index
        return len(self.value)


class CompletingField(Field):
    """A field with ghost text: right or ctrl+e accepts it, and tab while it shows.

    An empty one may hold a proposal, shown as its placeholder, which the same keys accept."""

    proposal: str = ""

    async def _on_key(self, event: events.Key) -> None:
        if event.key in ("right", "ctrl+e", "tab") and self.proposal and not self.value:
            event.stop()
            event.prevent_default()
            self.value = self.proposal
            self.cursor_position = len(self.value)
        elif event.key in ("ctrl+e", "tab") and self.has_ghost:
            event.stop()
            event.prevent_default()
            self.action_cursor_right()
        else:
            await super()._on_key(event)

    @property
    def has_ghost(self) -> bool:
        """True while a completion shows behind the text."""
        return self.cursor_at_end and bool(self.value) and len(self._suggestion) > len(self.value)
