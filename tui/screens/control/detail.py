"""What the Control screen says about the layer under the cursor; pure."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from textual.content import Content

from tui.screens.control.tree import Layer
from tui.text import number, printable
from tui.widgets.facts import Fact, blocks, facts_content, section
from tui.widgets.plot import room_of_each, side_by_side

_TWO_COLUMNS = 84  # cells from which the statistics are beside the facts
_NARROW = (
    40  # cells below which lines are saved: names as wide as the longest, no line under titles
)
_SHORT = {"hook point": "point", "parameters": "params"}  # as the tree calls them
_NAMES = 13  # cells of a name else

_STATISTICS = {
    "mean_norm": "mean norm",
    "median_norm": "median norm",
    "max_norm": "largest norm",
    "std": "std",
    "mean": "mean",
    "shape": "shape",
}


def layer_detail(
    layer: Layer,
    hooks: Sequence[Mapping[str, Any]] | None,
    statistics: Mapping[str, Any] | None,
    width: int,
) -> Content:
    """Facts, hooks and statistics of one layer. `hooks` None: no model is loaded."""
    facts = [
        Fact("kind", printable(layer.kind)),
        Fact("hook point", printable(layer.point)),
        Fact("shape", printable(layer.shape)),
        Fact("parameters", f"{layer.params:,}" if layer.params is not None else ""),
    ]
    if width < _NARROW:
        facts = [replace(fact, name=_SHORT.get(fact.name, fact.name)) for fact in facts]
    wide = width >= _TWO_COLUMNS
    room = room_of_each(2, width) if wide else width
    name = Content.styled(printable(layer.name), "bold $foreground")
    about = _columns([fact for fact in facts if fact.value], room)
    measured = attached = None
    if statistics is not None:
        text = printable(str(statistics.get("text", "")).strip())
        on = Content.styled(f"on “{text}”", "$muted").truncate(max(room, 4), ellipsis=True)
        facts_of = _columns(_facts(statistics), room)
        measured = section("Statistics", Content("\n").join([on, facts_of]))
    if hooks is not None:
        here = [hook for hook in hooks if hook_layer(hook) == layer.name]
        attached = section("Hooks", _hooks(here, len(hooks)))
    if width < _NARROW:
        return blocks(Content("\n").join([name, about]), measured, attached)
    if not wide or measured is None:
        return blocks(name, about, measured, attached)
    columns = [one.split("\n") for one in (blocks(about, attached), measured)]
    return blocks(name, side_by_side(columns, 2, room))


def _columns(facts: Sequence[Fact], width: int) -> Content:
    longest = max((len(fact.name) for fact in facts), default=0)
    return facts_content(facts, longest + 1 if width < _NARROW else _NAMES, width)


def hook_layer(hook: Mapping[str, Any]) -> str:
    """The module that a hook of the session is on."""
    return str(hook.get("layer") or hook.get("name") or "")


def _hooks(here: Sequence[Mapping[str, Any]], total: int) -> Content:
    if not here:
        elsewhere = f"none here, {total} elsewhere" if total else "none"
        return Content.styled(elsewhere, "$muted")
    return Content("\n").join(
        [
            Content.assemble(
                ("● ", "$accent"),
                (printable(str(hook.get("hook") or hook.get("kind") or "hook")), "$foreground"),
                (f"  {printable(str(hook.get('type') or ''))}", "$muted"),
            )
            for hook in here
        ]
    )


def _facts(statistics: Mapping[str, Any]) -> list[Fact]:
    facts = []
    for key, value in statistics.items():
        if isinstance(value, bool) or value is None or key in ("layer", "text"):
            continue
        if isinstance(value, int | float):
            text = number(float(value), 2) if isinstance(value, float) else f"{value:,}"
        elif isinstance(value, list | tuple) and len(value) <= 4:
            text = " × ".join(str(size) for size in value)
        elif isinstance(value, str):
            text = printable(value)
        else:
            continue
        facts.append(Fact(_STATISTICS.get(key, printable(key.replace("_", " "))), text))
    return facts
