"""The stack of interventions: how each reads on the screen, and its form; pure."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace

from mi_crow.bounds import REAL
from mi_crow.errors import UserError
from mi_crow.mechanistic.concepts.annotations_saved import rename_in_stack
from mi_crow.mechanistic.features.records import FeatureRow, auroc_text
from mi_crow.mechanistic.steering.interventions import Intervention
from mi_crow.mechanistic.steering.positions import read_positions
from mi_crow.mechanistic.steering.schedules import CONSTANT, parse_condition, parse_schedule
from mi_crow.mechanistic.steering.targets import is_target, parse_target, read_target
from mi_crow.store.workspace import SaeSummary
from tui.preferences.key_words import key
from tui.screens.beginnings import said_of
from tui.text import printable, progress_bar
from tui.widgets.forms.fields import Candidate, Default, FormField, Values, WrongValueError
from tui.widgets.lists.row_list import Cell, Column, Row

STACK_COLUMNS = (
    Column("target"),
    Column("change", 11),
    Column("strength", 8, from_width=40),
    Column("positions", 9, from_width=52),
    Column("course", 18, from_width=78),
    Column("where", 10, from_width=90),
    Column("SAE or layer", 24, from_width=120),
)
_FULL = {"max": 1.5, "norm": 1.0}  # what fills the bar of a strength; for a factor it is 2
_BAR = 8
_LONG, _END = 12, 7  # letters of the name of an SAE that stands beside a feature
OPS = ("floor", "add", "clamp", "cap", "scale", "project", "ablate", "swap")
SCHEDULES = ("constant", "decay 16", "feedback 0.95 0.5")
UNITS = ("max", "latent", "norm")
SCOPES = ("all", "prompt", "generated", "last 3", "window 0:8", "role user")
# In norms of the token. Of features, raising where they are below costs less perplexity than adding
# at the same effect, and a part of a norm is the same change for all, a part of a maximum is not.
FIRST_NORMS = 0.3
_STEP = {"add": 0.1, "floor": 0.1, "clamp": 0.1, "cap": 0.1, "scale": 0.25, "project": 0.25}


def first_on(target: str, sae: SaeSummary | None = None, sae_id: str | None = None) -> Intervention:
    """The first intervention on features: raised everywhere to a part of the norm. Where some of a
    group are to fall it is added, and so it is of an SAE that reads two models, of which one writes
    alone: how active its features are is not known then."""
    falls = any(weight < 0 for _, weight in parse_target(target).features)
    adds = falls or (sae is not None and bool(sae.models))
    one = Intervention(target, "add" if adds else "floor", FIRST_NORMS, "norm", "all")
    return one.in_sae(sae_id) if sae_id is not None else one


def of_renamed(stack: Sequence[Intervention], old: str, new: str) -> list[Intervention]:
    """The stack with the SAE `old` under its new id."""
    held = [one.as_json() for one in stack]
    rename_in_stack(held, old, new)
    return [Intervention.from_json(one) for one in held]


def other_sae_text(
    intervention: Intervention, sae_id: str | None, weights: str | None = None
) -> str:
    """The SAE of a feature that does not belong to the open one; else empty, as for layers."""
    if intervention.feature is None:
        return ""
    if intervention.sae is None:
        return "SAE unknown"
    if intervention.sae != sae_id:
        return f"SAE {intervention.sae}"
    if None not in (intervention.weights, weights) and intervention.weights != weights:
        return f"earlier weights of {intervention.sae}"
    return ""


def check_stack(
    stack: Sequence[Intervention],
    sae_id: str | None,
    weights: str | None = None,
    beside: Collection[str] = (),
) -> None:
    """Raises UserError for a feature that is neither one of the open SAE nor of those `beside` it,
    which are of the same model."""
    for one in stack:
        if one.aim.of_sae and one.sae is None and sae_id is None:
            raise UserError(
                f"feature {one.feature} does not name its SAE, and none is open",
                hint=f"{key('steer.remove')} removes it, or open its SAE",
            )
        if one.aim.of_sae and one.sae is None:
            assign, remove = key("list.open"), key("steer.remove")
            raise UserError(
                f"feature {one.feature} does not name its SAE",
                hint=f"{assign} assigns it to the open SAE, {remove} removes it",
            )
        if one.sae is not None and one.sae not in beside and sae_id is None:
            raise UserError(
                f"{target_text(one)} belongs to SAE {one.sae!r}, which is not of this model",
                hint=f"{key('steer.remove')} removes it, or open its SAE",
            )
        if one.sae not in beside:
            one.check_sae(sae_id or "", lambda: weights)


def change_text(intervention: Intervention) -> str:
    """All that it does to its target: `+0.8 max`, `≥ 0.3 norm on prompt tokens, decay 16`,
    `⇄ 0.4 norm against 7+9`, `ablate`."""
    rivals = f" against {_rivals(intervention)}" if intervention.rivals else ""
    where = read_positions(intervention.scope).describe()
    on = f" {where}" if where else ""
    return f"{_amount_text(intervention)}{rivals}{on}{intervention.timing}"


def _rivals(intervention: Intervention) -> str:
    """What a swap takes away: `7+9`."""
    return printable(read_target(intervention.rivals or "").words)


def _amount_text(intervention: Intervention) -> str:
    """`+0.8 max`, `× 2`, `= 4`, `≥ 0.3 norm`, `⇄ 0.4 norm`, `ablate`."""
    value, unit = f"{intervention.value:.4g}", intervention.unit
    suffix = "" if unit == "latent" else f" {unit}"
    signs = {"scale": "×", "clamp": "=", "floor": "≥", "cap": "≤", "swap": "⇄"}
    if intervention.op == "ablate":
        return "ablate"
    if intervention.op == "call":
        return f"through {printable(intervention.code.words if intervention.code else '')}"
    if intervention.op == "project":
        return f"direction × {value}"
    if intervention.op in signs:
        return f"{signs[intervention.op]} {value}{'' if intervention.op == 'scale' else suffix}"
    return f"{intervention.value:+.4g}{suffix}"


def stack_text(stack: Sequence[Intervention], sae_id: str | None = None) -> str:
    """What acts, on one line: `#42 +0.8 max, model.layers.3 × 2`. Features of another SAE than
    `sae_id`, and those of several, have it beside them."""
    acting = [one for one in stack if one.enabled]
    saes = {one.sae for one in acting if one.sae is not None} | ({sae_id} if sae_id else set())
    said = [target_text(one, with_sae=len(saes) > 1 and one.sae != sae_id) for one in acting]
    return ", ".join(f"{what} {change_text(one)}" for what, one in zip(said, acting, strict=True))


def target_text(intervention: Intervention, *, with_sae: bool = False) -> str:
    if intervention.feature is not None:
        sae = f" of {printable(intervention.sae)}" if with_sae and intervention.sae else ""
        return f"#{intervention.feature}{sae}"
    return printable(intervention.layer or intervention.aim.words)


def strength_text(intervention: Intervention) -> str:
    """`+0.8 max`: the change without its course and condition, which a sign stands for."""
    return _amount_text(intervention) + ("~" if intervention.timing else "")


def strength_bar(intervention: Intervention) -> str:
    """How strong a change is, as a bar; empty where its unit has no usual size."""
    if intervention.op in ("scale", "project"):
        full = 2.0
    elif intervention.op == "ablate" or (full := _FULL.get(intervention.unit, 0.0)) == 0.0:
        return ""
    return "".join(progress_bar(abs(intervention.value) / full, _BAR))


def stack_rows(
    stack: Sequence[Intervention],
    names: Mapping[int, str],
    other_saes: Mapping[int, str] | None = None,
) -> list[Row]:
    """The stack from top to bottom; the keys are places in it.

    `names` are those of the open SAE's features. `other_saes`: the SAEs of features of other ones,
    by place; these rows are dimmed, as are those that are switched off.
    """
    rows = []
    for place, intervention in enumerate(stack):
        other_sae = (other_saes or {}).get(place, "")
        name = names.get(intervention.feature, "") if intervention.feature is not None else ""
        more = ((f"  {printable(name)}", "$accent"),) if name else ()
        if other_sae:
            more = ((f"  {printable(_short(other_sae))}", "$warning"),)
        off = not intervention.enabled
        if off:
            more = (("  off", "bold $warning"), *((text, "$faint") for text, _ in more))
        dim = "$faint" if other_sae or off else ""
        if intervention.rivals:
            more = (*more, (f"  against {_rivals(intervention)}", dim or "$muted"))
        scope = "" if intervention.scope == "all" else intervention.scope
        condition = intervention.condition
        schedule = intervention.schedule
        cells = (
            Cell(target_text(intervention), dim or "bold $foreground", more),
            Cell(strength_text(intervention), dim),
            Cell(strength_bar(intervention), dim or "$chart"),
            Cell(scope, dim or "$muted"),
            Cell("" if schedule == CONSTANT else schedule.describe(), dim or "$muted"),
            Cell(condition.describe() if condition else "", dim or "$muted"),
            Cell(printable(intervention.sae or intervention.layer or ""), dim or "$muted"),
        )
        rows.append(Row(str(place), cells))
    return rows


def _short(other_sae: str) -> str:
    """The SAE beside its feature, a long name by its end: those of one model begin alike."""
    start, _, name = other_sae.rpartition(" ")
    return f"{start} …{name[-_END:]}" if len(name) > _LONG else other_sae


def nudged(intervention: Intervention, steps: int) -> Intervention:
    """A little stronger or weaker, in steps that suit its unit."""
    step = _STEP.get(intervention.op, 0.0)
    if intervention.unit == "latent" and intervention.op not in ("scale", "project"):
        step = max(abs(intervention.value) * 0.1, 0.1)
    value = min(max(intervention.value + steps * step, REAL.least), REAL.most)
    return replace(intervention, value=round(value, 4))


_OPERATIONS = (
    "floor raises where it is below, cap lowers where it is above; project acts on the direction; "
    "swap raises and takes others away"
)
_POSITIONS = "which tokens are changed; also tokens 12,345 by their ids"
_AGAINST = "for swap: the features that it takes away, 7+9 or tag:NAME"
_NEAR = 3  # features that a refusal names
_COURSE = "how the strength runs over the new tokens; feedback stops when the text is about it"
_EMPTY, _ENTER = "the target is empty", "enter a feature's number or name, or a layer's name"
_CONDITION = "another feature's activation on the token: 7>2, 7>0.2max"


def form_fields(
    intervention: Intervention | None,
    targets: Sequence[Candidate] = (),
    sae_id: str | None = None,
    *,
    adds: bool = False,
) -> tuple[FormField, ...]:
    """The fields of the form, filled in from an intervention. A feature of another SAE than
    `sae_id`, the open one, is there with its SAE: `other-sae/42`. `adds`: nothing but to add is
    known of its features."""
    usual = "add" if adds else "floor"
    target, op, value, unit, scope = "", usual, f"{FIRST_NORMS:g}", "norm", "all"
    schedule, condition, rivals = SCHEDULES[0], "", ""
    if intervention is not None:
        aim = intervention.aim
        target = aim.name if aim.kind == "layer" else aim.words
        if intervention.feature is not None and intervention.sae == sae_id:
            target = str(intervention.feature)
        op, unit, scope = intervention.op, intervention.unit, intervention.scope
        value = f"{intervention.value:.6g}"
        schedule = intervention.schedule.describe()
        condition = intervention.condition.describe() if intervention.condition else ""
        rivals = intervention.rivals
    where = (
        "a feature's number or name, 3+0.5*7, tag:NAME, vector:NAME, neuron:LAYER/7, or a "
        "layer's name"
    )
    always, none = Default("", "on every token"), Default("", "none")
    return (
        FormField(
            "target",
            "target",
            target,
            where,
            listed=tuple(targets),
            required=True,
            missing=f"{_EMPTY}; {_ENTER}",
        ),
        FormField("op", "operation", op, _OPERATIONS, OPS),
        FormField("value", "value", value, "a number; ignored for ablate"),
        FormField(
            "unit", "unit", unit, "maximum of the feature, latent, or norm of the token", UNITS
        ),
        FormField("scope", "positions", scope, _POSITIONS, SCOPES),
        FormField("schedule", "schedule", schedule, _COURSE, SCHEDULES),
        FormField("condition", "only where", condition, _CONDITION, default=always),
        FormField("rivals", "against", rivals, _AGAINST, default=none),
    )


def from_form(values: Values, named: Callable[[str], str] = str) -> Intervention:
    """The intervention that a form describes; `named` gives the target of words that are none.
    Raises UserError with what is wrong."""
    target = values["target"].removeprefix("#")
    if not target:
        raise UserError(_EMPTY, hint=_ENTER)
    if not is_target(target) and ":" not in target:
        target = named(target)
    if not is_target(target) and ":" not in target:
        target = f"layer:{target}"
    op, rivals = values["op"], values["rivals"].strip()
    if op == "swap" and not rivals:
        raise WrongValueError(
            "rivals", "a swap takes other features away", hint="enter 7+9 or tag:NAME"
        )
    try:
        value = float(values["value"]) if op != "ablate" else 0.0
    except ValueError as error:
        told = f"{values['value']!r} is not a number"
        raise WrongValueError("value", told, hint="write 0.8 or -2") from error
    condition = values["condition"].strip()
    return Intervention(
        parse_target(target).text,
        op,
        value,
        values["unit"],
        values["scope"],
        schedule=parse_schedule(values["schedule"]),
        condition=parse_condition(condition) if condition else None,
        rivals=parse_target(rivals).text if op == "swap" else "",
    )


def named_target(words: str, found: Sequence[FeatureRow], layers: Collection[str]) -> str:
    """The target that `words` stand for: a layer, or the one feature that is called so among those
    that were `found` for them; several of one name are steered as one.

    Raises UserError where nothing is called so.
    """
    if words in layers:
        return words
    called = [one for one in found if one.meaning.casefold() == words.casefold()]
    if len(called) > 1:
        return "+".join(str(one.feature) for one in called)
    if called:
        return str(called[0].feature)
    if "." in words:
        return words  # a layer that only the model knows
    near = ", ".join(f"#{one.feature} {printable(one.meaning)}" for one in found[:_NEAR])
    raise UserError(
        f"no feature or layer is called {words!r}",
        hint=f"nearest: {near}" if near else "enter a feature's number, or a layer's name",
    )


def feature_candidate(row: FeatureRow) -> Candidate:
    """A feature as the list below a field shows it: found by its number and by its name."""
    auroc = f" {auroc_text(row.top_auroc)}" if row.top_auroc is not None else ""
    return Candidate(str(row.feature), f"{said_of(row)}{auroc}", row.meaning)


def strengths(text: str) -> list[float]:
    """The numbers of a sweep: `0, 0.4 0.8`. Raises UserError."""
    hint = "write them like 0, 0.4, 0.8"
    try:
        found = [float(word) for word in text.replace(",", " ").split()]
    except ValueError as error:
        raise UserError("a sweep is a list of numbers", hint=hint) from error
    if not found or not all(REAL.holds(value) for value in found):
        raise UserError("a sweep needs finite numbers", hint=hint)
    return found
