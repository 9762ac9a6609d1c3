"""The bounds of numbers, by kind: one table for the command line, the forms and the configs.

Python accepts `nan`, `1e308` and integers of any length, which later overflow in C++ or turn every
result into NaN. A number outside its bounds is refused in one sentence.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from math import isfinite
from numbers import Integral
from typing import Any

from mi_crow.errors import UserError

_SHOWN = 40  # characters of a wrong number in its sentence
_THOUSANDS = re.compile(r"[+-]?[1-9]\d{0,2}(,\d{3})+(?![\d,]).*", re.DOTALL)


def without_commas(number: str) -> str:
    """What a person typed as a number without the commas between its thousands. Another comma
    stays, so that it is no number: who types 0,05 means neither 5 nor 0.

    >>> without_commas("12,000"), without_commas("0,05")
    ('12000', '0,05')
    """
    return number.replace(",", "") if _THOUSANDS.fullmatch(number) else number


@dataclass(frozen=True)
class Bounds:
    """The numbers from `least` to `most`; `above` excludes `least`, `whole` means integers."""

    least: float
    most: float
    whole: bool = False
    above: bool = False

    def read(self, text: str, what: str = "") -> Any:
        """The number in `text`, an int if `whole`; `_` may group its digits.

        Raises UserError, about `what` if given.
        """
        try:
            value = int(text) if self.whole else float(text)
        except ValueError as error:
            kind = "a whole number" if self.whole else "a number"
            raise UserError(f"{what} {_short(repr(text))} is not {kind}".lstrip()) from error
        if what:
            self.check(value, what)
        elif value != value:
            raise UserError(f"{text} is not a number")
        elif not self.holds(value):
            least = f"{'not above' if self.above else 'less than'} {_grouped(self.least)}"
            wrong = f"more than {_grouped(self.most)}" if value > self.most else least
            raise UserError(f"{_short(text)} is {wrong}")
        return value

    def check(self, value: float | None, what: str) -> None:
        """Raises UserError for a value out of bounds; None means not given."""
        if value is None:
            return
        if self.whole and (isinstance(value, bool) or not isinstance(value, Integral)):
            raise UserError(f"{what} must be a whole number, not {value!r}")
        if not self.holds(value):
            wanted = self._wanted(value)
            raise UserError(f"{what} must be {wanted}, not {_short(str(value))}")

    def _wanted(self, value: float) -> str:
        """What a value that is out of bounds should have been."""
        number = "" if self.whole else "a number of "
        if self.least < 0 and not isfinite(value):
            return "a finite number"
        if value > self.most and isfinite(value):
            return f"{number}at most {_grouped(self.most)}"
        if self.above:
            return f"{'' if self.whole else 'a number '}above {_grouped(self.least)}"
        return f"{number}at least {_grouped(self.least)}"

    def holds(self, value: float) -> bool:
        """Whether it lies within; NaN does not."""
        return (self.least < value if self.above else self.least <= value) and value <= self.most


@dataclass(frozen=True)
class Words:
    """The words that a setting may be."""

    known: tuple[str, ...]

    def check(self, value: str, what: str) -> None:
        """Raises UserError for another word."""
        if value not in self.known:
            raise UserError(f"{what} {value!r} is not known", hint=f"use {', '.join(self.known)}")


# What each field of a config is called in a sentence, and what it may be.
Limits = Mapping[str, tuple[str, Bounds | Words]]


def check_fields(config: Any) -> None:
    """Raises UserError for the first field that is outside the LIMITS of its config."""
    for name, (what, limit) in config.LIMITS.items():
        limit.check(getattr(config, name), what)


def _grouped(value: float) -> str:
    return f"{int(value):,}" if abs(value) < 1e15 and value == int(value) else f"{value:g}"


def _short(text: str) -> str:
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."


COUNT = Bounds(1, 10**12, whole=True)  # documents, tokens, steps
AMOUNT = Bounds(0, 10**12, whole=True)  # the same, or none
SIZE = Bounds(1, 2**24, whole=True)  # of what is in memory at once: rows, windows, contexts
PROCESSES = Bounds(1, 1024, whole=True)
LATENTS = Bounds(1, 2**26, whole=True)  # the widest published SAEs have 2^24
FEATURE = Bounds(0, 2**31 - 1, whole=True)  # features are 32-bit integers in an index
SEED = Bounds(0, 2**32 - 1, whole=True)  # what every generator accepts
SHARE = Bounds(0, 1)
TOP_P = Bounds(0, 1, above=True)
REAL = Bounds(-3.4e38, 3.4e38)  # what float32 holds
NOT_NEGATIVE = Bounds(0, 1e9)
FACTOR = Bounds(0, 1e9, above=True)
SCALE = Bounds(1e-9, 1e9)  # of an SAE's inputs; anything else is a mistake
EXPANSION = Bounds(0, 2**20, above=True)
TEMPERATURE = Bounds(0, 1e4)
