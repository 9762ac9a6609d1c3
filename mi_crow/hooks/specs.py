"""Detectors and controllers as plain data: for forms, the model session and the saved state.
Torch-free."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, get_args

from mi_crow.bounds import FACTOR, FEATURE, REAL
from mi_crow.errors import UserError

if TYPE_CHECKING:
    from mi_crow.hooks.hook import Hook
    from mi_crow.hooks.running import Rows

HookKind = Literal["statistics", "scale", "neurons"]
_KINDS = "statistics, scale or neurons"


@dataclass(frozen=True)
class HookSpec:
    """One hook on a layer: `statistics` detects; `scale` multiplies the activations by `value`,
    `neurons` sets single units to it."""

    layer: str
    kind: HookKind = "statistics"
    value: float = 0.0
    neurons: tuple[int, ...] = ()
    warn_above: float | None = None  # of statistics: norms above it are counted
    only_above: float | None = None  # of controllers: only on tokens with a greater norm
    enabled: bool = True

    def __post_init__(self) -> None:
        if self.kind not in get_args(HookKind):
            raise UserError(f"hook kind {self.kind!r} is not known", hint=f"use {_KINDS}")
        if not self.layer:
            raise UserError("a hook needs a layer", hint="e.g. resid_post.3 or a module's name")
        REAL.check(self.value, "the value of a hook")
        FACTOR.check(self.warn_above, "the warning threshold")
        FACTOR.check(self.only_above, "the norm of a condition")
        if self.kind == "neurons" and not self.neurons:
            raise UserError("no neurons given", hint="give their numbers, e.g. 3, 17")
        for neuron in self.neurons:
            FEATURE.check(neuron, "a neuron")

    @property
    def changes(self) -> bool:
        """Whether it is a controller."""
        return self.kind != "statistics"

    def describe(self) -> str:
        """`× 0.5`, `neurons 3, 17 = 0`, `statistics, warning above 40`."""
        if self.kind == "statistics":
            warns = "" if self.warn_above is None else f", warning above {self.warn_above:g}"
            return f"statistics{warns}"
        where = "" if self.only_above is None else f" where the norm is above {self.only_above:g}"
        if self.kind == "scale":
            return f"× {self.value:g}{where}"
        return f"neurons {', '.join(map(str, self.neurons))} = {self.value:g}{where}"

    def check_width(self, width: int) -> None:
        """Raises UserError for a neuron that a layer of this width does not have."""
        wrong = next((one for one in self.neurons if one >= width), None)
        if wrong is not None and self.kind == "neurons":
            raise UserError(
                f"layer {self.layer!r} has no neuron {wrong}",
                hint=f"it has neurons 0 to {width - 1}",
            )

    def as_json(self) -> dict[str, Any]:
        return {**vars(self), "neurons": list(self.neurons)}

    @classmethod
    def from_json(cls, data: Any) -> "HookSpec":
        """Reads `as_json`. Raises UserError."""
        if not isinstance(data, Mapping):
            raise UserError(f"{data!r} is not a valid hook")
        try:
            numbers = {
                name: None if data.get(name) is None else float(data[name])
                for name in ("warn_above", "only_above")
            }
            return cls(
                str(data["layer"]),
                data.get("kind", "statistics"),
                float(data.get("value", 0.0)),
                tuple(int(one) for one in data.get("neurons") or ()),
                enabled=data.get("enabled") is not False,
                **numbers,
            )
        except (KeyError, TypeError, ValueError) as error:
            raise UserError(f"{data!r} is not a valid hook ({error!r})") from error

    def build(self, rows: "Rows | None" = None) -> "Hook":
        """The hook itself; `rows` are those that a detector counts."""
        from mi_crow.hooks.controllers import (
            ConditionalController,
            NeuronsController,
            ScaleController,
        )
        from mi_crow.hooks.running import StatisticsDetector

        if self.kind == "statistics":
            return StatisticsDetector(self.layer, warn_above=self.warn_above, rows=rows)
        if self.kind == "scale":
            own = ScaleController(self.layer, self.value)
        else:
            own = NeuronsController(self.layer, self.neurons, self.value)
        if (limit := self.only_above) is None:
            return own
        return ConditionalController(
            self.layer, own.function, lambda x: x.float().norm(dim=-1) > limit
        )
