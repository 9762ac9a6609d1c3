"""What client and session say to each other: one JSON object a line. Torch-free.

Requests: {"id", "op", ...parameters}; the op `interrupt` names another request in `target` (all
of them without one) and gets no answer. Events: {"id", "event", ...}, where `result` and `error`
close a request. Before any request the session says {"event": "hello", "pid"}.
"""

import json
from typing import Any

from mi_crow.errors import MiCrowError

CLOSING = ("result", "error")


class SessionDied(MiCrowError):
    """The model session's process ended; the next request starts another one."""


def encode(message: dict[str, Any]) -> bytes:
    """One line."""
    return json.dumps(message, ensure_ascii=True, separators=(",", ":")).encode() + b"\n"


def decode(line: bytes) -> dict[str, Any] | None:
    """The message in a line; None for a line that is none."""
    try:
        message = json.loads(line)
    except ValueError:
        return None
    return message if isinstance(message, dict) else None
