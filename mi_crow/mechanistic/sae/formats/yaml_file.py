"""Reading a YAML file of plain values, as some tools write beside their weights."""

from pathlib import Path
from typing import Any

import yaml

from mi_crow.errors import CorruptDataError, NotFoundError
from mi_crow.store.json_object import JsonObject
from mi_crow.store.plain_file import read_plain

_MOST_BYTES = 1 << 20


def read_yaml(path: Path) -> JsonObject:
    """The mapping in `path`. No tag makes an object other than plain values.

    Raises NotFoundError for a missing file, CorruptDataError for any other file.
    """
    try:
        with read_plain(path) as file:
            text = file.read(_MOST_BYTES + 1)
    except FileNotFoundError as error:
        raise NotFoundError(f"no file {path}") from error
    if len(text) > _MOST_BYTES:
        raise CorruptDataError(f"{path} is too large for a configuration")
    try:
        found: Any = yaml.safe_load(text)
    except (yaml.YAMLError, RecursionError, ValueError, OverflowError) as error:
        raise CorruptDataError(f"{path} is not a YAML file") from error
    if not isinstance(found, dict) or not all(isinstance(key, str) for key in found):
        raise CorruptDataError(f"{path} is not a YAML mapping of names")
    return JsonObject(found, str(path))
