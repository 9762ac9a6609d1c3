"""Paths as people type them."""

import os
from pathlib import Path


def expanded(path: str | os.PathLike[str]) -> Path:
    """The path with the home folder for `~`; as it is where nobody has that name, so that what
    is read or written there is said to be missing (`Path.expanduser` raises RuntimeError)."""
    return Path(os.path.expanduser(path))
