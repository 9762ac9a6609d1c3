"""`=` on Features: two to four features side by side in a popup as large as the screen."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from textual.app import ComposeResult
from textual.widgets import Static

from mi_crow.errors import UserError
from tui.actions import bindings
from tui.screens.features.comparison import Room, comparison_lines
from tui.screens.features.marking import FeatureMarkScreen
from tui.widgets.frame.popup import Popup
from tui.widgets.lists.line_view import LineView
from tui.widgets.token_heat import heat_mode

if TYPE_CHECKING:
    from mi_crow.mechanistic.features.comparing import Comparison
    from mi_crow.mechanistic.features.queries import FeatureStore


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


class FeatureCompareScreen(FeatureMarkScreen):
    """Compares the marked features or, without marks, the open one with its nearest."""

    def action_compare(self) -> None:
        store, sae_id, features = self.context.features, self._sae_id, self._chosen()
        if store is None or sae_id is None or not features:
            return
        folder = self.context.workspace.saes_dir / sae_id
        self.in_thread(
            partial(_compare, store, features, folder, nearest=not self.table.marks),
            lambda found: self.app.push_screen(ComparePopup(found)),
            group="compare",
        )


def _compare(
    store: "FeatureStore", features: Sequence[int], folder: Path, *, nearest: bool
) -> "Comparison":
    """Reads the comparison; blocks on the index. Raises UserError for marks that are too few or too
    many, and for a feature without a nearest one."""
    from mi_crow.mechanistic.features.comparing import LEAST, MOST, compare_features

    if nearest:
        near = store.detail(features[0]).neighbours
        if not near:
            raise UserError(
                f"feature {features[0]} has no nearest feature to compare it with",
                hint=f"mark {LEAST} to {MOST} features",
            )
        features = (features[0], near[0].feature)
    elif not LEAST <= len(features) <= MOST:
        are = "feature is" if len(features) == 1 else "features are"
        raise UserError(
            f"{len(features):,} {are} marked", hint=f"mark {LEAST} to {MOST} to compare them"
        )
    return compare_features(store, features, folder)
