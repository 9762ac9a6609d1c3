"""Values out of a JSON object by their types: checked, never coerced.

`int(cfg["k"])` reads 1.5 as 1 and `bool(cfg["skip"])` reads "false" as true. These report what the
file contains and what is expected instead.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, TypeVar, cast, overload

from mi_crow.errors import CorruptDataError, MiCrowError

Default = TypeVar("Default")


class _Required:
    """The default of a required value."""


_REQUIRED = _Required()
_MOST_EXACT = 2.0**53  # up to here a float holds every whole number
_MOST_SHOWN = 60  # characters of a wrong value in a message


@dataclass(frozen=True)
class JsonObject:
    """An object in a file, and how to name it in messages.

    Each of its readers takes a key and a default. Without a default the key is required; with one,
    a missing key and null both give the default. They raise `error` for a value of another type:
    true is not a number, 1.5 not a whole one (2.0 is), NaN and infinities are not finite.
    """

    values: Mapping[str, Any]
    place: str  # such as a file's path
    error: type[MiCrowError] = CorruptDataError

    @classmethod
    def of(
        cls, value: Any, place: str, error: type[MiCrowError] = CorruptDataError
    ) -> "JsonObject":
        """`value`, which must be an object."""
        if not isinstance(value, dict):
            raise error(f"{place} is not a JSON object but {described(value)}")
        return cls(value, place, error)

    def __contains__(self, key: str) -> bool:
        """Whether the key is there and not null."""
        return self.values.get(key) is not None

    def __iter__(self) -> Iterator[str]:
        return iter(self.values)

    @overload
    def text(self, key: str) -> str: ...
    @overload
    def text(self, key: str, default: Default) -> str | Default: ...
    def text(self, key: str, default: Any = _REQUIRED) -> Any:
        """A string."""
        return self._typed(key, default, (str,), "a text")

    @overload
    def flag(self, key: str) -> bool: ...
    @overload
    def flag(self, key: str, default: Default) -> bool | Default: ...
    def flag(self, key: str, default: Any = _REQUIRED) -> Any:
        """true or false."""
        return self._typed(key, default, (bool,), "true or false")

    @overload
    def integer(self, key: str, *, least: int | None = None, most: int | None = None) -> int: ...
    @overload
    def integer(
        self, key: str, default: Default, *, least: int | None = None, most: int | None = None
    ) -> int | Default: ...
    def integer(
        self,
        key: str,
        default: Any = _REQUIRED,
        *,
        least: int | None = None,
        most: int | None = None,
    ) -> Any:
        """A whole number from `least` to `most`; 4.0, as some tools write it, is 4."""
        value = self._typed(key, default, (int, float), "a whole number")
        if self._absent(key, default):
            return value
        found = whole(value)
        if found is None:
            raise self.wrong(key, "a whole number")
        return self._bounded(key, found, least, most)

    @overload
    def number(
        self, key: str, *, least: float | None = None, most: float | None = None
    ) -> float: ...
    @overload
    def number(
        self, key: str, default: Default, *, least: float | None = None, most: float | None = None
    ) -> float | Default: ...
    def number(
        self,
        key: str,
        default: Any = _REQUIRED,
        *,
        least: float | None = None,
        most: float | None = None,
    ) -> Any:
        """A finite number from `least` to `most`, as a float."""
        value = self._typed(key, default, (int, float), "a number")
        if self._absent(key, default):
            return value
        found = finite(value)
        if found is None:
            raise self.wrong(key, "a finite number")
        return self._bounded(key, found, least, most)

    def object(self, key: str, default: Mapping[str, Any] | _Required = _REQUIRED) -> "JsonObject":
        """An object within this one."""
        value = self._typed(key, default, (dict,), "an object")
        return JsonObject(value, f"{self.place}, {key}", self.error)

    @overload
    def array(self, key: str) -> list[Any]: ...
    @overload
    def array(self, key: str, default: Default) -> list[Any] | Default: ...
    def array(self, key: str, default: Any = _REQUIRED) -> Any:
        """A list of anything."""
        return self._typed(key, default, (list,), "a list")

    def texts(self, key: str, default: Sequence[str] | _Required = _REQUIRED) -> tuple[str, ...]:
        """A list of strings."""
        return self._all(key, default, str, "a list of texts")

    def integers(self, key: str, default: Sequence[int] | _Required = _REQUIRED) -> tuple[int, ...]:
        """A list of whole numbers."""
        return self._all(key, default, int, "a list of whole numbers")

    def objects(
        self, key: str, default: Sequence[Any] | _Required = _REQUIRED
    ) -> "list[JsonObject]":
        """A list of objects."""
        values = self._all(key, default, dict, "a list of objects")
        return [
            JsonObject(value, f"{self.place}, {key} {number}", self.error)
            for number, value in enumerate(values, 1)
        ]

    def wrong(self, key: str, wanted: str) -> MiCrowError:
        """The error that says what the key contains and what it must be."""
        return self.error(
            f"{self.place}: {key} must be {wanted}, not {described(self.values.get(key))}"
        )

    def _typed(self, key: str, default: Any, kinds: tuple[type, ...], wanted: str) -> Any:
        if self._absent(key, default):
            return default
        if key not in self.values:
            raise self.error(f"{self.place} does not say {key}")
        if type(self.values[key]) not in kinds:  # isinstance would take true for a number
            raise self.wrong(key, wanted)
        return self.values[key]

    def _absent(self, key: str, default: Any) -> bool:
        return default is not _REQUIRED and self.values.get(key) is None

    def _bounded(self, key: str, value: Any, least: float | None, most: float | None) -> Any:
        if least is not None and value < least:
            raise self.wrong(key, f"at least {least}")
        if most is not None and value > most:
            raise self.wrong(key, f"at most {most}")
        return value

    def _all(self, key: str, default: Any, kind: type, wanted: str) -> tuple[Any, ...]:
        values = self._typed(key, default, (list,), wanted)
        if any(type(one) is not kind for one in values):
            raise self.wrong(key, wanted)
        return tuple(values)


class JsonRecord:
    """A dataclass that is an object for programs: its fields, those of dataclasses in it too."""

    def as_json(self) -> dict[str, Any]:
        return asdict(cast(Any, self))


def finite(value: Any) -> float | None:
    """A JSON value as a float when it is a finite number, else None."""
    if type(value) is not float and type(value) is not int:
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if math.isfinite(number) else None


def all_finite(value: Any) -> Any:
    """A value for JSON, in which what is not finite is null."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {str(key): all_finite(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [all_finite(one) for one in value]
    return value


def whole(value: Any) -> int | None:
    """A JSON value as an int when it is a whole number, else None."""
    if type(value) is float and value.is_integer() and abs(value) <= _MOST_EXACT:
        return int(value)
    return value if type(value) is int else None


def described(value: Any) -> str:
    """A wrong value in few words, for a message."""
    if isinstance(value, dict):
        return "an object"
    if isinstance(value, list):
        return "a list"
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    try:
        shown = repr(value)
    except ValueError:  # an integer of more digits than Python prints
        return "a number of too many digits"
    return shown if len(shown) <= _MOST_SHOWN else f"{shown[:_MOST_SHOWN]}..."
