"""The one reader of JSON from outside: files, lines of files, pipes.

A file may be damaged, hostile or from another tool. It is either read or refused in one sentence:
no recursion error, no hang, no number that Python cannot compute with later.
"""

import json
import re
import stat
from pathlib import Path
from typing import Any

from mi_crow.clean_text import clean_values
from mi_crow.errors import CorruptDataError, MiCrowError, NotFoundError
from mi_crow.store.json_object import JsonObject

MOST_BYTES = 256 << 20  # of a file that is read whole
MOST_DEPTH = 100  # far below the limit of Python's recursion, as in asdict
_MOST_INTEGER = 10**300  # fits a float, so that no arithmetic overflows
_BOM = b"\xef\xbb\xbf"
_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")


def read_json(path: Path, *, unique_keys: bool = False) -> Any:
    """The JSON value in the file `path`; `unique_keys` as in `parse_json`.

    NaN and infinities are accepted, as Python writes them; `JsonObject` checks for numbers.
    Raises NotFoundError when there is no such file, CorruptDataError when it is not JSON, too deep
    or too large.
    """
    try:
        found = path.stat()
        if not stat.S_ISREG(found.st_mode):  # a pipe would block forever
            raise CorruptDataError(f"{path} is not a file")
        if found.st_size > MOST_BYTES:
            raise CorruptDataError(
                f"{path} is too large to be read as JSON "
                f"({found.st_size >> 20:,} MiB, at most {MOST_BYTES >> 20})"
            )
        data = path.read_bytes()
    except FileNotFoundError as error:
        raise NotFoundError(f"no file {path}") from error
    return parse_json(data, str(path), unique_keys=unique_keys)


def read_object(path: Path, *, unique_keys: bool = False) -> JsonObject:
    """The JSON object in the file `path`, named by it. Raises what `read_json` does, and
    CorruptDataError for a value of another kind."""
    return JsonObject.of(read_json(path, unique_keys=unique_keys), str(path))


def parse_json(
    data: bytes | str,
    what: str,
    *,
    error: type[MiCrowError] = CorruptDataError,
    unique_keys: bool = False,
    long_integers: bool = False,
) -> Any:
    """The JSON value that is all of `data`; bytes are UTF-8. `what` names it in messages.

    Lone surrogates, which cannot be written, become replacement characters. `unique_keys` refuses
    an object with a repeated key, of which Python would use the last. `long_integers` accepts
    integers beyond the range of a float. Raises `error` in one sentence.
    """
    try:
        text = data if isinstance(data, str) else data.removeprefix(_BOM).decode("utf-8")
        value = json.loads(text, object_pairs_hook=_unique if unique_keys else None)
        _check(value, 0 if long_integers else _MOST_INTEGER)
        return clean_values(value) if _SURROGATE.search(text) else value
    except json.JSONDecodeError as fault:
        line = f"line {fault.lineno}, " if "\n" in fault.doc.strip() else ""
        where = f"{line}column {fault.colno}: {fault.msg}"
        raise error(f"{what} is not valid JSON ({where})") from fault
    except UnicodeDecodeError as fault:
        raise error(f"{what} is not valid JSON (byte {fault.start} is not UTF-8)") from fault
    except RecursionError:
        raise error(f"{what} is not valid JSON ({_TOO_DEEP})") from None
    except _Oddity as fault:
        raise error(f"{what} is not valid JSON ({fault})") from fault
    except ValueError as fault:  # the only other one of Python's reader
        raise error(f"{what} is not valid JSON ({_TOO_LONG})") from fault


_TOO_DEEP = f"nested more than {MOST_DEPTH} deep"
_TOO_LONG = "an integer with too many digits"


class _Oddity(ValueError):
    """JSON that Python accepts and we do not."""


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        names = [key for key, _ in pairs]
        twice = next(key for key in names if names.count(key) > 1)
        raise _Oddity(f"{twice[:80]!r} occurs twice in one object")
    return value


def _check(value: Any, most: int) -> None:
    """Raises _Oddity for a value that is too deep or an integer beyond `most` (0: no limit). Works
    level by level, in a quarter of the parsing time."""
    level: list[Any] = [[value]]
    for _ in range(MOST_DEPTH + 1):
        below: list[Any] = []
        for container in level:
            for one in container.values() if type(container) is dict else container:
                kind = type(one)
                if kind is dict or kind is list:
                    below.append(one)
                elif kind is int and most and not -most <= one <= most:
                    raise _Oddity(_TOO_LONG)
        if not below:
            return
        level = below
    raise _Oddity(_TOO_DEEP)
