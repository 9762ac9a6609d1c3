"""A path as people type it, `~` for the home folder, and what is wrong with it."""

import os
from collections.abc import Sequence
from pathlib import Path

from mi_crow.errors import UserError


def typed_path(text: str) -> Path:
    """The path that `text` names. Raises UserError where it cannot be a path."""
    path = Path(text)
    try:
        path = path.expanduser()
        os.lstat(path)
    except RuntimeError as error:  # ~somebody
        raise UserError(f"{text.split('/')[0]!r} is not a user's home folder") from error
    except FileNotFoundError:
        return path  # may be written
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "it contains a NUL character"
        raise UserError(f"{text!r:.80} cannot be a file: {reason}") from error
    return path


def either(endings: Sequence[str]) -> str:
    """The endings in words; of two for one kind of file the longer.

    >>> either([".html", ".htm", ".json"])
    '.html or .json'
    """
    *first, last = (one for one in endings if not any(f"{one}l" == other for other in endings))
    return f"{', '.join(first)} or {last}" if first else last


def wrong_target(endings: tuple[str, ...], text: str) -> str:
    """Why no file with one of the `endings` can be written where `text` says; empty when one can,
    and for no text. A folder that is not there is not made: most often its name was mistyped."""
    try:
        path = typed_path(text).absolute()
    except UserError as error:
        return error.sentence
    folder = path.parent
    if not text:
        return ""
    if path.is_dir():
        return f"{str(path)!r} is a folder; name a file in it"
    if not folder.is_dir():
        return f"the folder {str(folder)!r} does not exist; name one that does, or make it first"
    if not path.name.lower().endswith(endings):
        return f"{path.name!r} does not end in {either(endings)}"
    if not os.access(path if path.exists() else folder, os.W_OK):
        return f"{str(path)!r} cannot be written (no permission); name another place"
    return ""


def wrong_source(text: str) -> str:
    """Why nothing can be read where `text` says; empty when something is there, and for no text."""
    try:
        path = typed_path(text)
    except UserError as error:
        return error.sentence
    return f"file {str(path)!r} not found" if text and not path.exists() else ""
