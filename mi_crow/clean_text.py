"""Text that files, databases and tokenizers accept: invalid Unicode is replaced on input.

A lone surrogate comes from `\\ud83d` in JSON, or from bytes of a command line or a file name that
are not UTF-8. Every place where text enters calls this once; nothing behind it has to.
"""

from collections.abc import Mapping
from typing import Any

from mi_crow.errors import UserError

REPLACEMENT = "\ufffd"


def clean_text(text: str) -> str:
    """`text` with surrogate pairs joined and each lone surrogate replaced by U+FFFD.

    >>> clean_text("half \\ud83d, whole \\ud83d\\ude00") == "half \\ufffd, whole \\U0001f600"
    True
    """
    if text.isascii():
        return text
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return text


def clean_values(value: Any) -> Any:
    """JSON data with all texts cleaned, keys too."""
    if isinstance(value, str):
        return clean_text(value)
    if isinstance(value, Mapping):
        return {clean_values(key): clean_values(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [clean_values(item) for item in value]
    return value


def check_name(name: str, what: str) -> str:
    """A file or folder name itself, which cannot be cleaned: it would name another file.

    Raises UserError when it is not Unicode or contains a NUL.
    """
    if "\0" in name:
        raise UserError(f"{what} {name!r} contains a NUL character", hint="no file has such a name")
    cleaned = clean_text(name)
    if cleaned != name:
        raise UserError(
            f"{what} {cleaned!r} has a name that is not UTF-8 text", hint="rename it first"
        )
    return name
