"""Detectors and controllers on the Control screen: rows, a form, what they found; pure."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from textual.content import Content

from mi_crow.bounds import REAL
from mi_crow.errors import UserError
from mi_crow.hooks.specs import HookSpec
from tui.text import count, number, printable
from tui.widgets.facts import Fact, blocks, facts_content
from tui.widgets.forms.fields import Default, FormField, Values, WrongValueError
from tui.widgets.histogram import histogram_chart
from tui.widgets.lists.row_list import Cell, Column, Row
from tui.widgets.token_heat import quoted

HOOK_COLUMNS = (Column("hook"), Column("layer", 20, from_width=70), Column("found", 11, "right"))
KINDS = ("statistics", "scale", "neurons")
_SHOWN = 4
# Where none is given: half of the activations is a change that a model survives; 0 ablates.
_VALUES = {"scale": 0.5}


def hook_rows(
    specs: Sequence[HookSpec], found: Sequence[Any], kl: float | None = None
) -> list[Row]:
    """The hooks in the order in which they act; the keys are places in it. `kl`, of all controllers
    together, stands at the last that acts."""
    acting = [place for place, spec in enumerate(specs) if spec.changes and spec.enabled]
    rows = []
    for place, spec in enumerate(specs):
        dim = "" if spec.enabled else "$faint"
        more = () if spec.enabled else (("  off", "bold $warning"),)
        sign = "◆ " if spec.changes else "● "
        what = Cell(sign + printable(spec.describe()), dim, more)
        own = found[place] if place < len(found) else None
        told = _told(own)
        if kl is not None and acting and place == acting[-1]:
            told = f"{'all ' if len(acting) > 1 else ''}KL {number(kl, 2)}"
        cells = (what, Cell(printable(spec.layer), dim or "$muted"), Cell(told, "$accent"))
        rows.append(Row(str(place), cells))
    return rows


def _told(found: Any) -> str:
    """What a detector found, in two words."""
    if not isinstance(found, Mapping):
        return ""
    if warnings := found.get("warnings"):
        return f"{count(warnings)} warning{'' if warnings == 1 else 's'}"
    return f"{count(found.get('count') or 0)} tokens"


_WARN = "statistics: count tokens of a greater norm"
_ONLY = "controllers: act on tokens of a greater norm"


def hook_fields(layer: str, spec: HookSpec | None = None) -> tuple[FormField, ...]:
    """The fields of the form: those of a new hook on `layer`, or filled in from a hook."""
    value = neurons = warn = only = ""
    if spec is not None:
        value = f"{spec.value:.12g}" if spec.changes else ""
        neurons = ", ".join(map(str, spec.neurons))
        warn, only = (
            "" if norm is None else f"{norm:.12g}" for norm in (spec.warn_above, spec.only_above)
        )
    none = Default("", "none")
    return (
        FormField(
            "kind",
            "kind",
            KINDS[0] if spec is None else spec.kind,
            "statistics watches; scale multiplies the activations; neurons sets single units",
            KINDS,
            closed=True,
        ),
        FormField(
            "layer",
            "layer",
            layer if spec is None else spec.layer,
            "a module's name, or a point such as resid_post.3",
        ),
        FormField(
            "value",
            "value",
            value,
            "the factor: 0.5 halves, 1 changes nothing, 0 ablates; or what the neurons are set to",
            default=Default(source="scale: 0.5, neurons: 0"),
        ),
        FormField("neurons", "neurons", neurons, "their numbers, with commas: 3, 17", default=none),
        FormField("warn_above", "warn above", warn, _WARN, default=none),
        FormField("only_above", "only above", only, _ONLY, default=none),
    )


def from_form(values: Values, width_of: Callable[[str], int | None] = lambda _: None) -> HookSpec:
    """The hook that a form describes. Raises UserError with what is wrong, also for a neuron that
    the layer does not have where `width_of` knows its width."""
    spec = HookSpec(
        values["layer"].strip(),
        values["kind"],
        _number(values["value"], "value") if values["value"] else _VALUES.get(values["kind"], 0.0),
        tuple(_whole(part) for part in values["neurons"].replace(",", " ").split()),
        _number(values["warn_above"], "threshold") if values["warn_above"] else None,
        _number(values["only_above"], "norm") if values["only_above"] else None,
    )
    width = width_of(spec.layer)
    if width is not None:
        try:
            spec.check_width(width)
        except UserError as error:
            raise WrongValueError("neurons", str(error), hint=error.hint) from error
    return spec


def nudged(spec: HookSpec, steps: int) -> HookSpec:
    """A factor changes by tenths, what neurons are set to by a tenth of it."""
    step = 0.1 if spec.kind == "scale" else max(abs(spec.value) * 0.1, 0.1)
    value = min(max(spec.value + steps * step, REAL.least), REAL.most)
    return replace(spec, value=round(value, 4))


def _number(text: str, what: str) -> float:
    try:
        return float(text)
    except ValueError as error:
        raise UserError(f"the {what} {text!r} is not a number", hint="write 0.5 or 40") from error


def _whole(text: str) -> int:
    if not text.isdecimal():
        raise UserError(f"{text!r} is not a neuron's number", hint="write 3, 17")
    return int(text)


def detector_content(found: Mapping[str, Any], width: int) -> Content:
    """Everything a detector found: facts, the greatest tokens, and the histogram of the norms."""
    top = " ".join(
        f"{quoted(str(token))} {number(norm, 1)}"
        for token, norm in (found.get("top") or ())[:_SHOWN]
    )
    units = ", ".join(
        f"{unit} ±{number(deviation, 2)}" for unit, deviation in (found.get("units") or ())[:_SHOWN]
    )
    facts = [
        Fact("tokens", count(found.get("count") or 0)),
        Fact("mean", number(found.get("mean"), 3)),
        Fact("std", number(found.get("std"), 3)),
        Fact("warnings", count(found.get("warnings") or 0)),
        Fact("greatest", top),
        Fact("units", units),
    ]
    bars, values = histogram_chart(found.get("histogram") or (), found.get("edges") or (), width, 4)
    lines = [Content.assemble((label, "$muted"), (f" {bar}", "$chart")) for label, bar in bars]
    if lines:
        lines = [Content.styled("norms of tokens", "$muted"), *lines]
        lines.append(Content.styled(values, "$muted"))
    return blocks(
        facts_content([fact for fact in facts if fact.value], 13, width),
        *([Content("\n").join(lines)] if lines else []),
    )
