"""On which tokens an intervention acts, as text. Torch-free; `where` finds them in a pass.

all                    every token
prompt, generated      the tokens that were given, those that the model wrote
last 3                 the last 3 tokens of the prompt
window 10:20           the tokens 10 to 19 of the text, from 0, BOS included
tokens 12,345          tokens with one of these ids
role assistant         what this role says in a chat; generated tokens are the assistant's
"""

import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

from mi_crow.bounds import AMOUNT, COUNT, FEATURE
from mi_crow.errors import UserError

Kind = Literal["all", "prompt", "generated", "last", "window", "tokens", "role"]

POSITIONS = "all, prompt, generated, last 3, window 10:20, tokens 12,345 or role assistant"
GENERATED_ROLE = "assistant"
_ROLE = re.compile(r"\w[\w.-]{0,63}")


@dataclass(frozen=True)
class Positions:
    """Positions, read."""

    kind: Kind
    count: int = 0  # of last
    start: int = 0  # of a window
    end: int | None = None  # of a window, exclusive
    ids: tuple[int, ...] = ()
    role: str = ""

    @property
    def text(self) -> str:
        """As `read_positions` reads it."""
        if self.kind == "last":
            return f"last {self.count}"
        if self.kind == "window":
            return f"window {self.start}:{'' if self.end is None else self.end}"
        if self.kind == "tokens":
            return f"tokens {','.join(map(str, self.ids))}"
        return f"role {self.role}" if self.kind == "role" else self.kind

    def describe(self) -> str:
        """After a change: `on prompt tokens`, `on the last 3 tokens of the prompt`."""
        if self.kind == "last":
            many = "token" if self.count == 1 else f"{self.count} tokens"
            return f"on the last {many} of the prompt"
        if self.kind == "window" and self.end is None:
            return f"from token {self.start} on"
        if self.kind == "window":
            return f"on tokens {self.start} to {(self.end or 0) - 1}"
        if self.kind == "tokens":
            return f"on tokens of id {', '.join(map(str, self.ids))}"
        if self.kind == "role":
            return f"on what the {self.role} says"
        return "" if self.kind == "all" else f"on {self.kind} tokens"


@lru_cache(maxsize=512)
def read_positions(text: str) -> Positions:
    """Reads the forms above. Raises UserError."""
    word, _, rest = text.strip().partition(" ")
    rest = rest.strip()
    if word in ("all", "prompt", "generated") and not rest:
        return Positions("all" if word == "all" else "prompt" if word == "prompt" else "generated")
    if word == "last":
        return Positions("last", count=COUNT.read(rest or "1", "the number of last tokens"))
    if word == "window" and (match := re.fullmatch(r"(\d*)\s*:\s*(\d*)", rest, re.ASCII)):
        start = AMOUNT.read(match[1] or "0", "the start of a window")
        end = COUNT.read(match[2], "the end of a window") if match[2] else None
        if end is not None and end <= start:
            raise UserError(f"window {start}:{end} has no tokens", hint="write it as 10:20")
        return Positions("window", start=start, end=end)
    if word == "tokens" and rest:
        ids = tuple(FEATURE.read(one, "token id") for one in re.split(r"[,\s]+", rest))
        return Positions("tokens", ids=tuple(sorted(set(ids))))
    if word == "role" and _ROLE.fullmatch(rest):
        return Positions("role", role=rest)
    raise UserError(f"scope {text!r} is not known", hint=f"use {POSITIONS}")
