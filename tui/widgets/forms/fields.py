"""The fields of a form: what each asks for, what an empty one stands for, and what a text means."""

from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from mi_crow.bounds import Bounds, without_commas
from mi_crow.errors import UserError

Values = Mapping[str, Any]
"""What was entered, by the names of the fields: strings, and other values where a field says so."""
Texts = Mapping[str, str]
"""What is in the fields, by their names."""

YES_OR_NO = ("yes", "no")
_MULTIPLES = {"k": 10**3, "M": 10**6, "G": 10**9}


class WrongValueError(UserError):
    """What is wrong with one field, by its name."""

    def __init__(self, name: str, message: str, *, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.name = name


class WrongValuesError(UserError):
    """What is wrong with several fields: a sentence each, by their names."""

    def __init__(self, troubles: Mapping[str, str]) -> None:
        super().__init__("; ".join(troubles.values()))
        self.troubles = dict(troubles)


@dataclass(frozen=True)
class Default:
    """What an empty field stands for, and where that comes from."""

    text: str = ""
    source: str = ""

    def __str__(self) -> str:
        return "  ·  ".join(part for part in (self.text, self.source) if part)


@dataclass(frozen=True)
class Candidate:
    """A text that a field could have, and what to know about it."""

    text: str
    note: str = ""
    words: str = ""  # what else it is found by


@dataclass(frozen=True)
class FormField:
    """One field. A form shows those of a `section` when it is opened; those of none at once."""

    name: str  # of a job's parameter: its path, as in training.batch_size
    label: str
    text: str = ""  # what is in it at first
    hint: str = ""  # shown below the form while the field has the focus
    choices: tuple[str, ...] = ()
    listed: tuple[Candidate, ...] = ()  # before the choices
    bounds: Bounds | None = None  # of a number; None: a text
    required: bool = False
    missing: str = ""  # what is said of an empty required one, where its label makes no sentence
    empty: Any = ""  # the value of an empty field without a default
    default: Default = Default()
    section: str = ""
    flag: str = ""  # what the command line calls it
    several: bool = False  # values with commas between them
    closed: bool = False  # nothing but the choices is right
    switch: bool = False  # yes or no
    lines: bool = False  # what is pasted may have several

    def value_of(self, text: str, default: Default | None = None) -> Any:
        """The value that `text` stands for; without a text, that of the `default`.

        Raises WrongValueError.
        """
        text = text.strip() or (default or self.default).text.strip()
        if not text:
            if self.required:
                raise WrongValueError(self.name, self.missing or f"no {self.label} given")
            return () if self.several else self.empty
        if not self.several:
            return self._one(text)
        return tuple(self._one(part.strip()) for part in text.split(",") if part.strip())

    def _one(self, text: str) -> Any:
        choices = YES_OR_NO if self.switch else self.choices
        if (self.closed or self.switch) and text not in choices:
            wanted = ", ".join(choices[:-1]) + f" or {choices[-1]}"
            raise WrongValueError(self.name, f"{self.label} must be {wanted}, not {text[:40]!r}")
        if self.switch:
            return text == "yes"
        if self.bounds is None:
            return text
        return self._number(text, self.bounds)

    def _number(self, text: str, bounds: Bounds) -> Any:
        """A number: 2,000, 2_000, 2k and 1e-3 are understood."""
        plain = without_commas(text.replace("_", ""))
        factor = _MULTIPLES.get(plain[-1:], 1)
        try:
            value = float(plain[:-1] if factor > 1 else plain) * factor
            if bounds.whole:
                value = int(plain) if plain.lstrip("+-").isdigit() else _whole(value)
        except (ValueError, OverflowError) as error:
            wanted = "a whole number" if bounds.whole else "a number"
            said = f"{self.label} must be {wanted}, not {text[:40]!r}"
            raise WrongValueError(self.name, said) from error
        try:
            bounds.check(value, self.label)
        except UserError as error:
            raise WrongValueError(self.name, str(error), hint=error.hint) from error
        return value

    @property
    def candidates(self) -> tuple[Candidate, ...]:
        choices = YES_OR_NO if self.switch else self.choices
        return (*self.listed, *(Candidate(text) for text in choices))


def _whole(value: float) -> int:
    if value != int(value):
        raise ValueError(value)
    return int(value)


@dataclass(frozen=True)
class Advice:
    """What a form says about its texts."""

    defaults: Mapping[str, Default] = field(default_factory=dict)  # where they are not the field's
    candidates: Mapping[str, tuple[Candidate, ...]] = field(default_factory=dict)
    # Why nothing can start: a sentence for each wrong field, by its name, in their order; without
    # a name, of all of them.
    troubles: Mapping[str, str] = field(default_factory=dict)
    lines: tuple[str, ...] = ()  # what to expect: time, disk, memory
    command: str = ""  # the command line that does the same


Study = Callable[[Texts], Advice]
"""Looks at the texts of a form, in a thread; reads files, writes nothing."""


def read_values(
    fields: Sequence[FormField], texts: Texts, defaults: Mapping[str, Default] | None = None
) -> Values:
    """The values of all fields. Raises WrongValueError for the first one that is wrong."""
    found = defaults or {}
    return {one.name: one.value_of(texts[one.name], found.get(one.name)) for one in fields}


def wrong_values(
    fields: Sequence[FormField], texts: Texts, defaults: Mapping[str, Default] | None = None
) -> dict[str, str]:
    """What is wrong with each field for itself, by its name."""
    wrong = {}
    for one in fields:
        try:
            read_values((one,), texts, defaults)
        except WrongValueError as error:
            wrong[error.name] = error.sentence
    return wrong


def troubles_in(error: Exception, sentence: str) -> dict[str, str]:
    """What an error says of each field; its `sentence`, where it is of none or of one."""
    if isinstance(error, WrongValuesError):
        return error.troubles
    return {error.name if isinstance(error, WrongValueError) else "": sentence}


def without_untouched(
    troubles: Mapping[str, str], fields: Sequence[FormField], texts: Texts, filled: Container[str]
) -> dict[str, str]:
    """The troubles but for those of required fields that are empty and were never `filled`: what
    nobody has come to yet is not wrong."""
    empty = {one.name for one in fields if one.required and not texts[one.name].strip()}
    return {name: said for name, said in troubles.items() if name not in empty or name in filled}


def filled_in(fields: Sequence[FormField], texts: Texts) -> tuple[FormField, ...]:
    """The fields with these texts in them."""
    return tuple(replace(one, text=texts.get(one.name, one.text)) for one in fields)
