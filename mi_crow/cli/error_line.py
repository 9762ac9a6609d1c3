"""Reporting an error: one line on stderr and an exit code."""

import sys
import traceback

from mi_crow.causes import explained
from mi_crow.errors import MiCrowError
from mi_crow.visible import visible, visible_lines

EXIT_INTERRUPTED = 130


def report_error(error: BaseException, *, as_json: bool, debug: bool) -> int:
    """Reports an error in one line, as an object with `as_json`, after its traceback with `debug`.
    Gives the exit code."""
    message, hint, exit_code = _described(error)
    if debug:
        sys.stderr.write(visible_lines("".join(traceback.format_exception(error))))
    if as_json:
        from mi_crow.cli.formatting import as_json as in_json
        from mi_crow.cli.formatting import encodable

        line = encodable(in_json({"error": message, "hint": hint}), sys.stderr.encoding)
    else:
        line = visible(f"{message}; {hint}" if hint else message)
    sys.stderr.write(f"{line}\n")
    return exit_code


def _described(error: BaseException) -> tuple[str, str, int]:
    """Message, hint and exit code: 2 for user errors, 1 or 130 otherwise."""
    error = explained(error)
    if isinstance(error, MiCrowError):
        return str(error), error.hint, error.exit_code
    if isinstance(error, KeyboardInterrupt):
        return "interrupted", "", EXIT_INTERRUPTED
    if isinstance(error, OSError):
        place = f"{error.filename}: " if error.filename else ""
        return f"{place}{error.strerror or error}", "", 1
    hint = "this is a bug in mi-crow; --debug shows the traceback"
    return f"{type(error).__name__}: {error}", hint, 1
