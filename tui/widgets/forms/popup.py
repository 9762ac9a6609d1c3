"""A form: one line per field, what is wrong below it; ctrl+r or the button submits."""

import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import groupby
from typing import TYPE_CHECKING, cast

from textual import events, on
from textual.app import ComposeResult
from textual.containers import Horizontal, VerticalScroll
from textual.widgets import Button, Static

from tui.actions import bindings
from tui.clipboard import copy
from tui.preferences.key_words import key
from tui.text import printable
from tui.threads import error_sentence
from tui.widgets.field import Field
from tui.widgets.forms.candidates import CandidateList
from tui.widgets.forms.drafts import Draft, draft_key, drafts_of, keep_draft
from tui.widgets.forms.fields import (
    Advice,
    FormField,
    Study,
    Texts,
    Values,
    WrongValuesError,
    filled_in,
    read_values,
    troubles_in,
    without_untouched,
    wrong_values,
)
from tui.widgets.forms.line import FieldLine, FormInput, SectionHeading, step_focus
from tui.widgets.forms.room import Room
from tui.widgets.frame.popup import Popup, Result
from tui.widgets.lists.row_list import RowList

if TYPE_CHECKING:
    from tui.workbench import Workbench

REST_S = 0.12  # how long nothing is typed before a form looks at its texts
_NARROW = 60  # columns; labels take fewer of them


class FormPopup(Popup[Result]):
    """Asks for `fields` and calls `submit` with their values, in a thread.

    Dismisses with what `submit` returns; what it raises is shown in the form, which stays open.
    With `study` the form says while one types what an empty field stands for, what could be in
    it, what is wrong, and what to expect. A `note` is above the fields; `busy` says what goes
    on while `submit` works. The keys of the actions `way`, one after the other, open it again.
    """

    BINDINGS = bindings("form")
    first_keys = ("form.submit", "form.close")  # where the footer has no room for all

    def __init__(
        self,
        title: str,
        fields: Sequence[FormField],
        submit: Callable[[Values], Result],
        button: str = "Start",
        study: Study | None = None,
        note: str = "",
        busy: str = "",
        way: Sequence[str] = (),
    ) -> None:
        super().__init__(classes="form" if study is None else "form -studied")
        self.FOOTER: Sequence[tuple[str, str]] = ()  # what the footer says instead of all keys
        self._title = title
        self._fields = tuple(fields)
        self._submit = submit
        self._button, self.submit_words = button, button.casefold()  # for the footer
        self._study = study
        self._note = note
        self._busy = busy
        self._way = tuple(way)
        self._advice = Advice()
        self._troubles: dict[str, str] = {}  # by field; without a name, of all of them
        self._filled: set[str] = set()  # fields that have had a text, or that were submitted
        self._low = False  # the terminal: what is expected takes the place of a hint
        self._at_first = {one.name: one.text for one in fields}
        self._draft_key = draft_key(title, self._at_first)
        self._draft: dict[str, str] | None = None  # what was in it when it was last closed
        if study is None and len(fields) == 1:  # one question, which enter answers
            self.FOOTER = (("enter", button.casefold()), ("escape", "cancel"))

    def heading(self) -> str:
        return self._title

    def compose(self) -> ComposeResult:
        yield from super().compose()
        yield CandidateList()

    def compose_box(self) -> ComposeResult:
        left = drafts_of(self.app).get(self._draft_key)
        self._draft = dict(left.texts) if left is not None else None
        if self._draft is not None:
            said = f"As it was left; {key('form.anew')} begins anew"
            self._note = "\n".join(filter(None, (self._note, said)))
        if self._note:
            note = printable(self._note, keep_newlines=True)
            yield Static(note, id="form-note", markup=False)
        begun = filled_in(self._fields, self._draft or {})
        self._filled = {one.name for one in begun if one.text.strip()}
        with VerticalScroll(classes="fields", can_focus=False):
            for section, fields in groupby(begun, lambda one: one.section):
                lines = [FieldLine(one) for one in fields]
                if section:
                    yield SectionHeading(section, len(lines))
                for line in lines:
                    line.display = not section
                    yield line
        yield Static("", id="form-hint", classes="hint", markup=False)
        yield Static("", id="form-error", classes="error", markup=False)
        yield Static("", id="form-lines", classes="hint", markup=False)
        yield Static("", id="form-command", markup=False)
        with Horizontal(classes="buttons"):
            if self._study is not None:
                yield Button("Copy command", id="copy", compact=True)
            yield Button(self._button, id="submit", compact=True)

    def on_mount(self) -> None:
        self._summarise()
        if self.focused is None:  # else tab was pressed while the form opened
            self.query(FormInput).first().focus()
        self._look_at_texts(0)

    def on_resize(self) -> None:
        self.set_class(self.size.width < _NARROW, "-slim")
        if self._study is not None:
            room = Room.of(*self.size, self._note, [one.hint for one in self._fields])
            self._low = room.low
            self.set_class(room.low, "-low")
            self.query_one(".fields").styles.max_height = room.fields
            self.query_one("#form-hint").styles.height = room.hint
            self.query_one("#form-lines").styles.max_height = room.expected
            for note in self.query("#form-note"):
                note.styles.max_height = room.note
            command = self.query_one("#form-command")
            command.display = not room.low
            command.styles.max_height = room.command
            self._tell_troubles()

    def on_key(self, event: events.Key) -> None:
        steps = {"up": -1, "left": -1, "down": 1, "right": 1}
        if isinstance(self.focused, Button) and event.key in steps:
            event.stop()
            step_focus(self.focused, steps[event.key])

    def on_descendant_focus(self) -> None:
        focused = self.focused
        hint = ""
        if isinstance(focused, FormInput):
            hint = focused.hint
        elif isinstance(focused, SectionHeading):
            hint = f"{key('section.toggle')} opens or closes these fields"
        elif self._advice.command:
            hint = f"{key('form.copy')} copies the command"
        self.query_one("#form-hint", Static).update(printable(hint))
        self._tell_troubles()
        self.refresh_bindings()

    # What is in the fields.

    @property
    def texts(self) -> dict[str, str]:
        """What is in the fields now, by their names."""
        return {line.field.name: line.text for line in self.query(FieldLine)}

    @on(Field.Changed)
    def _changed(self, event: Field.Changed) -> None:
        if isinstance(event.input, FormInput):
            event.input.text_changed()
            self._filled |= {event.input.field.name} if event.input.value.strip() else set()
            self._keep_draft(is_open=True)
            self._summarise()
            self.refresh_bindings()  # what escape does
            if self._study is None:
                self._check_typed(event.input)
            self._look_at_texts(REST_S)

    @on(Field.Submitted)
    def _next_field(self) -> None:
        if self._study is None and len(self._fields) == 1:  # one question: enter answers it
            self.action_submit()
        else:
            self.focus_next()

    @on(RowList.Opened, "#candidates")
    def _take(self, event: RowList.Opened) -> None:
        if isinstance(self.focused, FormInput):
            self.focused.take(event.key)

    @on(SectionHeading.Toggled)
    def _toggle(self, event: SectionHeading.Toggled) -> None:
        for line in self.query(FieldLine):
            if line.field.section == event.section:
                line.show(event.opened)
        self._tell_troubles()

    def _summarise(self) -> None:
        texts = self.texts
        for heading in self.query(SectionHeading):
            own = [one for one in self._fields if one.section == heading.section]
            changed = [f"{one.label} {texts[one.name]}" for one in own if texts[one.name].strip()]
            heading.tell_changes(" · ".join(changed))

    # What there is to say about it.

    def _look_at_texts(self, rest: float) -> None:
        study, texts = self._study, self.texts
        if study is None:
            return

        def work() -> Advice:
            time.sleep(rest)
            return study(texts)

        self.in_thread(work, self._show_advice, group="study", failed=self._not_studied)

    def _show_advice(self, advice: Advice) -> None:
        self._advice = advice
        self._troubles = dict(advice.troubles)
        for line in self.query(FieldLine):
            name = line.field.name
            line.take_advice(advice.defaults.get(name), advice.candidates.get(name))
        self.query_one("#copy", Button).display = bool(advice.command)
        self.query_one("#form-lines", Static).update(printable(" · ".join(advice.lines)))
        self.query_one("#form-command", Static).update(
            printable(advice.command, keep_newlines=True)
        )
        self.on_descendant_focus()

    def _check_typed(self, item: FormInput) -> None:
        """Without a study: what is typed is wrong for itself, or not; an empty field waits."""
        field = item.field
        self._troubles.pop(field.name, None)
        self._troubles.pop("", None)
        if item.value.strip():
            self._troubles |= wrong_values((field,), self.texts)
        self._tell_troubles()

    def _tell_troubles(self) -> None:
        """Says what is wrong, each below its field; not of a text that may still become one of the
        list below it, nor that nothing is in a field yet that has to be filled in."""
        focused, listed = self.focused, self.query_one(CandidateList).display
        told = without_untouched(self._troubles, self._fields, self.texts, self._filled)
        if listed and isinstance(focused, FormInput):
            told.pop(focused.field.name, None)
        changed = False
        for line in self.query(FieldLine):
            changed = line.tell_trouble(told.get(line.field.name, "")) or changed
        for heading in self.query(SectionHeading):
            own = [one.name for one in self._fields if one.section == heading.section]
            heading.tell_wrong(sum(name in told for name in own))
        said = self._in_all(told)
        self.query_one("#form-error", Static).update(printable(said))
        if self._study is not None:
            asked = self._low and isinstance(focused, FormInput)
            self.query_one("#form-error").display = bool(said)
            self.query_one("#form-hint").display = not self._low or (asked and not said)
            self.query_one("#form-lines").display = not told and not asked
        if changed and isinstance(focused, FormInput) and isinstance(focused.parent, FieldLine):
            self.call_after_refresh(focused.parent.keep_in_view)

    def _in_all(self, told: Mapping[str, str]) -> str:
        """What no field says: the trouble of all of them, of one that is hidden, or which of many
        are wrong."""
        if "" in told:
            return told[""]
        wrong = [line for line in self.query(FieldLine) if line.field.name in told]
        if len(wrong) > 1:
            return f"to put right: {', '.join(line.field.label for line in wrong)}"
        return "".join(told[line.field.name] for line in wrong if not line.display)

    # Actions.

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        if action == "anew":
            return self._draft is not None
        if action == "copy":
            return bool(self._advice.command)
        return True

    @on(Button.Pressed, "#copy")
    def action_copy(self) -> None:
        if self._advice.command:
            copy(cast("Workbench", self.app), self._advice.command, "the command")

    def action_close(self) -> None:
        """Escape: leaves a field of a form that was edited, then closes it. What was typed is there
        when the form is opened again."""
        texts = self.texts
        if self._study is None or texts == self._at_first:
            self._forget_draft()
        elif self._leaves_field:
            self.query_one("#submit", Button).focus()
            return
        else:
            self._keep_draft(is_open=False)
            if texts != self._draft:
                self.app.notify("What was typed is there when the form is opened again")
        super().action_close()

    def leave(self) -> None:
        if self._study is None:
            self._forget_draft()
        else:
            self._keep_draft(is_open=False)
        super().leave()

    @property
    def close_words(self) -> str:
        focused = self.focused
        if isinstance(focused, FormInput) and self.query_one(CandidateList).display:
            return "close the list"
        if self._leaves_field:
            return "leave the field"
        kept = "close" if self._study is not None else ""  # what was typed stays
        return super().close_words or kept

    @property
    def _leaves_field(self) -> bool:
        """Whether escape leaves a field of a form that was edited."""
        typed = self.texts if isinstance(self.focused, FormInput) else self._at_first
        return self._study is not None and typed not in (self._at_first, self._draft)

    def _keep_draft(self, *, is_open: bool) -> None:
        """What is in the form comes back, also when the connection drops while it is open."""
        texts = self.texts
        draft = Draft(texts, is_open, self._way) if texts != self._at_first else None
        keep_draft(self.app, self._draft_key, draft)

    def _forget_draft(self) -> None:
        keep_draft(self.app, self._draft_key, None)

    def action_anew(self) -> None:
        """What the form began with, before anything was typed."""
        self._forget_draft()
        self._draft = None
        self._filled = {name for name, text in self._at_first.items() if text.strip()}
        for line in self.query(FieldLine):
            line.text = self._at_first[line.field.name]
        self._note = self._note.rpartition("\n")[0]
        note = self.query_one("#form-note", Static)
        note.update(printable(self._note))
        note.display = bool(self._note)
        self.query(FormInput).first().focus()
        self.refresh_bindings()

    @on(Button.Pressed, "#submit")
    def action_submit(self) -> None:
        if self.is_working("submit"):
            return
        if self._study is None:
            self._troubles = {}
            self._tell_troubles()
        if self._busy:
            self.query_one("#form-lines", Static).update(self._busy)
        work = partial(self._submitted, self.texts)
        self.in_thread(work, self._accept, group="submit", failed=self._refuse)

    def _submitted(self, texts: Texts) -> Result:
        """The texts are looked at once more: what was typed last may not have been."""
        advice = Advice(troubles=wrong_values(self._fields, texts))
        if self._study is not None:
            advice = self._study(texts)
        if advice.troubles:
            raise WrongValuesError(advice.troubles)
        return self._submit(read_values(self._fields, texts, advice.defaults))

    def _not_studied(self, error: Exception) -> None:
        self._troubles = {"": error_sentence(error)}
        self._tell_troubles()

    def _refuse(self, error: Exception) -> None:
        self._filled.update(one.name for one in self._fields)
        if self._busy:
            self.query_one("#form-lines", Static).update("")
        self._troubles = troubles_in(error, error_sentence(error))
        self._tell_troubles()
        first = next((one.name for one in self._fields if one.name in self._troubles), None)
        if first is not None:
            self._go_to(first)

    def _go_to(self, name: str) -> None:
        """Gives the focus to a field, and opens its section."""
        line = next(one for one in self.query(FieldLine) if one.field.name == name)
        for heading in self.query(SectionHeading):
            if heading.section == line.field.section and not heading.opened:
                heading.action_open_close()
        line.show(True)
        self.call_after_refresh(line.focus_field)

    def _accept(self, result: Result) -> None:
        self._forget_draft()
        self.dismiss(result)
