"""A form: one line a field, one sentence when something is wrong, ctrl+r or the button starts."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from textual import events, on
from textual.app import ComposeResult
from textual.containers import Horizontal, VerticalScroll
from textual.message import Message
from textual.suggester import SuggestFromList
from textual.widgets import Button, Label, Static

from mi_crow.causes import sentence_of
from mi_crow.errors import MiCrowError
from tui.actions import bindings
from tui.text import printable
from tui.widgets.field import Field
from tui.widgets.frame.popup import Popup

Values = Mapping[str, str]


@dataclass(frozen=True)
class FormField:
    """One field. Up and down go through the choices; anything else can be typed too."""

    name: str
    label: str
    default: str = ""
    hint: str = ""  # shown below the form while the field has the focus
    choices: tuple[str, ...] = ()


class FormInput(Field):
    """The input of one field. Ghost text is taken with right, ctrl+e, or tab while it shows."""

    def __init__(self, field: FormField) -> None:
        super().__init__(
            field.default,
            placeholder="",
            id=f"field-{field.name}",
            compact=True,
            suggester=SuggestFromList(field.choices, case_sensitive=False)
            if field.choices
            else None,
        )
        self.field = field

    def on_key(self, event: events.Key) -> None:
        choices = self.field.choices
        if event.key in ("up", "down") and choices:
            event.stop()
            event.prevent_default()
            step = 1 if event.key == "down" else -1
            at = choices.index(self.value) if self.value in choices else -(step > 0)
            self.value = choices[(at + step) % len(choices)]
            self.cursor_position = len(self.value)
        elif event.key in ("ctrl+e", "tab") and self.ghost:
            event.stop()
            event.prevent_default()
            self.action_cursor_right()

    @property
    def ghost(self) -> bool:
        """True while a completion shows behind the text."""
        return self.cursor_at_end and bool(self.value) and len(self._suggestion) > len(self.value)


class FormPopup(Popup[str]):
    """Asks for `fields` and calls `submit` with their texts, in a thread.

    Dismisses with what `submit` gives; a MiCrowError that it raises is shown in the form.
    """

    BINDINGS = bindings("form")

    class Refused(Message):
        def __init__(self, sentence: str) -> None:
            super().__init__()
            self.sentence = sentence

    class Accepted(Message):
        def __init__(self, result: str) -> None:
            super().__init__()
            self.result = result

    def __init__(
        self,
        title: str,
        fields: Sequence[FormField],
        submit: Callable[[Values], str],
        button: str = "Start",
    ) -> None:
        super().__init__(classes="form")
        self._title = title
        self._fields = tuple(fields)
        self._submit = submit
        self._button = button
        self._busy = False

    def heading(self) -> str:
        return self._title

    def compose_box(self) -> ComposeResult:
        with VerticalScroll(classes="fields", can_focus=False):
            for field in self._fields:
                with Horizontal(classes="field"):
                    yield Label(field.label, markup=False)
                    yield FormInput(field)
        yield Static("", id="form-hint", classes="hint", markup=False)
        yield Static("", id="form-error", classes="error", markup=False)
        with Horizontal(classes="buttons"):
            yield Button(self._button, id="submit", compact=True)

    def on_mount(self) -> None:
        self.query(FormInput).first().focus()

    def on_descendant_focus(self) -> None:
        focused = self.focused
        hint = ""
        if isinstance(focused, FormInput):
            hint = focused.field.hint
            if len(focused.field.choices) > 1:
                hint = f"{hint}; ↑↓ chooses" if hint else "↑↓ chooses"
        self.query_one("#form-hint", Static).update(printable(hint))

    def values(self) -> dict[str, str]:
        return {item.field.name: item.value.strip() for item in self.query(FormInput)}

    @on(Field.Submitted)
    def _next_field(self) -> None:
        self.focus_next()

    @on(Button.Pressed, "#submit")
    def action_submit(self) -> None:
        if self._busy:
            return
        self._busy = True
        self.query_one("#form-error", Static).update("")
        values = self.values()
        self.run_worker(lambda: self._work(values), thread=True, exit_on_error=False)

    def _work(self, values: Values) -> None:
        try:
            result = self._submit(values)
        except (MiCrowError, OSError) as error:
            self.post_message(self.Refused(sentence_of(error)))
        else:
            self.post_message(self.Accepted(result))

    def on_form_popup_refused(self, message: Refused) -> None:
        self._busy = False
        self.query_one("#form-error", Static).update(printable(message.sentence))

    def on_form_popup_accepted(self, message: Accepted) -> None:
        self.dismiss(message.result)
