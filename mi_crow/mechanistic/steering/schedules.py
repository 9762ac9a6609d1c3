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
_CONDITIONS = "write 7>2, 7<0.5, 7>0.2max, my-sae/7>2 or vector:calm>1"
_ID = r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}"
_CONDITION = re.compile(
    rf"(?:vector:({_ID})|(?:({_ID})/)?#?(\d+))\s*([<>])\s*({_NUMBER})\s*(max)?", re.ASCII
)


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
    """Acts only on tokens where a feature, or the projection on a vector, is above (or below) a
    value: the conditions of CAST (Lee et al. 2024, 2409.05907)."""

    feature: int | None  # None where it is about a vector
    side: Literal["above", "below"]
    value: float  # of a vector in multiples of its length, in `max` of its greatest projection
    unit: Literal["latent", "max"] = "latent"
    sae: str | None = None  # None: the SAE of the intervention, else the stack's own
    vector: str | None = None

    def __post_init__(self) -> None:
        if (self.feature is None) == (self.vector is None):
            raise UserError("a condition is about a feature or a vector", hint=_CONDITIONS)
        FEATURE.check(self.feature, "the feature of a condition")
        REAL.check(self.value, "the value of a condition")
        if self.side not in ("above", "below") or self.unit not in ("latent", "max"):
            raise UserError(f"{self!r} is not a valid condition", hint=_CONDITIONS)

    @property
    def subject(self) -> str:
        """What it is about: `7`, `my-sae/7`, `vector:calm`."""
        if self.vector is not None:
            return f"vector:{self.vector}"
        return f"{self.sae}/{self.feature}" if self.sae else str(self.feature)

    def describe(self) -> str:
        """As `parse_condition` reads it."""
        sign = ">" if self.side == "above" else "<"
        return f"{self.subject}{sign}{self.value:g}{'max' if self.unit == 'max' else ''}"

    def as_json(self) -> dict[str, Any]:
        of: dict[str, Any] = {"feature": self.feature}
        if self.vector is not None:
            of = {"vector": self.vector}
        elif self.sae is not None:
            of["sae"] = self.sae
        return {**of, "side": self.side, "value": self.value, "unit": self.unit}

    @classmethod
    def from_json(cls, data: Any) -> "Condition | None":
        """Reads `as_json`, or None. Raises UserError, KeyError, TypeError, ValueError."""
        if data is None:
            return None
        if not isinstance(data, Mapping):
            raise UserError(f"{data!r} is not a valid condition", hint=_CONDITIONS)
        side, value, unit = data["side"], float(data["value"]), data.get("unit", "latent")
        if data.get("vector") is not None:
            return cls(None, side, value, unit, vector=str(data["vector"]))
        feature, sae = data["feature"], data.get("sae")
        if isinstance(feature, bool) or not isinstance(feature, int):
            raise UserError(f"{feature!r} is not a feature's number", hint=_CONDITIONS)
        return cls(feature, side, value, unit, None if sae is None else str(sae))


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
    """Reads `7>2`, `7<0.5`, `7>0.2max`, `my-sae/7>2`, `vector:calm<0`. Raises UserError."""
    match = _CONDITION.fullmatch(text.strip())
    if match is None:
        raise UserError(f"{text!r} is not a valid condition", hint=_CONDITIONS)
    vector, sae, number, sign, value, unit = match.groups()
    feature = None if vector else FEATURE.read(number, "feature")
    side = "above" if sign == ">" else "below"
    return Condition(feature, side, float(value), "max" if unit else "latent", sae, vector)
