"""What is said on the socket of an open app: lines of JSON.

The app greets whoever connects. It gets one request, {do: NAME, ...}, and gives one answer,
{result: {...}} or {error, hint, code}. Then it closes the connection.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Final

from mi_crow.errors import CorruptDataError, MiCrowError, UserError
from mi_crow.store.json_file import parse_json
from mi_crow.store.json_object import JsonObject

MOST_REQUEST: Final = 64 << 10  # bytes, the end of the line included
MOST_ANSWER: Final = 16 << 20
QUIT: Final = "quit"  # the connection then ends with the app


@dataclass(frozen=True)
class Greeting:
    """Which app this is."""

    pid: int
    version: str
    workspace: str
    started: float  # unix seconds


def line_of(value: Mapping[str, Any]) -> bytes:
    """`value` as one line; ASCII, so that any text survives."""
    return json.dumps(value, allow_nan=False).encode("ascii") + b"\n"


def greeting_line(greeting: Greeting) -> bytes:
    return line_of(asdict(greeting))


def read_greeting(line: bytes) -> Greeting:
    """Raises CorruptDataError for what is none."""
    said = JsonObject.of(parse_json(line, "the greeting of the app"), "the greeting of the app")
    return Greeting(
        said.integer("pid", least=1),
        said.text("version"),
        said.text("workspace"),
        said.number("started"),
    )


def read_request(line: bytes) -> JsonObject:
    """What is asked for. Raises UserError for what is not a JSON object on a line of its own."""
    if not line.endswith(b"\n"):
        raise UserError("the request is cut off", hint="a request is one line of JSON")
    value = parse_json(line, "the request", error=UserError, unique_keys=True)
    return JsonObject.of(value, "the request", UserError)


def error_line(error: MiCrowError) -> bytes:
    return line_of({"error": str(error), "hint": error.hint, "code": error.exit_code})


def read_answer(line: bytes) -> dict[str, Any]:
    """The result. Raises UserError or MiCrowError when the app says so, CorruptDataError for what
    is not an answer."""
    place = "the answer of the app"
    said = JsonObject.of(parse_json(line, place, long_integers=True), place)
    if "error" in said:
        kind = UserError if said.integer("code", 1) == UserError.exit_code else MiCrowError
        raise kind(said.text("error"), hint=said.text("hint", ""))
    if not isinstance(result := said.values.get("result"), dict):
        raise CorruptDataError(f"{place} has no result")
    return result
