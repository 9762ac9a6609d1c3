"""What opens over a screen: the frame of popups, and the question with yes or no."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast

from textual.app import ComposeResult
from textual.await_complete import AwaitComplete
from textual.containers import Vertical
from textual.content import Content
from textual.screen import ModalScreen, Screen
from textual.widgets import Static

from tui.actions import Action, bindings
from tui.clipboard import copy_focused
from tui.terminal.frames import OneFrame
from tui.text import printable
from tui.threads import ThreadWork
from tui.widgets.frame.footer import FooterBar
from tui.widgets.frame.too_small import TooSmall

if TYPE_CHECKING:
    from tui.workbench import Workbench

Result = TypeVar("Result")


# ModalScreen first: Textual takes a class's own styles from the first of its bases alone.
class Popup(ThreadWork, ModalScreen[Result | None], OneFrame[Result | None]):
    """A box in the middle of the screen. Subclasses yield their widgets in `compose_box`."""

    HEADING = ""
    OPEN_WORDS = ""  # what enter does to a row of it, where that is not opened: for the footer
    CSS_PATH = Path(__file__).with_name("popups.tcss")
    BINDINGS = bindings("popup", "close") + bindings(
        "app", "copy", "help", "messages", "jump", "suspend"
    )

    _later: Callable[[], object] | None = None  # what closes it once it is shown
    _has_stopped: bool = False  # work that is told to stop may take a while to do so

    @property
    def _under(self) -> Screen[Any] | None:
        stack = self.app.screen_stack
        return stack[stack.index(self) - 1] if self in stack[1:] else None

    @property
    def close_words(self) -> str:
        """What escape does, where it does not close the popup: for the footer."""
        can_stop = getattr(self._under, "can_stop", False)
        return "stop" if can_stop and not self._has_stopped else ""

    def compose(self) -> ComposeResult:
        box = Vertical(classes="popup-box")
        box.border_title = Content(printable(self.heading())) or None
        with box:
            yield from self.compose_box()
        yield FooterBar()
        yield TooSmall()

    def heading(self) -> str:
        """The title in the border; plain text."""
        return self.HEADING

    def compose_box(self) -> ComposeResult:
        yield from ()

    def action_copy(self) -> None:
        copy_focused(cast("Workbench", self.app))

    def action_close(self) -> None:
        """Escape: what runs below stops first; the next escape closes."""
        stop = getattr(self._under, "stop_running", None)
        if stop is not None and not self._has_stopped and stop():
            self._has_stopped = True
            self.refresh_bindings()
            return
        self.dismiss(None)

    def dismiss(self, result: Result | None = None) -> AwaitComplete:
        """Closes it once, with what is open over it: Textual would close the uppermost instead,
        and give it the result twice. While another screen is shown, it waits for its own."""
        stack = self.app.screen_stack
        if self not in stack:
            if any(self in other for other in self.app._screen_stacks.values()):
                self._later = partial(self.dismiss, result)
            return AwaitComplete()
        for above in reversed(stack[stack.index(self) + 1 :]):
            if isinstance(above, Popup):
                above.leave()
        return super().dismiss(result)

    def on_screen_resume(self) -> None:
        later, self._later = self._later, None
        if later is not None:
            later()

    def leave(self) -> None:
        """Closes it from elsewhere, as escape does when nothing else is left to do."""
        self.dismiss(None)

    def listed_in_help(self, action: Action) -> bool:
        """Whether help names the keys of an action that the popup has."""
        return True

    async def action_help(self) -> None:
        await self.app.run_action("app.help")

    async def action_messages(self) -> None:
        await self.app.run_action("app.messages")

    async def action_jump(self) -> None:
        await self.app.run_action("app.jump")

    async def action_suspend_process(self) -> None:
        await self.app.run_action("app.suspend_process")


class Confirm(Popup[bool]):
    """Asks one question; True only when the answer was yes."""

    BINDINGS = bindings("popup")

    def __init__(self, question: str, detail: str = "") -> None:
        super().__init__(classes="confirm")
        self._question = question
        self._detail = detail

    def compose_box(self) -> ComposeResult:
        yield Static(printable(self._question), markup=False, classes="question")
        if self._detail:
            yield Static(printable(self._detail, keep_newlines=True), markup=False, classes="hint")

    def action_yes(self) -> None:
        self.dismiss(cast("bool", True))
