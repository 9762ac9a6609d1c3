"""What was saved as files: JSON for programs, Markdown for people. Torch-free."""

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from mi_crow.errors import UserError
from mi_crow.paths import check_folder_of
from mi_crow.store.atomic import write_bytes
from mi_crow.visible import visible


def write_saved(path: Path, found: Sequence[Any], markdown: Callable[[], str]) -> Path:
    """Writes dataclasses to a .json file, or `markdown` of them to a .md file, whole or not at all;
    returns its full path.

    Raises UserError for another kind of file, NotFoundError for one in a folder that does not
    exist, and OSError.
    """
    check_folder_of(path)
    if path.suffix == ".json":
        text = json.dumps([asdict(one) for one in found], indent=2, ensure_ascii=False) + "\n"
    elif path.suffix in (".md", ".markdown"):
        text = markdown()
    else:
        raise UserError(f"{path.name!r} is not a .json or .md file", hint="end its name with one")
    write_bytes(path, text.encode("utf-8", "replace"))
    return path.resolve()


def quoted(text: str) -> str:
    """As an indented block, in which Markdown means nothing."""
    return "\n".join(f"    {visible(line)}" for line in text.split("\n"))
