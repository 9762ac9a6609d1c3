"""Important JSON files with a backup copy each, in case a power cut damages the file itself.

The file counts. The copy is written after it, so it has the same or the previous content.
"""

from pathlib import Path
from typing import Any

from mi_crow.errors import CorruptDataError, MiCrowError
from mi_crow.store.atomic import write_json
from mi_crow.store.json_file import read_json


def write_json_with_copy(path: Path, value: Any) -> None:
    """Writes `value` to `path` and then to its copy, each atomically."""
    write_json(path, value)
    write_json(copy_path(path), value)


def read_json_with_copy(path: Path) -> Any:
    """The JSON value in `path`, or in its copy when the file is damaged.

    Raises like `read_json`, about the file itself, when neither can be read.
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
    """The path of the backup copy."""
    return path.with_name(f".{path.name}.copy")
