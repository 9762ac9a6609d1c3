"""Two to four features side by side, in a popup as large as the screen."""

from typing import TYPE_CHECKING

from textual.app import ComposeResult
from textual.widgets import Static

from tui.actions import bindings
from tui.screens.features.comparison import Room, comparison_lines
from tui.widgets.frame.popup import Popup
from tui.widgets.lists.line_view import LineView
from tui.widgets.token_heat import heat_mode

if TYPE_CHECKING:
    from mi_crow.mechanistic.features.comparing import Comparison


class ComparisonView(LineView):
    """The columns and the pairs under them; the lines scroll, the columns go by one."""

    BINDINGS = [*bindings("scroll"), *bindings("comparing")]

    def __init__(self, found: "Comparison") -> None:
        super().__init__(id="comparison")
        self._found = found
        self._first = 0

    @property
    def shown(self) -> range:
        """The places of the features that have a column now."""
        room = self._room
        return range(self._first, min(self._first + room.columns, len(self._found.sides)))

    @property
    def _room(self) -> Room:
        return Room(self.text_width, self.size.height, heat_mode(self.app))

    def rewrap(self) -> None:
        self._first = self._last_fitting(self._first)
        self.set_lines(comparison_lines(self._found, self._first, self._room))

    def _last_fitting(self, first: int) -> int:
        return max(min(first, len(self._found.sides) - self._room.columns), 0)

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        return action != "column" or len(self.shown) < len(self._found.sides)

    def action_column(self, steps: int) -> None:
        first = self._last_fitting(self._first + steps)
        if first != self._first:
            self._first = first
            self.rewrap()
            self.screen.query_one("#comparing-title", Static).update(self.title_text())

    def title_text(self) -> str:
        """Which features are compared; of more than fit, which of them are shown."""
        sides, shown = self._found.sides, self.shown
        names = " · ".join(f"#{side.feature}" for side in sides)
        if len(shown) == len(sides):
            return names
        which = f"{shown.start + 1}" if len(shown) == 1 else f"{shown.start + 1} to {shown.stop}"
        return f"{names}   columns {which} of {len(sides)}, ← → for the others"


class ComparePopup(Popup[None]):
    """Shows one comparison."""

    HEADING = "Compare"
    BINDINGS = bindings("popup", "close")

    def __init__(self, found: "Comparison") -> None:
        super().__init__(classes="comparing")
        self._view = ComparisonView(found)

    def compose_box(self) -> ComposeResult:
        yield Static(id="comparing-title", markup=False)
        yield self._view

    def on_mount(self) -> None:
        self._view.focus()
        self.call_after_refresh(self._show_title)

    def on_resize(self) -> None:
        self.call_after_refresh(self._show_title)

    def _show_title(self) -> None:
        self.refresh_bindings()  # left and right, where columns do not fit
        self.query_one("#comparing-title", Static).update(self._view.title_text())
