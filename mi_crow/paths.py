"""Paths as people type them."""

import os
from pathlib import Path

from mi_crow.errors import NotFoundError


def expanded(path: str | os.PathLike[str]) -> Path:
    """The path with the home folder for `~`; as it is where nobody has that name, so that what
    is read or written there is said to be missing (`Path.expanduser` raises RuntimeError)."""
    return Path(os.path.expanduser(path))


def check_folder_of(path: Path) -> None:
    """Raises NotFoundError where the folder that a new file or folder goes into does not exist:
    most often its name was mistyped."""
    folder = path.absolute().parent
    if not folder.is_dir():
        raise NotFoundError(f"folder {str(folder)!r} not found")
