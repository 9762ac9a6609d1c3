"""The types that viewers rely on in events and statuses."""

from collections.abc import Callable
from typing import Any

from mi_crow.store.field_types import is_moment
from mi_crow.store.json_object import finite

STATUSES = frozenset({"queued", "running", "finished", "failed", "cancelled", "lost"})
_MOST = 2**63 - 1


def _text(value: Any) -> bool:
    return isinstance(value, str)


def _count(value: Any) -> bool:
    return type(value) is int and 0 <= value <= _MOST


def _number(value: Any) -> bool:
    return finite(value) is not None and abs(value) <= _MOST


def _readings(value: Any) -> bool:
    """Names and numbers; NaN and infinities occur when a training diverges."""
    return isinstance(value, dict) and all(type(one) in (int, float) for one in value.values())


def _or_null(check: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: value is None or check(value)


_CHECKS: dict[str, Callable[[Any], bool]] = {
    "t": is_moment,
    "event": _text,
    "status": lambda value: isinstance(value, str) and value in STATUSES,
    "done": _count,
    "total": _count,
    "unit": _text,
    "stage": _text,
    "rate": _or_null(_number),
    "eta_s": _or_null(lambda value: _number(value) and value >= 0),
    "metrics": _readings,
    "message": _text,
    "error": _or_null(_text),
    "hint": _or_null(_text),
    "traceback": _or_null(_text),
    "exit_code": _or_null(_count),
    "result": _or_null(lambda value: isinstance(value, dict)),
    "resumable": lambda value: isinstance(value, bool),
    "waiting_for": _text,
    "output": _or_null(_text),
    "started": _or_null(is_moment),
    "ended": _or_null(is_moment),
    "heartbeat": _or_null(is_moment),
    "attempt": _count,
}


def has_valid_types(record: dict[str, Any]) -> bool:
    """True when every known field has its type; unknown ones may be anything."""
    return all(key not in record or check(record[key]) for key, check in _CHECKS.items())
