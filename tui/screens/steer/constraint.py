"""How far a steered text may leave what the plain model finds possible, as it is typed; pure."""

import re
from dataclasses import dataclass
from typing import Any

from mi_crow.bounds import FACTOR, TOP_P
from mi_crow.errors import UserError

HINT = "0.1 of the likeliest, 0.3 nats, or both"
_NATS = re.compile(r"(.+?)\s*nats?")


@dataclass(frozen=True)
class Constraint:
    """What `LanguageModel.generate` takes; None: no such limit."""

    plausible: float | None = None
    kl_budget: float | None = None

    def as_params(self) -> dict[str, Any]:
        """Those that are set, by the names of the session."""
        return {name: value for name, value in vars(self).items() if value is not None}

    def describe(self) -> str:
        """As `parse_constraint` reads it; '' for none."""
        parts = (
            f"{self.plausible:g}" if self.plausible is not None else "",
            f"{self.kl_budget:g} nats" if self.kl_budget is not None else "",
        )
        return ", ".join(part for part in parts if part)

    @property
    def words(self) -> str:
        """`plausible 0.05, KL 0.3 nats a token`; '' for none."""
        parts = (
            f"plausible {self.plausible:g}" if self.plausible is not None else "",
            f"KL {self.kl_budget:g} nats a token" if self.kl_budget is not None else "",
        )
        return ", ".join(filter(None, parts))


NO_CONSTRAINT = Constraint()


def parse_constraint(text: str) -> Constraint:
    """Reads ``, `0.1`, `0.3 nats`, or both with a comma. Raises UserError."""
    found: dict[str, float] = {}
    for part in filter(None, (part.strip() for part in text.split(","))):
        match = _NATS.fullmatch(part)
        name, bounds = ("kl_budget", FACTOR) if match else ("plausible", TOP_P)
        if name in found:
            raise UserError(f"{text!r} says the same twice", hint=HINT)
        found[name] = bounds.read(match[1] if match else part, "the constraint")
    return Constraint(**found)
