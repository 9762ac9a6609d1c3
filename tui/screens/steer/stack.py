"""The stack of interventions: how each reads on the screen, and its form; pure."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace

from mi_crow.errors import UserError
from mi_crow.mechanistic.steering.interventions import Intervention
from tui.text import printable
from tui.widgets.form import FormField, Values
from tui.widgets.row_list import Cell, Column, Row

STACK_COLUMNS = (
    Column("target"),
    Column("change", 10),
    Column("where", 9, from_width=46),
)
OPS = ("add", "scale", "clamp", "ablate")
UNITS = ("max", "latent", "norm")
SCOPES = ("all", "prompt", "generated")
_FIRST_STRENGTH = 0.8
_STEP = {"add": 0.1, "clamp": 0.1, "scale": 0.25}


def feature_of(intervention: Intervention) -> int | None:
    """The feature that it acts on, None for a raw layer."""
    kind, _, name = intervention.target.partition(":")
    return int(name) if kind == "feature" and name.isdigit() else None


def first_for(feature: int) -> Intervention:
    """What a feature that was sent here starts with: most of its maximum, added everywhere."""
    return Intervention(f"feature:{feature}", "add", _FIRST_STRENGTH, "max", "all")


def change_text(intervention: Intervention) -> str:
    """`+0.8 max`, `× 2`, `= 4`, `ablate`."""
    value, unit = f"{intervention.value:.4g}", intervention.unit
    suffix = "" if unit == "latent" else f" {unit}"
    if intervention.op == "ablate":
        return "ablate"
    if intervention.op == "scale":
        return f"× {value}"
    if intervention.op == "clamp":
        return f"= {value}{suffix}"
    return f"{intervention.value:+.4g}{suffix}"


def stack_text(stack: Sequence[Intervention]) -> str:
    """The whole stack on one line: `#42 +0.8 max, model.layers.3 × 2`."""
    parts = []
    for one in stack:
        feature = feature_of(one)
        name = f"#{feature}" if feature is not None else printable(one.target.partition(":")[2])
        parts.append(f"{name} {change_text(one)}")
    return ", ".join(parts)


def stack_rows(stack: Sequence[Intervention], names: Mapping[int, str]) -> list[Row]:
    """The stack from top to bottom; the keys are places in it."""
    rows = []
    for place, intervention in enumerate(stack):
        feature = feature_of(intervention)
        if feature is None:
            target = Cell(printable(intervention.target.partition(":")[2]))
        else:
            name = names.get(feature, "")
            more = ((f"  {printable(name)}", "$accent"),) if name else ()
            target = Cell(f"#{feature}", "bold $foreground", more)
        scope = "" if intervention.scope == "all" else intervention.scope
        rows.append(
            Row(str(place), (target, Cell(change_text(intervention)), Cell(scope, "$muted")))
        )
    return rows


def nudged(intervention: Intervention, steps: int) -> Intervention:
    """A little stronger or weaker, in steps that suit its unit."""
    step = _STEP.get(intervention.op, 0.0)
    if intervention.unit == "latent" and intervention.op != "scale":
        step = max(abs(intervention.value) * 0.1, 0.1)
    return replace(intervention, value=round(intervention.value + steps * step, 4))


def form_fields(
    intervention: Intervention | None, layers: Sequence[str] = ()
) -> tuple[FormField, ...]:
    """The fields of the form, filled in from an intervention."""
    one = intervention or Intervention("feature:", "add", _FIRST_STRENGTH, "max", "all")
    name = one.target.partition(":")[2]
    hint = "a feature's number, or a layer's name to change the raw activations"
    return (
        FormField("target", "Target", name if intervention else "", hint, tuple(layers)),
        FormField("op", "Do", one.op, "what happens to it", OPS),
        FormField("value", "Value", f"{one.value:.6g}", "a number; ablate needs none"),
        FormField(
            "unit", "Unit", one.unit, "the feature's maximum, plain, or the token's norm", UNITS
        ),
        FormField("scope", "Where", one.scope, "on which tokens", SCOPES),
    )


def from_form(values: Values) -> Intervention:
    """The intervention that a form describes. Raises UserError with what is wrong."""
    target = values["target"].removeprefix("#")
    if not target:
        raise UserError("which feature or layer?", hint="give a number or a layer's name")
    op, unit, scope = values["op"], values["unit"], values["scope"]
    for word, known, what in ((op, OPS, "change"), (unit, UNITS, "unit"), (scope, SCOPES, "place")):
        if word not in known:
            raise UserError(f"{word!r} is no {what}", hint=f"use {', '.join(known)}")
    try:
        value = float(values["value"] or 0) if op != "ablate" else 0.0
    except ValueError as error:
        raise UserError(f"{values['value']!r} is no number", hint="write 0.8 or -2") from error
    full = f"feature:{int(target)}" if target.isdigit() else f"layer:{target}"
    return Intervention(full, op, value, unit, scope)  # type: ignore[arg-type]


def submit_form(values: Values) -> str:
    """What the form popup gives back: the intervention as JSON."""
    return json.dumps(from_form(values).as_json())


def strengths(text: str) -> list[float]:
    """The numbers of a sweep: `0, 0.4 0.8`. Raises UserError."""
    try:
        found = [float(word) for word in text.replace(",", " ").split()]
    except ValueError as error:
        raise UserError(
            "a sweep is a list of numbers", hint="write them like 0, 0.4, 0.8"
        ) from error
    if not found:
        raise UserError("a sweep needs numbers", hint="write them like 0, 0.4, 0.8")
    return found
