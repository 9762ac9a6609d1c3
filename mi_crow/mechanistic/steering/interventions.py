"""Interventions as data: what is changed, how, by how much, on which tokens. Torch-free.

One intervention is one line, `TARGET=CHANGE`, or one JSON object; a stack is a list of them, for
any number of SAEs, vectors and layers of one model. What a line may hold, in this order:

    42=swap 0.3norm against 7+9 on generated@feedback?12>2

the target (`targets`), the change, the rivals, the positions (`positions`), the schedule and the
condition (`schedules`). The same as JSON:

    {"target": "feature:42", "op": "swap", "value": 0.3, "unit": "norm", "scope": "generated",
     "sae": null, "rivals": "group:7+9", "schedule": {"kind": "feedback", ...},
     "condition": {"feature": 12, "side": "above", "value": 2.0, "unit": "latent"}}

Keys from "rivals" on, "weights" (SHA-256 of the SAE's) and "enabled" (false: it rests) are only
there where they are used, so that older versions read what they know.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

from mi_crow.bounds import REAL
from mi_crow.errors import UserError
from mi_crow.hooks.user_code import UserFunction
from mi_crow.mechanistic.steering.positions import read_positions
from mi_crow.mechanistic.steering.schedules import (
    CONSTANT,
    Condition,
    Schedule,
    parse_condition,
    parse_schedule,
)
from mi_crow.mechanistic.steering.targets import TARGETS, Target, in_sae, parse_target, read_target
from mi_crow.mechanistic.steering.targets import is_feature as is_feature  # beside the parser

Op = Literal["scale", "add", "clamp", "floor", "cap", "project", "ablate", "swap", "call"]
Unit = Literal["latent", "max", "norm"]
Scope = str  # see `positions`

# What is not finite is read, to be refused by name.
_NUMBER = r"[+-]?(?:(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?|inf|nan)"
EXAMPLES: str = (
    "write 42=+8, 42=+0.8max, 42=x0, 42=4, 42=floor 0.5norm, 42=cap 1max, 42=project 0 or "
    "42=ablate; for 42 also 3+0.5*7, tag:weather, vector:calm, layer:NAME or "
    "neuron:NAME/7; then `against 7+9`, `on generated`, @decay 16 or @feedback, and ?7>2"
)
# What a feature's activation is set by, in the units of `value`.
_BY_AMOUNT = ("add", "clamp", "floor", "cap", "swap")
_WITH_RIVALS = ("add", "swap")
_OF_LAYERS = ("scale", "clamp", "ablate", "call")


@dataclass(frozen=True)
class Intervention:
    """One change to one target.

    `value` is in `unit`s: `latent` of the feature's activation (of a vector: multiples of it, of a
    neuron: its activation), `max` of its greatest activation in the index (of a vector: of the
    greatest projection on the texts it was made from), `norm` of the L2 norm of the token's
    activation. `floor` raises the activation to it where it is below, `cap` lowers it where it is
    above. `swap` raises like `floor`, and takes the rivals away: their activations are multiplied
    by 1 - k, with the factor k of the schedule. Without a unit: `scale` multiplies the activation,
    `project` what of the token lies along the feature's decoder direction v:
    h + (value - 1) (h v) v.

    The weights of a group multiply the amount that each feature is set by; in `norm` the group's
    whole direction then has `value` norms. With `scale` and `ablate` they are shares of the change;
    `project` acts on the sum of the weighted unit directions.
    """

    target: str  # see `targets`
    op: Op
    value: float
    unit: Unit = "latent"
    scope: Scope = "all"
    weights: str | None = None  # SHA-256 of the SAE's weights, where known
    schedule: Schedule = CONSTANT
    condition: Condition | None = None
    rivals: str = ""  # a target of the same SAE, which `add` and `swap` take away
    enabled: bool = True
    code: UserFunction | None = None  # of `call`: what a layer's activations become

    def __post_init__(self) -> None:
        target = self.aim
        for word, known, what in (
            (self.op, get_args(Op), "change"),
            (self.unit, get_args(Unit), "unit"),
        ):
            if word not in known:
                raise UserError(f"{what} {word!r} is not known", hint=f"use {', '.join(known)}")
        read_positions(self.scope)
        REAL.check(self.value, "the value of an intervention")
        if target.kind == "layer":
            self._check_layer()
        if (self.op == "call") != (self.code is not None and target.kind == "layer"):
            raise UserError(
                "call needs a layer and a function", hint="e.g. layer:resid_post.2=call f.py:f"
            )
        if target.kind == "neuron" and (self._by_maxima or self.schedule.kind == "feedback"):
            raise UserError("a neuron has no known maximum", hint="use latent or norm, no feedback")
        if self.op not in ("add", "project") and any(w < 0 for _, w in target.features):
            raise UserError(
                f"a weight below 0 cannot be used with {self.op}", hint="use add or project"
            )
        self._check_rivals()

    def _check_layer(self) -> None:
        """Raises UserError for what only works on a feature: adding its direction, its maximum."""
        if self.op not in _OF_LAYERS:
            raise UserError(
                "a raw layer can be scaled, clamped to a norm, ablated, or given to a function",
                hint="for anything else name a feature",
            )
        if self.schedule.kind == "feedback":
            raise UserError("feedback needs a feature", hint="use a constant, or a decay")
        if self.op == "clamp" and self.unit == "max":
            raise UserError(
                "a raw layer has no known maximum", hint="give the norm in units of latent or norm"
            )
        if self.op == "clamp" and self.value < 0:
            raise UserError(f"a norm cannot be {self.value:g}", hint="give 0 or more")

    def _check_rivals(self) -> None:
        if not self.rivals:
            if self.op == "swap":
                raise UserError("swap needs rivals", hint="e.g. 42=swap 0.3norm against 7+9")
            return
        rivals, target = read_target(self.rivals), self.aim
        if not (rivals.of_sae and target.of_sae):
            raise UserError("rivals are features of the target's SAE", hint="e.g. against 7+9")
        if self.op not in _WITH_RIVALS:
            raise UserError(f"{self.op} takes no rivals", hint="use swap or add")
        if rivals.sae not in (None, target.sae):
            raise UserError(f"rivals {rivals.words} are of another SAE than the target")
        both = {feature for feature, _ in rivals.features} & {n for n, _ in target.features}
        if both:
            raise UserError(f"feature {min(both)} is target and rival", hint="leave one out")

    @property
    def aim(self) -> Target:
        """The target, read."""
        return read_target(self.target)

    @property
    def feature(self) -> int | None:
        """The number of a single feature, else None."""
        return self.aim.features[0][0] if self.aim.kind == "feature" else None

    @property
    def features(self) -> tuple[tuple[int, float], ...]:
        """The features of a feature or a group with their weights; of a tag none, before it is
        looked up."""
        return self.aim.features

    @property
    def rival_features(self) -> tuple[tuple[int, float], ...]:
        """The rivals with their weights."""
        return read_target(self.rivals).features if self.rivals else ()

    @property
    def sae(self) -> str | None:
        """The id of the SAE that the target is about; None where it is left out, or of others."""
        return self.aim.sae

    @property
    def layer(self) -> str | None:
        """The layer's name, None for anything else than a whole layer."""
        return self.aim.name if self.aim.kind == "layer" else None

    @property
    def changes_nothing(self) -> bool:
        """True where the result always equals the input."""
        same = 0 if self.op == "add" else 1 if self.op in ("scale", "project") else None
        return not self.enabled or (same is not None and self.value == same and not self.rivals)

    @property
    def uses_maxima(self) -> frozenset[tuple[str | None, int]]:
        """The features whose greatest activation must be known, each with its SAE."""
        found = {(self.sae, feature) for feature, _ in self.features if self.measures_itself}
        condition = self.condition
        if condition is not None and condition.unit == "max" and condition.feature is not None:
            found.add((condition.sae or self.sae, condition.feature))
        return frozenset(found)

    @property
    def measures_itself(self) -> bool:
        """Whether its own greatest activation must be known."""
        return self._by_maxima or self.schedule.kind == "feedback"

    @property
    def _by_maxima(self) -> bool:
        return self.unit == "max" and self.op in _BY_AMOUNT

    @property
    def saes(self) -> frozenset[str]:
        """The SAEs that it names."""
        named = (self.sae, self.condition.sae if self.condition else None)
        return frozenset(one for one in named if one is not None)

    def describe(self) -> str:
        """One short phrase: `feature 42 +0.8 max`."""
        change = {
            "ablate": "ablated",
            "scale": f"x {self.value:g}",
            "clamp": f"= {self.value:g}{self._of}",
            "floor": f"at least {self.value:g}{self._of}",
            "swap": f"at least {self.value:g}{self._of}",
            "cap": f"at most {self.value:g}{self._of}",
            "project": f"direction x {self.value:g}",
            "call": f"through {self.code.words if self.code else ''}",
            "add": f"{self.value:+g}{self._of}",
        }[self.op]
        what = replace(self.aim, sae=None).describe() if self.aim.of_sae else self.aim.describe()
        against = f" against {read_target(self.rivals).words}" if self.rivals else ""
        where = read_positions(self.scope).describe()
        return f"{what} {change}{against}{f' {where}' if where else ''}{self.timing}"

    @property
    def _of(self) -> str:
        return "" if self.unit == "latent" else f" {self.unit}"

    @property
    def timing(self) -> str:
        """Its schedule and condition in words; '' for a constant without one."""
        words = "" if self.schedule == CONSTANT else f", {self.schedule.describe()}"
        return words + (f", where {self.condition.describe()}" if self.condition else "")

    @property
    def words(self) -> str:
        """As `parse_intervention` reads it: `42=floor 0.3norm on generated@feedback 0.95 0.5`."""
        unit = "" if self.unit == "latent" or self.op not in _BY_AMOUNT else self.unit
        amount = f"{self.value:.9g}{unit}"
        change = {
            "ablate": "ablate",
            "call": f"call {self.code.words if self.code else ''}",
            "scale": f"x{amount}",
            "clamp": f"clamp {amount}",
            "add": f"{self.value:+.9g}{unit}",
        }.get(self.op, f"{self.op} {amount}")
        against = f" against {read_target(self.rivals).words}" if self.rivals else ""
        where = "" if self.scope == "all" else f" on {read_positions(self.scope).text}"
        schedule = "" if self.schedule == CONSTANT else f"@{self.schedule.describe()}"
        condition = f"?{self.condition.describe()}" if self.condition else ""
        return f"{self.aim.words}={change}{against}{where}{schedule}{condition}"

    def in_sae(self, sae_id: str, weights: str | None = None) -> "Intervention":
        """The same with SAE `sae_id` (and `weights` of it) filled in where they are left out."""
        if not self.aim.of_sae or self.sae not in (None, sae_id):
            return self
        target = in_sae(self.aim, sae_id).text
        return replace(self, target=target, weights=self.weights or weights)

    def check_sae(self, sae_id: str, weights: Callable[[], str | None]) -> None:
        """Raises UserError for a feature of another SAE than `sae_id`, or of other `weights` of it;
        `weights` is called only where it matters."""
        if self.sae is None:
            return
        what = replace(self.aim, sae=None).describe()
        if self.sae != sae_id:
            raise UserError(
                f"{what} belongs to SAE {self.sae!r}, not to {sae_id!r}",
                hint=f"open {self.sae!r}, or remove the intervention",
            )
        self.check_weights(weights)

    def check_weights(self, weights: Callable[[], str | None]) -> None:
        """Raises UserError where its SAE now has other weights than when it was chosen."""
        if self.weights is not None and weights() not in (None, self.weights):
            raise UserError(
                f"{replace(self.aim, sae=None).describe()} was chosen when SAE {self.sae!r} had "
                "other weights",
                hint="remove the intervention and add the feature again",
            )

    def as_json(self, within: str | None = None) -> dict[str, Any]:
        """Plain JSON: target, op, value, unit, scope, sae, and what else is used.

        `within`: the SAE that the reader knows anyway, which `target` then leaves out.
        """
        plain = self.aim.of_sae and self.sae in (None, within)
        # What older versions do not know is only written where it is used.
        more: dict[str, Any] = {} if self.weights is None else {"weights": self.weights}
        if self.schedule != CONSTANT:
            more["schedule"] = self.schedule.as_json()
        if self.condition is not None:
            more["condition"] = self.condition.as_json()
        if self.rivals:
            more["rivals"] = self.rivals
        if not self.enabled:
            more["enabled"] = False
        if self.code is not None:
            more["code"] = self.code.as_json()
        return {
            "target": replace(self.aim, sae=None).text if plain else self.target,
            "op": self.op,
            "value": self.value,
            "unit": self.unit,
            "scope": self.scope,
            "sae": within if plain else self.sae,
            **more,
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "Intervention":
        """Reads `as_json`. Raises UserError naming what is missing or wrong."""
        try:
            weights, sae_id, enabled = data.get("weights"), data.get("sae"), data.get("enabled")
            if enabled not in (None, True, False):
                raise UserError(f"enabled is true or false, not {enabled!r}")
            one = cls(
                str(data["target"]),
                data["op"],
                float(data.get("value", 0.0)),
                data.get("unit", "latent"),
                str(data.get("scope", "all")),
                None if weights is None else str(weights),
                Schedule.from_json(data.get("schedule")),
                Condition.from_json(data.get("condition")),
                str(data.get("rivals") or ""),
                enabled is not False,
                UserFunction.from_json(data.get("code")),
            )
            if sae_id is None:
                return one
            said = one.in_sae(str(sae_id))
            if said.aim.of_sae and said.sae != sae_id:
                raise UserError(f"{one.target!r} is not a feature of SAE {sae_id!r}")
            return said
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
            why = f"{error} is missing" if isinstance(error, KeyError) else str(error)
            raise UserError(f"{data!r} is not a valid intervention ({why})") from error


_LINE = re.compile(
    r"(?P<change>.*?)(?:\s+against\s+(?P<rivals>.*?))?(?:\s+on\s+(?P<scope>.*?))?", re.DOTALL
)


def parse_intervention(text: str) -> Intervention:
    """Reads `42=+8` (add), `42=+0.8max` (add, in maxima), `42=x0` (scale), `42=4` (clamp), and
    `floor 4`, `cap 4`, `swap 4 against 7+9`, `project 0`, `ablate`, `add 4`, `clamp -4`, and of a
    layer `call FILE.py:FUNCTION`; then `on`
    and positions, then `@` and a schedule, then `?` and a condition:
    `3+0.5*7=floor 0.5norm on generated@feedback?7>2`. The target is that of `parse_target`.

    Raises UserError showing what would work.
    """
    target, found, change = text.partition("=")
    if not found or not target.strip():
        raise UserError(f"{text!r} is not a valid intervention", hint=EXAMPLES)
    change, asks, condition = change.partition("?")
    change, runs, schedule = change.partition("@")
    parts = _LINE.fullmatch(change.strip())
    try:
        name = parse_target(target).text
    except UserError as error:
        plain = error.hint == TARGETS  # what else can stand there, but not what is done with it
        raise UserError(str(error), hint=EXAMPLES if plain else error.hint) from error
    scope = parts["scope"] if parts is not None else None
    rivals = parts["rivals"] if parts is not None else None
    what = parts["change"].strip() if parts is not None else ""
    code = UserFunction.named(what[5:].strip()) if what.startswith("call ") else None
    op, value, unit = _change(what, text) if code is None else ("call", 1.0, "latent")
    return Intervention(
        name,
        op,
        value,
        unit,
        scope="all" if scope is None else read_positions(scope).text,
        schedule=parse_schedule(schedule) if runs else CONSTANT,
        condition=parse_condition(condition) if asks else None,
        rivals="" if rivals is None else parse_target(rivals).text,
        code=code,
    )


def _change(change: str, text: str) -> tuple[Op, float, Unit]:
    """What is done, without positions, schedule and condition."""
    if change == "ablate":
        return "ablate", 0.0, "latent"
    if match := re.fullmatch(rf"(project|scale)\s*({_NUMBER})", change):
        return ("project" if match[1] == "project" else "scale"), float(match[2]), "latent"
    if match := re.fullmatch(rf"(floor|cap|swap|add|clamp)\s*({_NUMBER})\s*(max|norm)?", change):
        by: dict[str, Op] = {"floor": "floor", "cap": "cap", "swap": "swap", "add": "add"}
        return by.get(match[1], "clamp"), float(match[2]), _unit(match[3])
    if match := re.fullmatch(rf"[x*×]\s*({_NUMBER})", change):
        return "scale", float(match[1]), "latent"
    if match := re.fullmatch(rf"({_NUMBER})\s*(max|norm)?", change):
        op: Op = "add" if change[0] in "+-" else "clamp"
        return op, float(match[1]), _unit(match[2])
    raise UserError(f"{text!r} is not a valid intervention", hint=EXAMPLES)


def _unit(word: str | None) -> Unit:
    return "max" if word == "max" else "norm" if word == "norm" else "latent"
