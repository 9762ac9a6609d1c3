"""The popup that lists saved stacks of interventions, each with the SAE that it belongs to."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from mi_crow.errors import UserError
from mi_crow.mechanistic.steering.interventions import Intervention
from tui.actions import bindings
from tui.preferences.key_words import key
from tui.screens.steer.constraint import Constraint
from tui.screens.steer.stack import other_sae_text, stack_text
from tui.text import printable
from tui.widgets.lists.list_popup import SavedPopup
from tui.widgets.lists.row_list import Cell, Column, Row

if TYPE_CHECKING:
    from mi_crow.mechanistic.concepts.annotations import Preset


Held = tuple[tuple[Intervention, ...], Constraint]
Stacks = Mapping[str, Held | None]
"""The stacks of presets with their constraints, by name; None for one that cannot be read."""


class PresetPopup(SavedPopup):
    """Lists presets: open, rename, remove; `sae_id` is the open SAE."""

    HEADING = "Presets"
    OPEN_WORDS = "use"
    BINDINGS = [*bindings("popup", "close"), *bindings("presets")]
    COLUMNS = (Column("preset", 20), Column("SAE", 20), Column("changes"))
    MOST_ROWS = 12

    def __init__(self, stacks: Stacks, sae_id: str | None, weights: str | None = None) -> None:
        super().__init__()
        self._stacks = stacks
        self._of = sae_id, weights

    def empty_words(self) -> str:
        return f"none yet: {key('steer.save_preset')} saves the stack"

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        return bool(self._stacks) or action not in ("choose", "select_row")

    def list_rows(self) -> list[Row]:
        return [preset_row(name, held, *self._of) for name, held in self._stacks.items()]

    def choose(self, action: str, *keys: str) -> None:
        if action != "open" or self._stacks[keys[0]] is not None:
            super().choose(action, *keys)


def read_held(preset: "Preset") -> Held | None:
    """What a preset holds; None where it cannot be read."""
    stack = read_stack(preset)
    limits = Constraint(preset.plausible, preset.kl_budget)
    return None if stack is None else (stack, limits)


def read_stack(preset: "Preset") -> tuple[Intervention, ...] | None:
    """The interventions of a preset; None where they cannot be read."""
    try:
        return tuple(Intervention.from_json(one) for one in preset.interventions)
    except UserError:
        return None


def preset_row(name: str, held: Held | None, sae_id: str | None, weights: str | None) -> Row:
    """One preset; dimmed where it belongs to another SAE than the open one."""
    if held is None:
        cells = (Cell(printable(name), "$faint"), Cell(""), Cell("cannot be read", "$error"))
        return Row(name, cells)
    stack, limits = held
    words = " · ".join(filter(None, (limits.words, stack_text(stack))))
    others = [text for one in stack if (text := other_sae_text(one, sae_id, weights))]
    saes = dict.fromkeys(one.sae for one in stack if one.sae is not None)
    other_sae = next(iter(others), "")
    if sae_id in saes and set(others) <= {f"SAE {one}" for one in saes}:
        other_sae = ""  # of the open SAE and of others beside it
    return Row(
        name,
        (
            Cell(printable(name), "$faint" if other_sae else "$accent"),
            Cell(
                printable(other_sae.removeprefix("SAE ") or ", ".join(saes) or "any"),
                "$warning" if other_sae else "",
            ),
            Cell(words, "$faint" if other_sae else "$muted"),
        ),
    )


def lacks_sae(stack: Sequence[Intervention]) -> bool:
    """Whether some features do not name their SAE, as in presets of earlier versions."""
    return any(one.feature is not None and one.sae is None for one in stack)
