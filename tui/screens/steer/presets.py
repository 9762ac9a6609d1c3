"""The popup that lists saved stacks of interventions, each with the SAE that it belongs to."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

from textual import on
from textual.app import ComposeResult

from mi_crow.errors import UserError
from mi_crow.mechanistic.steering.interventions import Intervention
from tui.actions import bindings
from tui.preferences.key_words import key
from tui.screens.steer.stack import other_sae_text, stack_text
from tui.text import printable
from tui.widgets.frame.popup import Popup
from tui.widgets.lists.row_list import Cell, Column, Row, RowList

if TYPE_CHECKING:
    from mi_crow.mechanistic.concepts.annotations import Preset


@dataclass(frozen=True)
class PresetChoice:
    """A preset, and what to do with it: use, rename or remove."""

    action: str
    name: str
    stack: tuple[Intervention, ...] = ()


class PresetPopup(Popup[PresetChoice]):
    """Dismisses with the chosen preset and what to do with it; `sae_id` is the open SAE."""

    HEADING = "Presets"
    BINDINGS = [*bindings("popup", "close"), *bindings("presets")]

    def __init__(
        self, presets: "Sequence[Preset]", sae_id: str | None, weights: str | None = None
    ) -> None:
        super().__init__(classes="presets")
        self._stacks = {preset.name: read_stack(preset) for preset in presets}
        self._open = sae_id, weights

    def compose_box(self) -> ComposeResult:
        yield RowList(
            [Column("preset", 20), Column("SAE", 20), Column("changes")],
            empty=f"none yet: {key('steer.save_preset')} saves the stack",
        )

    def on_mount(self) -> None:
        rows = self.query_one(RowList)
        rows.set_rows(
            [preset_row(name, stack, *self._open) for name, stack in self._stacks.items()]
        )
        rows.styles.height = min(max(len(self._stacks), 1), 12)
        rows.focus()

    @on(RowList.Opened)
    def _choose(self, event: RowList.Opened) -> None:
        stack = self._stacks[event.key]
        if stack is not None:
            self.dismiss(cast("PresetChoice", PresetChoice("use", event.key, stack)))

    def action_choose(self, action: str) -> None:
        if (name := self.query_one(RowList).key) is not None:
            self.dismiss(cast("PresetChoice", PresetChoice(action, name)))


def read_stack(preset: "Preset") -> tuple[Intervention, ...] | None:
    """The interventions of a preset; None where they cannot be read."""
    try:
        return tuple(Intervention.from_json(one) for one in preset.interventions)
    except UserError:
        return None


def preset_row(
    name: str, stack: Sequence[Intervention] | None, sae_id: str | None, weights: str | None
) -> Row:
    """One preset; dimmed where it belongs to another SAE than the open one."""
    if stack is None:
        cells = (Cell(printable(name), "$faint"), Cell(""), Cell("cannot be read", "$error"))
        return Row(name, cells)
    other_sae = next(filter(None, (other_sae_text(one, sae_id, weights) for one in stack)), "")
    own = next((one.sae for one in stack if one.sae is not None), "any")
    return Row(
        name,
        (
            Cell(printable(name), "$faint" if other_sae else "$accent"),
            Cell(printable(other_sae.removeprefix("SAE ") or own), "$warning" if other_sae else ""),
            Cell(stack_text(stack), "$faint" if other_sae else "$muted"),
        ),
    )


def lacks_sae(stack: Sequence[Intervention]) -> bool:
    """Whether some features do not name their SAE, as in presets of earlier versions."""
    return any(one.feature is not None and one.sae is None for one in stack)
