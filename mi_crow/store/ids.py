"""Names of runs, SAEs and jobs."""

import re
import time
from pathlib import Path

from mi_crow.errors import UserError

_PATTERN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_SHOWN = 80  # characters of a wrong id in its sentence


def validate_id(text: str, what: str) -> str:
    """`text` itself if it is a valid folder name; `what` ('run', 'SAE', 'job') is for the message.

    Raises UserError otherwise, paths included.
    """
    if not _PATTERN.fullmatch(text):
        shown = text if len(text) <= _SHOWN else f"{text[: _SHOWN - 1]}…"
        raise UserError(
            f"{what} id {shown!r} is not a valid name",
            hint="use 1 to 64 letters, digits, '.', '_' or '-', starting with a letter or digit",
        )
    return text


def timestamp_id(short: str) -> str:
    """`YYYYMMDD-HHMMSS-<short>` in local time; characters not allowed in an id become '-'."""
    slug = re.sub(r"[^A-Za-z0-9._-]+", "-", short).strip("-.")[:40] or "x"
    return f"{time.strftime('%Y%m%d-%H%M%S')}-{slug}"


def make_folder(parent: Path, name: str | None, short: str, what: str) -> Path:
    """Creates a folder in `parent` exclusively: named `name`, else by time and `short`.

    Raises UserError when `name` is taken or not a valid id.
    """
    parent.mkdir(parents=True, exist_ok=True)
    if name is not None:
        folder = parent / validate_id(name, what)
        try:
            folder.mkdir()
        except FileExistsError as error:
            raise UserError(
                f"{what} {name!r} exists already", hint="choose another --name or remove it"
            ) from error
        return folder
    base = timestamp_id(short)
    attempt = 0
    while True:
        folder = parent / (base if attempt == 0 else f"{base}-{attempt + 1}")
        try:
            folder.mkdir()
        except FileExistsError:
            attempt += 1
        else:
            return folder
