"""Interventions as plain data: what is changed, how, by how much, on which tokens. Torch-free."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

from mi_crow.bounds import FEATURE, REAL
from mi_crow.errors import UserError
from mi_crow.mechanistic.steering.schedules import (
    CONSTANT,
    Condition,
    Schedule,
    parse_condition,
    parse_schedule,
)

Op = Literal["scale", "add", "clamp", "floor", "cap", "project", "ablate"]
Unit = Literal["latent", "max", "norm"]
Scope = Literal["all", "prompt", "generated"]

# The SAE's id may be left out where a stack, a preset or a command states it.
_FEATURE = re.compile(r"(?:([A-Za-z0-9][A-Za-z0-9._-]{0,63})/)?(\d+)", re.ASCII)
_NUMBER = r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?"
_EXAMPLES = (
    "write 42=+8, 42=+0.8max, 42=x0, 42=4, 42=floor 0.5norm, 42=cap 1max, 42=project 0 or "
    "42=ablate, then @decay 16 or @feedback, then ?7>2"
)
# What a feature's activation is set by, in the units of `value`.
_BY_AMOUNT = ("add", "clamp", "floor", "cap")


@dataclass(frozen=True)
class Intervention:
    """One change to one target.

    `value` is in `unit`s: `latent` of the feature's activation, `max` of its greatest activation
    in the index, `norm` of the L2 norm of the token's activation. `floor` raises the activation to
    it where it is below, `cap` lowers it where it is above. Without a unit: `scale` multiplies the
    activation, `project` what of the token lies along the feature's decoder direction v:
    h + (value - 1) (h v) v.
    """

    target: str  # feature:<sae>/<number>, feature:<number> or layer:<name>
    op: Op
    value: float
    unit: Unit = "latent"
    scope: Scope = "all"
    weights: str | None = None  # SHA-256 of the SAE's weights, where known
    schedule: Schedule = CONSTANT
    condition: Condition | None = None

    def __post_init__(self) -> None:
        kind, _, name = self.target.partition(":")
        if (
            kind not in ("feature", "layer")
            or not name
            or (kind == "feature" and not _FEATURE.fullmatch(name))
        ):
            raise UserError(
                f"{self.target!r} is not a valid target",
                hint="write feature:42, feature:my-sae/42 or layer:model.layers.3",
            )
        for word, known, what in (
            (self.op, get_args(Op), "change"),
            (self.unit, get_args(Unit), "unit"),
            (self.scope, get_args(Scope), "scope"),
        ):
            if word not in known:
                raise UserError(f"{what} {word!r} is not known", hint=f"use {', '.join(known)}")
        REAL.check(self.value, "the value of an intervention")
        if kind == "feature":
            FEATURE.read(name.rpartition("/")[2], "feature")
        if kind == "layer":
            self._check_layer()

    def _check_layer(self) -> None:
        """Raises UserError for what only works on a feature: adding its direction, its maximum."""
        if self.op not in ("scale", "clamp", "ablate"):
            raise UserError(
                "a raw layer can be scaled, clamped to a norm, or ablated",
                hint="for anything else name a feature",
            )
        if self.schedule.kind == "feedback" or self.condition is not None:
            raise UserError(
                "feedback and conditions need a feature", hint="use a constant, or a decay"
            )
        if self.op == "clamp" and self.unit == "max":
            raise UserError(
                "a raw layer has no known maximum", hint="give the norm in units of latent or norm"
            )
        if self.op == "clamp" and self.value < 0:
            raise UserError(f"a norm cannot be {self.value:g}", hint="give 0 or more")

    @property
    def feature(self) -> int | None:
        """The feature's number, None for a raw layer."""
        kind, _, name = self.target.partition(":")
        return int(name.rpartition("/")[2]) if kind == "feature" else None

    @property
    def sae(self) -> str | None:
        """The id of the feature's SAE; None for a raw layer, or where it is left out."""
        kind, _, name = self.target.partition(":")
        return (name.rpartition("/")[0] or None) if kind == "feature" else None

    @property
    def layer(self) -> str | None:
        """The layer's name, None for a feature."""
        kind, _, name = self.target.partition(":")
        return name if kind == "layer" else None

    @property
    def changes_nothing(self) -> bool:
        """True where the result always equals the input."""
        same = 0 if self.op == "add" else 1 if self.op in ("scale", "project") else None
        return same is not None and self.value == same

    @property
    def uses_maxima(self) -> frozenset[int]:
        """The features whose greatest activation must be known."""
        found = {self.feature} if self._measures_itself else set[int | None]()
        if self.condition is not None and self.condition.unit == "max":
            found.add(self.condition.feature)
        return frozenset(feature for feature in found if feature is not None)

    @property
    def _measures_itself(self) -> bool:
        by_amount = self.unit == "max" and self.op in _BY_AMOUNT
        return by_amount or self.schedule.kind == "feedback"

    def describe(self) -> str:
        """One short phrase: `feature 42 +0.8 max`."""
        what = f"feature {self.feature}" if self.feature is not None else f"layer {self.layer}"
        unit = "" if self.unit == "latent" else f" {self.unit}"
        change = {
            "ablate": "ablated",
            "scale": f"x {self.value:g}",
            "clamp": f"= {self.value:g}{unit}",
            "floor": f"at least {self.value:g}{unit}",
            "cap": f"at most {self.value:g}{unit}",
            "project": f"direction x {self.value:g}",
            "add": f"{self.value:+g}{unit}",
        }[self.op]
        where = "" if self.scope == "all" else f" on {self.scope} tokens"
        return f"{what} {change}{where}{self.timing}"

    @property
    def timing(self) -> str:
        """Its schedule and condition in words; '' for a constant without one."""
        words = "" if self.schedule == CONSTANT else f", {self.schedule.describe()}"
        return words + (f", where {self.condition.describe()}" if self.condition else "")

    def in_sae(self, sae_id: str, weights: str | None = None) -> "Intervention":
        """The same with SAE `sae_id` (and `weights` of it) filled in where they are left out."""
        if self.feature is None or self.sae not in (None, sae_id):
            return self
        return replace(
            self, target=f"feature:{sae_id}/{self.feature}", weights=self.weights or weights
        )

    def check_sae(self, sae_id: str, weights: Callable[[], str | None]) -> None:
        """Raises UserError for a feature of another SAE than `sae_id`, or of other `weights` of it;
        `weights` is called only where it matters."""
        if self.feature is None or self.sae is None:
            return
        if self.sae != sae_id:
            raise UserError(
                f"feature {self.feature} belongs to SAE {self.sae!r}, not to {sae_id!r}",
                hint=f"open {self.sae!r}, or remove the intervention",
            )
        if self.weights is not None and weights() not in (None, self.weights):
            raise UserError(
                f"feature {self.feature} was chosen when SAE {sae_id!r} had other weights",
                hint="remove the intervention and add the feature again",
            )

    def as_json(self, within: str | None = None) -> dict[str, Any]:
        """Plain JSON: target, op, value, unit, scope, sae, and weights where known.

        `within`: the SAE that the reader knows anyway, which `target` then leaves out.
        """
        plain = self.feature is not None and self.sae in (None, within)
        # What older versions do not know is only written where it is used.
        more: dict[str, Any] = {} if self.weights is None else {"weights": self.weights}
        if self.schedule != CONSTANT:
            more["schedule"] = self.schedule.as_json()
        if self.condition is not None:
            more["condition"] = self.condition.as_json()
        return {
            "target": f"feature:{self.feature}" if plain else self.target,
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
            weights, sae_id = data.get("weights"), data.get("sae")
            one = cls(
                str(data["target"]),
                data["op"],
                float(data.get("value", 0.0)),
                data.get("unit", "latent"),
                data.get("scope", "all"),
                None if weights is None else str(weights),
                Schedule.from_json(data.get("schedule")),
                Condition.from_json(data.get("condition")),
            )
            if sae_id is None:
                return one
            said = one.in_sae(str(sae_id))
            if said.feature is not None and said.sae != sae_id:
                raise UserError(f"{one.target!r} is not a feature of SAE {sae_id!r}")
            return said
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise UserError(f"{data!r} is not a valid intervention ({error!r})") from error


def is_feature(text: str) -> bool:
    """Whether a target is written like a feature, `42` or `my-sae/42`, not like a layer."""
    return _FEATURE.fullmatch(text) is not None


def parse_intervention(text: str) -> Intervention:
    """Reads `42=+8` (add), `42=+0.8max` (add, in maxima), `42=x0` (scale), `42=4` (clamp), and
    `floor 4`, `cap 4`, `project 0`, `ablate`; then `@` and a schedule, then `?` and a condition:
    `42=floor 0.5norm@feedback?7>2`.

    Raises UserError showing what would work.
    """
    target, found, change = text.partition("=")
    if not found or not target.strip().isdecimal():
        raise UserError(f"{text!r} is not a valid intervention", hint=_EXAMPLES)
    name = f"feature:{FEATURE.read(target.strip(), 'feature')}"
    change, asks, condition = change.partition("?")
    change, runs, schedule = change.partition("@")
    one = _changed(name, change.strip(), text)
    return replace(
        one,
        schedule=parse_schedule(schedule) if runs else CONSTANT,
        condition=parse_condition(condition) if asks else None,
    )


def _changed(name: str, change: str, text: str) -> Intervention:
    """The change without its schedule and condition."""
    if change == "ablate":
        return Intervention(name, "ablate", 0.0)
    if match := re.fullmatch(rf"project\s*({_NUMBER})", change):
        return Intervention(name, "project", float(match[1]))
    if match := re.fullmatch(rf"(floor|cap)\s*({_NUMBER})\s*(max|norm)?", change):
        by: Op = "floor" if match[1] == "floor" else "cap"
        return Intervention(name, by, float(match[2]), _unit(match[3]))
    if match := re.fullmatch(rf"[x*×]\s*({_NUMBER})", change):
        return Intervention(name, "scale", float(match[1]))
    if match := re.fullmatch(rf"({_NUMBER})\s*(max|norm)?", change):
        op: Op = "add" if change[0] in "+-" else "clamp"
        return Intervention(name, op, float(match[1]), _unit(match[2]))
    raise UserError(f"{text!r} is not a valid intervention", hint=_EXAMPLES)


def _unit(word: str | None) -> Unit:
    return "max" if word == "max" else "norm" if word == "norm" else "latent"
