"""The line at the foot of a screen that asks for one text: a filter, a name, a path."""

from collections.abc import Sequence
from dataclasses import dataclass

from textual import on
from textual.app import ComposeResult
from textual.containers import Horizontal
from textual.message import Message
from textual.suggester import SuggestFromList
from textual.widget import Widget
from textual.widgets import Static

from tui.text import printable
from tui.widgets.field import CompletingField, Field


class PromptLine(Horizontal):
    """Hidden until `ask`. Enter answers and closes; escape (through the screen) closes."""

    @dataclass
    class Typed(Message):
        """The text changed while it was asked for."""

        purpose: str
        value: str

    @dataclass
    class Answered(Message):
        """Enter was pressed."""

        purpose: str
        value: str

    def __init__(self, id: str = "prompt") -> None:
        super().__init__(id=id)
        self.display = False
        self.purpose = ""
        self._back: Widget | None = None

    def compose(self) -> ComposeResult:
        yield Static("", classes="prompt-label", markup=False)
        yield CompletingField(compact=True)
        yield Static("", classes="prompt-hint", markup=False)

    @property
    def field(self) -> CompletingField:
        return self.query_one(CompletingField)

    @property
    def is_open(self) -> bool:
        return self.display

    def ask(
        self,
        purpose: str,
        label: str,
        value: str = "",
        *,
        suggestions: Sequence[str] = (),
        placeholder: str = "",
        hint: str = "enter accepts · esc cancels",
        select: bool = False,
    ) -> None:
        """Opens the line. `purpose` comes back with the messages.

        `value` can be edited; with `select`, typing replaces it and enter accepts it as it is.
        """
        if not self.is_open:
            self._back = self.screen.focused
        self.purpose = ""  # no Typed for what the program puts there
        self.query_one(".prompt-label", Static).update(printable(label))
        self.query_one(".prompt-hint", Static).update(printable(hint))
        field = self.field
        field.suggester = SuggestFromList(suggestions, case_sensitive=False)
        field.placeholder = printable(placeholder)
        with field.prevent(Field.Changed):
            field.value = value
        field.cursor_position = len(value)
        self.purpose = purpose
        self.display = True
        field.focus()
        if select:
            field.action_select_all()

    def close(self) -> bool:
        """Closes the line and gives the focus back; False when it was not open."""
        if not self.is_open:
            return False
        self.display = False
        back = self._back
        if back is not None and back.is_attached and back.display:
            back.focus()
        return True

    @on(Field.Changed)
    def _typed(self, event: Field.Changed) -> None:
        event.stop()
        if self.is_open and self.purpose:
            self.post_message(self.Typed(self.purpose, event.value))

    @on(Field.Submitted)
    def _answered(self, event: Field.Submitted) -> None:
        event.stop()
        purpose = self.purpose
        self.close()
        self.post_message(self.Answered(purpose, event.value.strip()))
