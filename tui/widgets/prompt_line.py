"""The line at the foot of a screen that asks for one text: a filter, a name, a path."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from rich.cells import cell_len
from textual import events, on
from textual.app import ComposeResult
from textual.containers import Horizontal, Vertical
from textual.message import Message
from textual.suggester import Suggester, SuggestFromList
from textual.widget import Widget
from textual.widgets import Static

from tui.actions import bindings
from tui.terminal.frames import OneFrame
from tui.text import OF_A_LINE, brief, printable
from tui.widgets.field import CompletingField, Field

# Some terminals keep alt+enter to themselves, for the whole screen.
STAYING = ("alt+enter", "ctrl+t")
MOST_WAYS = 12  # to go on with a text, that are told


@dataclass(frozen=True)
class Mistake:
    """What is wrong with a text, and from where to where."""

    words: str
    start: int
    end: int


def fitted_hint(hint: str, room: int) -> str:
    """The parts of a hint that are whole in `room` cells; first of all how to leave."""
    parts = hint.split(" · ")
    first = next((one for one in parts if one.startswith("esc ")), parts[0])
    kept: list[str] = []
    for one in (first, *parts):
        more = [part for part in parts if part in (*kept, one)]
        if cell_len(" · ".join(more)) <= room:
            kept = more
    return " · ".join(kept) if first in kept else ""


def fitted_ways(ways: Sequence[str], room: int) -> str:
    """As many ways to go on as are whole in `room` cells."""
    said = "  ".join(ways)
    for shown in range(len(ways) - 1, 0, -1):
        if cell_len(said) <= room:
            return said
        said = "  ".join((*ways[:shown], "…"))
    return said if cell_len(said) <= room else ""


def _place_of(mistake: str | Mistake) -> tuple[int, int] | None:
    return (mistake.start, mistake.end) if isinstance(mistake, Mistake) else None


class Completion(Suggester):
    """Ghost text from a function that gives whole texts, the likeliest first."""

    def __init__(self, completions: Callable[[str], Sequence[str]]) -> None:
        super().__init__(use_cache=False, case_sensitive=True)
        self._completions = completions

    async def get_suggestion(self, value: str) -> str | None:
        """The first that continues the text as it is: ghost text cannot change it."""
        typed = value.casefold()
        found = self._completions(value)
        return next((one for one in found if one.casefold().startswith(typed)), None)


class PromptLine(Vertical):
    """Hidden until `ask`. Enter and what submits a form answer and close, unless the text is wrong;
    escape (through the screen) closes, and so does the focus that goes elsewhere. Tab only
    completes: what is typed after it must not become keys of the screen."""

    BINDINGS = bindings("form", "submit")

    FOOTER = (("enter", "accept"), ("escape", "cancel"))  # the keys that end it

    @dataclass(eq=False, repr=False)
    class Typed(Message):
        """The text changed while it was asked for; it may not pass its check."""

        purpose: str
        value: str

    @dataclass(eq=False, repr=False)
    class Answered(Message):
        """Enter was pressed; `stay`: one of STAYING."""

        purpose: str
        value: str
        stay: bool = False

    def __init__(self, id: str = "prompt") -> None:
        super().__init__(id=id, classes="stays")
        self.display = False
        self.purpose = ""
        self._label = self._hint = ""
        self._check: Callable[[str], str | Mistake] | None = None
        self._refuse: Callable[[str], str] | None = None
        self._trouble = ""
        self._said = ""  # of it: a text that may still become right is not found fault with
        self._ways: Callable[[str], Sequence[str]] | None = None
        self._told_ways: Sequence[str] = ()
        self._opens = self._again = False
        self._back: Widget | None = None
        self._waits_for_focus = False

    def compose(self) -> ComposeResult:
        yield Static("", classes="prompt-trouble", markup=False)
        with Horizontal():
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
        suggestions: Sequence[str] | Callable[[str], Sequence[str]] = (),
        placeholder: str = "",
        proposal: str = "",
        hint: str = "enter accepts · esc cancels",
        check: Callable[[str], str | Mistake] | None = None,
        refuse: Callable[[str], str] | None = None,
        select: bool = False,
        opens: bool = False,
        again: bool = False,
        cursor: int | None = None,
        keeps_lines: bool = False,
    ) -> None:
        """Opens the line. `purpose` comes back with the messages.

        `value` can be edited; with `select`, typing replaces it and enter accepts it as it is.
        `proposal` shows in an empty line, in place of the placeholder, and right accepts it.
        `suggestions` are whole texts, or a function that completes what was typed. `check` says
        what is wrong with a text, or nothing, while it is typed; `refuse`, when enter gives it,
        and then the line stays open. With `opens`, the answer opens something: the line
        goes in the frame that shows it, or that the screen lets go. With `again`, enter leaves the
        line open and empty: the screen asks the next thing, or closes it. `cursor` is where typing
        begins, None: at the end. With `keeps_lines`, what is pasted may have several.
        """
        self._opens, self._again, self._refuse = opens, again, refuse
        if not self.is_open:
            self._back = self.screen.focused
        self._label, self._hint, self._check = printable(label), hint, check
        self.query_one(".prompt-label", Static).update(self._label)
        field = self.field
        self._ways = suggestions if callable(suggestions) else None
        field.suggester = (
            Completion(suggestions)
            if callable(suggestions)
            else SuggestFromList(suggestions, case_sensitive=False)
        )
        field.placeholder = printable(proposal or placeholder)
        field.proposal = proposal
        field.keeps_lines = keeps_lines
        self._open(purpose, value, cursor)
        if select:
            field.action_select_all()

    def ask_again(self, purpose: str, value: str, mistake: "str | Mistake") -> bool:
        """Opens the line as it was answered last, with what was typed and what is wrong with it;
        False where something else is asked, or was since."""
        if self.is_open or self.purpose != purpose:
            return False
        self._back = self.screen.focused
        self._open(purpose, value, None)
        self.explain(mistake)
        self._say(self._trouble, _place_of(mistake))  # also of a text that may become right
        return True

    def _open(self, purpose: str, value: str, cursor: int | None) -> None:
        field = self.field
        self.purpose = ""  # no Typed for what the program puts there
        with field.prevent(Field.Changed):
            field.value = value
        field.cursor_position = len(value) if cursor is None else cursor
        self.explain("")
        self.purpose = purpose
        self.display = True
        self._waits_for_focus = self.screen.focused is not field
        field.select_on_focus = cursor is None  # else the first letter would replace all of it
        field.focus()

    def explain(self, mistake: str | Mistake) -> None:
        """Says what is wrong with the text so far, in place of the hint, or above the text where it
        is longer than the half of the line that a hint may take; empty: the hint again. The place
        of the mistake is marked in the text. As long as the end of the text, where the mistake is,
        can be completed, the ways to go on are told instead."""
        place = _place_of(mistake)
        self._trouble = mistake.words if isinstance(mistake, Mistake) else mistake
        ways = self._ways_on()
        begun = place is not None and place[1] >= len(self.field.value) and bool(ways)
        self._say("" if begun else self._trouble, place, ways)

    def _say(
        self, trouble: str, place: tuple[int, int] | None = None, ways: Sequence[str] = ()
    ) -> None:
        self._said = trouble = brief(trouble, OF_A_LINE)
        self.field.mark(place if trouble else None)
        self._told_ways = [printable(way) for way in ways] if len(ways) > 1 else ()
        self.query_one(".prompt-hint", Static).set_class(bool(trouble), "-trouble")
        self._update(".prompt-trouble", trouble)
        self._make_room()

    def _update(self, of: str, words: str) -> None:
        line = self.query_one(of, Static)
        if line.content != (words := printable(words)):
            line.update(words)

    def _ways_on(self) -> list[str]:
        """The last words of the first texts that complete what is typed, each once."""
        value = self.field.value
        found = self._ways(value) if self._ways is not None and value else ()
        last = max(value.rfind(" "), value.rfind(":")) + 1
        typed = value.casefold()
        ways: dict[str, None] = {}
        for one in found:  # which may be all of 20,000 names
            if len(ways) == MOST_WAYS:
                break
            if len(one) > len(value) and one.casefold().startswith(typed):
                ways[one[last:]] = None
        return list(ways)

    def hint(self, words: str) -> None:
        """Says more beside the text, as long as nothing is wrong with it."""
        self._hint = words
        if not self._trouble:
            self.explain("")

    def _make_room(self) -> None:
        """Says beside the text what is whole there, as the text needs its room; what is wrong is
        always there, and whole."""
        width = self.size.width or self.screen.size.width - 2  # before it is shown
        beside = width - cell_len(self._label) - cell_len(self.field.value) - 3  # gaps, cursor
        room = min(beside, width // 2)
        trouble = printable(self._said)
        above = bool(trouble) and cell_len(trouble) > room
        fitted = fitted_ways(self._told_ways, room) if self._told_ways else ""
        words = trouble or fitted or fitted_hint(self._hint, room)
        self._update(".prompt-hint", words)
        self.query_one(".prompt-trouble", Static).display = above
        self.screen.set_class(self.display and above, "-told-above")  # messages go higher
        self.query_one(".prompt-hint", Static).display = bool(words) and not above

    def on_resize(self) -> None:
        self._make_room()

    def close(self) -> bool:
        """Closes the line and gives the focus back; False when it was not open."""
        if not self.is_open:
            return False
        back = self._back
        if back is not None and back.is_attached and back.display:
            self.screen.set_focus(back)  # before Textual looks for another place for it
        self._hide()
        return True

    def _hide(self) -> None:
        self.display = False
        self.screen.remove_class("-told-above")

    @on(Field.Changed)
    def _typed(self, event: Field.Changed) -> None:
        event.stop()
        if self.is_open and self.purpose:
            self.explain(self._check(event.value) if self._check is not None else "")
            self.post_message(self.Typed(self.purpose, event.value))

    @on(Field.Submitted)
    def _submitted(self, event: Field.Submitted) -> None:
        event.stop()
        self._answer()

    def action_submit(self) -> None:
        """Answers, as enter does."""
        self._answer()

    def on_descendant_focus(self) -> None:
        self._waits_for_focus = False

    def on_descendant_blur(self) -> None:
        """Enter is another's now, so the line may not go on saying what it does here."""
        focused = self.screen.focused
        elsewhere = focused is not None and self not in focused.ancestors_with_self
        if self.is_open and elsewhere and not self._waits_for_focus:
            self._hide()

    def on_key(self, event: events.Key) -> None:
        if event.key in (*STAYING, "tab", "shift+tab"):
            event.stop()
            event.prevent_default()
        if event.key in STAYING:
            self._answer(stay=True)

    def _answer(self, *, stay: bool = False) -> None:
        if self._trouble and not self._said:  # of a text that was only begun
            self._say(self._trouble)
        if self._trouble or not self.purpose:
            return
        purpose, value = self.purpose, self.field.value.strip()
        if self._refuse is not None and (wrong := self._refuse(value)):
            self.explain(wrong)
            return
        if self._opens and isinstance(self.screen, OneFrame):
            self.screen.hold_frame()
        if self._again and not stay:
            self.purpose = ""  # what is typed before the next question is lost, and is no key
        else:
            self.close()
        self.post_message(self.Answered(purpose, value, stay))
