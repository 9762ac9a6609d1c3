"""JSON files that much hangs on: a copy beside each, for when a power cut tears the file itself.

The file is what counts. The copy is written after it, so it says the same or what was said before.
"""

from pathlib import Path
from typing import Any

from mi_crow.errors import CorruptDataError, MiCrowError
from mi_crow.store.atomic import write_json
from mi_crow.store.json_file import read_json


def write_json_with_copy(path: Path, value: Any) -> None:
    """Writes `value` to `path` and then to its copy, each whole or not at all."""
    write_json(path, value)
    write_json(copy_path(path), value)


def read_json_with_copy(path: Path) -> Any:
    """The JSON value in `path`; that in its copy when the file is damaged.

    Raises as `read_json`, about the file itself, when neither can be read.
    """
    try:
        return read_json(path)
    except CorruptDataError:
        try:
            return read_json(copy_path(path))
        except (MiCrowError, OSError):
            pass
        raise


def copy_path(path: Path) -> Path:
    """Where the copy of a kept file stands."""
    return path.with_name(f".{path.name}.copy")
