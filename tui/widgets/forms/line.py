"""The lines of a form: a label with its field, and the heading of a section."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from rich.text import Text
from textual import events
from textual.app import ComposeResult, RenderResult
from textual.containers import Horizontal
from textual.content import Content
from textual.message import Message
from textual.strip import Strip
from textual.widget import Widget
from textual.widgets import Label, Static

from tui.actions import bindings
from tui.text import OF_A_LINE, brief, printable
from tui.widgets.field import Field
from tui.widgets.forms.candidates import CandidateList, matching
from tui.widgets.forms.fields import Candidate, Default, FormField

_MOST_LISTED = 200
REQUIRED = "required"
LISTS = "↓ lists"


class FormInput(Field):
    """The input of one field, with a list of candidates below it.

    Down opens the list, enter or tab takes from it; without one, up and down go to the next field.
    """

    def __init__(self, field: FormField) -> None:
        super().__init__(field.text, id=input_id(field.name), compact=True)
        self._default = field.default
        self.field = field
        self.keeps_lines = field.lines
        self.candidates: tuple[Candidate, ...] = field.candidates
        self._typed = False  # since a candidate was taken, or the list was closed

    @property
    def hint(self) -> str:
        """What to enter, and that there is a list."""
        return "; ".join(filter(None, (self.field.hint, LISTS if self.candidates else "")))

    def show_default(self, default: Default | None) -> None:
        """Shows what an empty field stands for."""
        self._default = default or self.field.default
        self._fit_default()

    def on_resize(self) -> None:
        self._fit_default()

    def _fit_default(self) -> None:
        """An empty field says what it stands for; one that has to be filled in that it has, and
        its hint."""
        told = str(self._default)
        if self.field.required and not told:
            told = "  ·  ".join(filter(None, (REQUIRED, self.field.hint)))
        text = Content(printable(told))
        text = text.truncate(max(self.content_size.width, 1), ellipsis=True)
        if text.plain != self.placeholder:
            self.placeholder = text.plain

    def render_line(self, y: int) -> Strip:
        """An empty field shows its default in the colour of a text, fainter where that is from."""
        if self.value or y:
            return super().render_line(y)
        text = Text(self.placeholder or " ", end="")
        style = self.get_component_rich_style
        text.stylize(style("input--placeholder"), len(printable(self._default.text)))
        if self.has_focus:
            text.stylize(style("input--cursor"), 0, 1)
        strip = Strip(text.render(self.app.console), text.cell_len)
        width = self.scrollable_content_region.width + 1
        return strip.adjust_cell_length(width).apply_style(self.rich_style)

    def take_candidates(self, candidates: Sequence[Candidate] | None) -> None:
        """Takes new candidates; an open list shows them."""
        found = self.field.candidates if candidates is None else tuple(candidates)
        if found != self.candidates:
            self.candidates = found
            if self.has_focus and self._typed:
                self.list_matches()

    @property
    def _list(self) -> CandidateList:
        return self.screen.query_one(CandidateList)

    @property
    def _part(self) -> tuple[str, str]:
        """What is before the text to complete, and that text: the last of several."""
        if not self.field.several:
            return "", self.value
        before, comma, last = self.value.rpartition(",")
        space = " " * (len(last) - len(last.lstrip()))
        return f"{before}{comma}{space}", last.strip()

    def list_matches(self) -> None:
        """Lists what goes on from the text, if there is anything else."""
        part = self._part[1]
        found = matching(self.candidates, part)[:_MOST_LISTED] if part else []
        if not found or [one.text for one in found] == [part]:
            self._list.close()
        else:
            self._list.open_at(self, found, part)

    def _list_all(self) -> None:
        self._list.open_at(self, self.candidates[:_MOST_LISTED], self._part[1])

    def take(self, text: str) -> None:
        """Puts a candidate in place of what was typed; a folder's name asks for what is in it."""
        self._typed = goes_on = text.endswith("/")
        self.value = self._part[0] + text
        self.cursor_position = len(self.value)
        if not goes_on:
            self._list.close()

    def on_key(self, event: events.Key) -> None:
        done = self._in_list(event.key) if self._list.display else self._between(event.key)
        if done:
            event.stop()
            event.prevent_default()
            return
        self._typed = self._typed or event.is_printable or event.key in ("backspace", "delete")

    def _in_list(self, key: str) -> bool:
        found = self._list
        moves: dict[str, Callable[[], object]] = {
            "down": found.action_cursor_down,
            "up": found.action_cursor_up,
            "pagedown": found.action_page_down,
            "pageup": found.action_page_up,
        }
        if key in moves:
            moves[key]()
        elif key in ("enter", "tab") and found.key not in (None, self._part[1]):
            self.take(str(found.key))
        elif key == "escape":
            self._typed = False
            found.close()
        else:
            return False
        return True

    def _between(self, key: str) -> bool:
        if key == "down" and self.candidates:
            self._list_all()
        elif key in ("down", "up"):
            step_focus(self, 1 if key == "down" else -1)
        else:
            return False
        return True

    def on_blur(self) -> None:
        self._typed = False
        self._list.close()

    def text_changed(self) -> None:
        """The text is another one: the list follows what is typed."""
        if self._typed:
            self.list_matches()


class FieldLine(Horizontal):
    """A label and its field; what is wrong with the field is below it.

    They are made when the line is first shown: a form has dozens in closed sections.
    """

    def __init__(self, field: FormField) -> None:
        super().__init__(classes="field")
        self.field = field
        self._text = field.text  # until there is an input
        self._default: Default | None = None
        self._candidates: tuple[Candidate, ...] | None = None
        self._input: FormInput | None = None
        self._trouble: Static | None = None  # most fields never have one
        self._said = ""

    @property
    def text(self) -> str:
        """What is in the field."""
        return self._text if self._input is None else self._input.value

    @text.setter
    def text(self, text: str) -> None:
        self._text = text
        if self._input is not None:
            self._input.value = text

    def take_advice(
        self, default: Default | None, candidates: tuple[Candidate, ...] | None
    ) -> None:
        """What an empty field stands for, and what could be in it; None: as the field says."""
        self._default, self._candidates = default, candidates
        if self._input is not None:
            self._input.show_default(default)
            self._input.take_candidates(candidates)

    def show(self, shown: bool) -> None:
        """Shows the line, or hides it with what is below."""
        self.display = shown
        if shown and self._input is None and self.is_mounted:
            self.mount(*self.compose())
        if self._trouble is not None:
            self._trouble.display = shown and bool(self._said)

    def focus_field(self) -> None:
        if self._input is not None:
            self._input.focus()

    def tell_trouble(self, trouble: str) -> bool:
        """Says what is wrong; True when it was something else before."""
        said = printable(brief(trouble, OF_A_LINE))
        if said == self._said:
            return False
        self._said = said
        if self._trouble is None and isinstance(self.parent, Widget):
            self._trouble = Static(said, classes="field-trouble error", markup=False)
            self.parent.mount(self._trouble, after=self)
        elif self._trouble is not None:
            self._trouble.update(said)
        if self._input is not None:
            self._input.set_class(bool(said), "-wrong")
        self.show(self.display)
        return True

    def keep_in_view(self) -> None:
        """Scrolls to what is wrong, and then to the field."""
        if self._trouble is not None and self._trouble.display:
            self._trouble.scroll_visible(animate=False)
            self.scroll_visible(animate=False)

    def compose(self) -> ComposeResult:
        if self.display:
            self._input = FormInput(replace(self.field, text=self._text))
            self._input.set_class(bool(self._said), "-wrong")
            self.take_advice(self._default, self._candidates)
            yield Label(self.field.label, markup=False)
            yield self._input


class SectionHeading(Widget, can_focus=True):
    """The heading of a section: opens and closes it, and says what was changed in it."""

    BINDINGS = bindings("section")

    @dataclass
    class Toggled(Message):
        """The section is to open, or to close."""

        section: str
        opened: bool

    def __init__(self, section: str, number: int) -> None:
        super().__init__()
        self.section = section
        self.opened = False
        self._number = number
        self._changes = ""
        self._wrong = 0

    def tell_wrong(self, number: int) -> None:
        """Says how many of its fields are wrong: closed, it hides what is said there."""
        if number != self._wrong:
            self._wrong = number
            self.refresh()

    def tell_changes(self, changes: str) -> None:
        """Shows what is entered in the section."""
        if changes != self._changes:
            self._changes = changes
            self.refresh()

    def render(self) -> RenderResult:
        style = "$cursor-text" if self.has_focus else "$muted"
        said = self._changes or ("" if self.opened else f"{self._number} more")
        title = Content.assemble(
            ("▾ " if self.opened else "▸ ", style),
            (self.section, "bold" if self.has_focus else "bold $primary"),
            (f"   {self._wrong} wrong" if self._wrong else "", "$error"),
            ("   " + printable(said), style),
        )
        return title.truncate(max(self.size.width, 1), ellipsis=True)

    def action_open_close(self) -> None:
        self.opened = not self.opened
        self.refresh()
        self.post_message(self.Toggled(self.section, self.opened))

    def on_click(self) -> None:
        self.action_open_close()

    def on_key(self, event: events.Key) -> None:
        if event.key in ("down", "up"):
            event.stop()
            event.prevent_default()
            step_focus(self, 1 if event.key == "down" else -1)


def step_focus(widget: Widget, step: int) -> None:
    """Gives the focus to the next or the previous of what a form can do; never around the end, so
    that nobody gets to its button by going up."""
    stops = [one for one in widget.screen.focus_chain if isinstance(one, Widget)]
    at = stops.index(widget) + step if widget in stops else 0
    if 0 <= at < len(stops):
        stops[at].focus()


def input_id(name: str) -> str:
    """The id of the input of a field."""
    return f"field-{name.replace('.', '-')}"
