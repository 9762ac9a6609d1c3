"""When an intervention acts: how its strength runs over the generated tokens, and on which tokens.
Torch-free.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

from mi_crow.bounds import FACTOR, FEATURE, REAL, SHARE
from mi_crow.errors import UserError

Kind = Literal["constant", "decay", "feedback"]

_NUMBER = r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?"
_DECAY_TOKENS = 16.0
_KEEP, _TARGET = 0.95, 0.5
_SCHEDULES = "write constant, decay 16, or feedback 0.95 0.5 (keep, target)"
_CONDITIONS = "write 7>2, 7<0.5 or 7>0.2max"


@dataclass(frozen=True)
class Schedule:
    """The factor k of an intervention's strength at each token; 1 over the prompt.

    constant: 1. decay: exp(-g / tokens) at the g-th generated token. feedback: the feature is
    pushed only until the text itself is about it: with z the feature's own activation before the
    change as a share of its maximum, m = max(keep m_before, z) and k = 1 - m / target, at least 0;
    m starts at 0 with the first generated token.
    """

    kind: Kind = "constant"
    tokens: float = _DECAY_TOKENS  # of decay
    keep: float = _KEEP  # of feedback
    target: float = _TARGET  # of feedback, as a share of the feature's maximum

    def __post_init__(self) -> None:
        if self.kind not in get_args(Kind):
            raise UserError(f"schedule {self.kind!r} is not known", hint=_SCHEDULES)
        FACTOR.check(self.tokens, "the length of a decay")
        SHARE.check(self.keep, "what feedback keeps")
        FACTOR.check(self.target, "the target of feedback")

    def describe(self) -> str:
        """As `parse_schedule` reads it."""
        if self.kind == "decay":
            return f"decay {self.tokens:g}"
        if self.kind == "feedback":
            return f"feedback {self.keep:g} {self.target:g}"
        return "constant"

    def as_json(self) -> dict[str, Any]:
        """Only what its kind uses."""
        used: dict[Kind, tuple[str, ...]] = {"decay": ("tokens",), "feedback": ("keep", "target")}
        return {"kind": self.kind, **{key: getattr(self, key) for key in used.get(self.kind, ())}}

    @classmethod
    def from_json(cls, data: Any) -> "Schedule":
        """Reads `as_json`, or None for constant. Raises UserError, TypeError, ValueError."""
        if data is None:
            return CONSTANT
        if not isinstance(data, Mapping):
            raise UserError(f"{data!r} is not a valid schedule", hint=_SCHEDULES)
        numbers = {key: float(data[key]) for key in ("tokens", "keep", "target") if key in data}
        return cls(data.get("kind", "constant"), **numbers)


CONSTANT = Schedule()


@dataclass(frozen=True)
class Condition:
    """Acts only on tokens where a feature of the same SAE is above (or below) a value: the
    conditions of CAST (Lee et al. 2024, 2409.05907), on a latent instead of a projection."""

    feature: int
    side: Literal["above", "below"]
    value: float
    unit: Literal["latent", "max"] = "latent"

    def __post_init__(self) -> None:
        FEATURE.check(self.feature, "the feature of a condition")
        REAL.check(self.value, "the value of a condition")
        if self.side not in ("above", "below") or self.unit not in ("latent", "max"):
            raise UserError(f"{self!r} is not a valid condition", hint=_CONDITIONS)

    def describe(self) -> str:
        """As `parse_condition` reads it."""
        sign = ">" if self.side == "above" else "<"
        return f"{self.feature}{sign}{self.value:g}{'max' if self.unit == 'max' else ''}"

    def as_json(self) -> dict[str, Any]:
        return {
            "feature": self.feature,
            "side": self.side,
            "value": self.value,
            "unit": self.unit,
        }

    @classmethod
    def from_json(cls, data: Any) -> "Condition | None":
        """Reads `as_json`, or None. Raises UserError, KeyError, TypeError, ValueError."""
        if data is None:
            return None
        if not isinstance(data, Mapping):
            raise UserError(f"{data!r} is not a valid condition", hint=_CONDITIONS)
        feature = data["feature"]
        if isinstance(feature, bool) or not isinstance(feature, int):
            raise UserError(f"{feature!r} is not a feature's number", hint=_CONDITIONS)
        value = float(data["value"])
        return cls(feature, data["side"], value, data.get("unit", "latent"))


def parse_schedule(text: str) -> Schedule:
    """Reads `constant`, `decay`, `decay 16`, `feedback`, `feedback 0.95 0.5`. Raises UserError."""
    words = text.replace(",", " ").split()
    match = re.fullmatch(rf"(constant|decay|feedback)({_NUMBER})?", words[0]) if words else None
    if match is None:
        raise UserError(f"{text!r} is not a valid schedule", hint=_SCHEDULES)
    try:
        numbers = [float(word) for word in (*filter(None, match.groups()[1:]), *words[1:])]
    except ValueError as error:
        raise UserError(f"{text!r} is not a valid schedule", hint=_SCHEDULES) from error
    if match[1] == "decay" and len(numbers) <= 1:
        return Schedule("decay", *numbers)
    if match[1] == "feedback" and len(numbers) <= 2:
        return Schedule("feedback", **dict(zip(("keep", "target"), numbers, strict=False)))
    if not numbers and match[1] == "constant":
        return CONSTANT
    raise UserError(f"{text!r} is not a valid schedule", hint=_SCHEDULES)


def parse_condition(text: str) -> Condition:
    """Reads `7>2`, `7<0.5`, `7>0.2max`. Raises UserError."""
    match = re.fullmatch(rf"#?(\d+)\s*([<>])\s*({_NUMBER})\s*(max)?", text.strip())
    if match is None:
        raise UserError(f"{text!r} is not a valid condition", hint=_CONDITIONS)
    feature = FEATURE.read(match[1], "feature")
    side = "above" if match[2] == ">" else "below"
    return Condition(feature, side, float(match[3]), "max" if match[4] else "latent")
