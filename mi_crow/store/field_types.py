"""Checks that data read from a file has the types that its dataclass declares.

A JSON file may contain anything and a dataclass accepts anything. A wrong value would fail far from
the cause, so a reader checks its result before returning it.
"""

import types
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from functools import cache
from typing import Any, Union, get_args, get_origin, get_type_hints

from mi_crow.errors import CorruptDataError
from mi_crow.store.json_object import described, finite

_MOST_INTEGER = 2**63 - 1
LAST_MOMENT = 253_402_300_799.0  # the end of the year 9999, the last one that datetime supports


def check_types(found: Any, place: str) -> None:
    """Checks every field of the dataclass `found`, nested ones included, against its annotation.

    true is not a number, integers fit 64 bits, floats are finite (an integer will do). Raises
    CorruptDataError naming `place`, the field and its value.
    """
    for name, hint in _hints(type(found)).items():
        _check(hint, getattr(found, name), f"{place}: {name}")


def check_moment(seconds: float, place: str) -> None:
    """Raises CorruptDataError unless `seconds` is a time that can be displayed."""
    if not is_moment(seconds):
        raise CorruptDataError(f"{place} must be a time in unix seconds, not {seconds!r:.80}")


def is_moment(value: Any) -> bool:
    """Whether a JSON value is a time, in unix seconds."""
    number = finite(value)
    return number is not None and 0 <= number <= LAST_MOMENT


@cache
def _hints(kind: type) -> dict[str, Any]:
    hints = get_type_hints(kind)
    return {field.name: hints[field.name] for field in fields(kind)}


def _check(hint: Any, value: Any, place: str) -> None:
    origin, arguments = get_origin(hint), get_args(hint)
    if hint is Any:
        return
    if origin in (Union, types.UnionType):
        if value is None and type(None) in arguments:
            return
        _check(next(one for one in arguments if one is not type(None)), value, place)
    elif origin in (list, tuple):
        _require(isinstance(value, list | tuple), place, "a list", value)
        for number, item in enumerate(value, 1):
            _check(arguments[0], item, f"{place} {number}")
    elif origin in (dict, Mapping):
        _require(isinstance(value, dict), place, "an object", value)
        for key, item in value.items():
            _check(arguments[1], item, f"{place}, {key}")
    elif is_dataclass(hint):
        _require(isinstance(value, hint), place, "an object", value)  # type: ignore[arg-type]
        check_types(value, place)
    elif hint is float:
        _require(finite(value) is not None, place, "a finite number", value)
    elif hint is int:
        fits = type(value) is int and abs(value) <= _MOST_INTEGER
        _require(fits, place, "a whole number", value)
    elif hint in _NAMES:
        _require(type(value) is hint, place, _NAMES[hint], value)
    # Any other class was made by the reader, not by the file.


_NAMES: dict[Any, str] = {str: "a text", bool: "true or false", dict: "an object", list: "a list"}


def _require(condition: bool, place: str, wanted: str, value: Any) -> None:
    if not condition:
        raise CorruptDataError(f"{place} must be {wanted}, not {described(value)}")
