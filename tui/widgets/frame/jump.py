"""Jump labels: a letter over each pane and field; the letter gives it the focus."""

from textual import events
from textual.app import ComposeResult
from textual.geometry import Offset
from textual.screen import Screen
from textual.widget import Widget
from textual.widgets import Static

from tui.actions import SCREENS
from tui.widgets.frame.popup import Popup

LETTERS = "asdfghjklqwertyuiopzxcvbnm"  # those under the fingers first


def targets(screen: Screen) -> list[tuple[Widget, Offset]]:
    """What can take the focus and is on the screen, from the top left, and where it begins."""
    found = []
    for widget in screen.focus_chain:
        seen = screen.find_widget(widget).visible_region
        if seen.area:
            found.append((widget, seen.offset))
    return sorted(found, key=lambda one: (one[1].y, one[1].x))


class JumpLabel(Static):
    """One letter, drawn over what it leads to."""

    def __init__(self, letter: str, at: Offset) -> None:
        super().__init__(f" {letter} ", markup=False)
        self.letter = letter
        self.styles.offset = (at.x, at.y)


class JumpPopup(Popup[Widget | str]):
    """Dismisses with the widget whose letter was pressed, or the name of a screen."""

    def __init__(self, below: Screen) -> None:
        super().__init__(classes="jump")
        self._targets = dict(zip(LETTERS, targets(below), strict=False))
        self._drawn_for = below.size

    def compose(self) -> ComposeResult:
        for letter, (_, at) in self._targets.items():
            yield JumpLabel(letter, at)
        said = [f"esc {self.close_words or 'close'}s", f"1-{len(SCREENS)} a screen"]
        if self._targets:
            said.insert(0, "a letter goes to its pane")
        yield Static(" · ".join(said), id="jump-hint", markup=False)

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        return action not in ("jump", "help", "messages")  # a key is for the labels

    def on_resize(self) -> None:
        self._go_when_moved()

    def on_screen_resume(self) -> None:
        self._go_when_moved()

    def _go_when_moved(self) -> None:
        """What the letters are over is elsewhere on a terminal of another size."""
        if self.app.size != self._drawn_for and self.is_active:
            self.dismiss(None)

    def on_key(self, event: events.Key) -> None:
        key = event.key
        if key in self._targets:
            self._choose(event, self._targets[key][0])
        elif key.isdecimal() and 1 <= int(key) <= len(SCREENS):
            self._choose(event, SCREENS[int(key) - 1])

    def on_click(self, event: events.Click) -> None:
        label = event.widget
        if isinstance(label, JumpLabel):
            self._choose(event, self._targets[label.letter][0])

    def _choose(self, event: events.Event, chosen: Widget | str) -> None:
        event.stop()
        self.dismiss(chosen)
