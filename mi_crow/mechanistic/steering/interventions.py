"""Interventions as plain data: what is changed, how, by how much, on which tokens. Torch-free."""

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

from mi_crow.bounds import FEATURE, REAL
from mi_crow.errors import UserError

Op = Literal["scale", "add", "clamp", "ablate"]
Unit = Literal["latent", "max", "norm"]
Scope = Literal["all", "prompt", "generated"]

_NUMBER = r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?"
_EXAMPLES = "write 42=+8, 42=+0.8max, 42=x0 or 42=4"


@dataclass(frozen=True)
class Intervention:
    """One change to one target.

    `value` counts in `unit`s: `latent` is the feature's own activation, `max` its greatest
    activation in the index, `norm` the L2 norm of the token it acts on. Scaling has no unit.
    """

    target: str  # feature:<number> or layer:<name>
    op: Op
    value: float
    unit: Unit = "latent"
    scope: Scope = "all"

    def __post_init__(self) -> None:
        kind, _, name = self.target.partition(":")
        if (
            kind not in ("feature", "layer")
            or not name
            or (kind == "feature" and not name.isdecimal())
        ):
            raise UserError(
                f"{self.target!r} is no target", hint="write feature:42 or layer:model.layers.3"
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
            FEATURE.read(name, "feature")
        if kind == "layer":
            self._check_layer()

    def _check_layer(self) -> None:
        """Raises UserError for what only a feature has: a direction to add, a maximum."""
        if self.op == "add":
            raise UserError(
                "a raw layer can be scaled, clamped to a norm, or ablated",
                hint="to add something, name a feature",
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
        return int(name) if kind == "feature" else None

    @property
    def layer(self) -> str | None:
        """The layer's name, None for a feature."""
        kind, _, name = self.target.partition(":")
        return name if kind == "layer" else None

    @property
    def changes_nothing(self) -> bool:
        """True where the result is the input whatever it is."""
        return (self.op == "scale" and self.value == 1) or (self.op == "add" and self.value == 0)

    def describe(self) -> str:
        """One short phrase: `feature 42 +0.8 max`."""
        what = f"feature {self.feature}" if self.feature is not None else f"layer {self.layer}"
        unit = "" if self.unit == "latent" else f" {self.unit}"
        change = {
            "ablate": "ablated",
            "scale": f"x {self.value:g}",
            "clamp": f"= {self.value:g}{unit}",
            "add": f"{self.value:+g}{unit}",
        }[self.op]
        where = "" if self.scope == "all" else f" on {self.scope} tokens"
        return f"{what} {change}{where}"

    def as_json(self) -> dict[str, Any]:
        """Plain JSON: target, op, value, unit, scope."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "Intervention":
        """Reads `as_json`. Raises UserError naming what is missing or wrong."""
        try:
            return cls(
                str(data["target"]),
                data["op"],
                float(data.get("value", 0.0)),
                data.get("unit", "latent"),
                data.get("scope", "all"),
            )
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise UserError(f"{data!r} is no intervention ({error!r})") from error


def parse_intervention(text: str) -> Intervention:
    """Reads `42=+8` (add), `42=+0.8max` (add, in maxima), `42=x0` (scale), `42=4` (clamp).

    Raises UserError showing what would work.
    """
    target, found, change = text.partition("=")
    if not found or not target.strip().isdecimal():
        raise UserError(f"{text!r} is no intervention", hint=_EXAMPLES)
    name = f"feature:{FEATURE.read(target.strip(), 'feature')}"
    change = change.strip()
    if match := re.fullmatch(rf"[x*×]\s*({_NUMBER})", change):
        return Intervention(name, "scale", float(match[1]))
    if match := re.fullmatch(rf"({_NUMBER})\s*(max)?", change):
        op: Op = "add" if change[0] in "+-" else "clamp"
        return Intervention(name, op, float(match[1]), "max" if match[2] else "latent")
    raise UserError(f"{text!r} is no intervention", hint=_EXAMPLES)
