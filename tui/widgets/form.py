"""A form: one line per field, one sentence for what is wrong; ctrl+r or the button submits."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from textual import events, on
from textual.app import ComposeResult
from textual.containers import Horizontal, VerticalScroll
from textual.suggester import SuggestFromList
from textual.widgets import Button, Label, Static

from mi_crow.errors import UserError
from tui.actions import bindings
from tui.text import printable
from tui.threads import error_sentence
from tui.widgets.field import CompletingField, Field
from tui.widgets.frame.popup import Popup, Result

Values = Mapping[str, Any]
"""What was entered, by the names of the fields: strings, and numbers where the field says so."""

_NUMBERS = {int: "a whole number", float: "a number"}


@dataclass(frozen=True)
class FormField:
    """One field. Up and down go through the choices; anything else can be typed too."""

    name: str
    label: str
    default: str = ""
    hint: str = ""  # shown below the form while the field has the focus
    choices: tuple[str, ...] = ()
    kind: type[str] | type[int] | type[float] = str
    required: bool = False
    empty: Any = ""  # the value of an empty field

    def value_of(self, text: str) -> Any:
        """The value that `text` stands for. Raises UserError with what is wrong."""
        if not text:
            if self.required:
                raise UserError(f"{self.label} is empty", hint="it is required")
            return self.empty
        if self.kind is str:
            return text
        try:
            return self.kind(text.replace(",", "").replace("_", ""))
        except ValueError as error:
            wanted = _NUMBERS[self.kind]
            raise UserError(f"{self.label} must be {wanted}, not {text[:40]!r}") from error


def read_values(fields: Sequence[FormField], texts: Mapping[str, str]) -> Values:
    """The values of all fields. Raises UserError for the first one that is wrong."""
    return {field.name: field.value_of(texts[field.name].strip()) for field in fields}


class FormInput(CompletingField):
    """The input of one field."""

    def __init__(self, field: FormField) -> None:
        choices = field.choices
        super().__init__(
            field.default,
            id=f"field-{field.name}",
            compact=True,
            suggester=SuggestFromList(choices, case_sensitive=False) if choices else None,
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


class FormPopup(Popup[Result]):
    """Asks for `fields` and calls `submit` with their values, in a thread.

    Dismisses with what `submit` returns; what it raises is shown in the form, which stays open.
    """

    BINDINGS = bindings("form")

    def __init__(
        self,
        title: str,
        fields: Sequence[FormField],
        submit: Callable[[Values], Result],
        button: str = "Start",
    ) -> None:
        super().__init__(classes="form")
        self._title = title
        self._fields = tuple(fields)
        self._submit = submit
        self._button = button

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

    def values(self) -> Values:
        """What is entered now. Raises UserError for the first field that is wrong."""
        inputs = self.query(FormInput)
        return read_values(self._fields, {item.field.name: item.value for item in inputs})

    @on(Field.Submitted)
    def _next_field(self) -> None:
        self.focus_next()

    @on(Button.Pressed, "#submit")
    def action_submit(self) -> None:
        if self.is_working("submit"):
            return
        self.query_one("#form-error", Static).update("")
        try:
            work = partial(self._submit, self.values())
        except UserError as error:
            self._refuse(error)
        else:
            self.in_thread(work, self._accept, group="submit", failed=self._refuse)

    def _refuse(self, error: Exception) -> None:
        self.query_one("#form-error", Static).update(printable(error_sentence(error)))

    def _accept(self, result: Result) -> None:
        self.dismiss(result)
