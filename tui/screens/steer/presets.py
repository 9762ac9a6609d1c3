"""The popup that lists saved stacks of interventions."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, cast

from textual import on
from textual.app import ComposeResult

from mi_crow.mechanistic.steering.interventions import Intervention
from tui.actions import bindings
from tui.screens.steer.stack import stack_text
from tui.text import printable
from tui.widgets.popup import Popup
from tui.widgets.row_list import Cell, Column, Row, RowList

if TYPE_CHECKING:
    from mi_crow.mechanistic.concepts.annotations import Preset


class PresetPopup(Popup[Sequence[Intervention]]):
    """Dismisses with the interventions of the chosen preset."""

    HEADING = "Presets"
    BINDINGS = bindings("popup", "close")

    def __init__(self, presets: "Sequence[Preset]") -> None:
        super().__init__(classes="presets")
        self._stacks = {
            preset.name: tuple(Intervention.from_json(one) for one in preset.interventions)
            for preset in presets
        }

    def compose_box(self) -> ComposeResult:
        yield RowList(
            [Column("preset", 24), Column("changes")], empty="none yet: P saves the stack"
        )

    def on_mount(self) -> None:
        rows = self.query_one(RowList)
        rows.set_rows(
            [
                Row(name, (Cell(printable(name), "$accent"), Cell(stack_text(stack), "$muted")))
                for name, stack in self._stacks.items()
            ]
        )
        rows.styles.height = min(max(len(self._stacks), 1), 12)
        rows.focus()

    @on(RowList.Opened)
    def _choose(self, event: RowList.Opened) -> None:
        self.dismiss(cast("Sequence[Intervention]", self._stacks[event.key]))
