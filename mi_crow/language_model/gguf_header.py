"""The header of a GGUF file: what it is, and where its tensors are. Torch-free."""

import struct
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from mi_crow.errors import CorruptDataError

_MAGIC = b"GGUF"
_STRING, _ARRAY = 8, 9
# struct's letters for the types of single values, by their numbers in the format.
_PLAIN = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_LONGEST_TEXT = 1 << 24
_MOST_DIMENSIONS = 8
_ALIGNMENT, _MOST_ALIGNMENT = 32, 1 << 16
_MOST_VALUES = 1 << 24  # of an array; the vocabulary of a model has a few hundred thousand


def read_values(path: Path, endings: Collection[str]) -> dict[str, Any]:
    """The values whose keys end like one of `endings`; reading stops when there is one for each.

    Raises CorruptDataError for anything else than a GGUF file, OSError.
    """
    found: dict[str, Any] = {}
    missing = set(endings)
    with _header(path) as (file, _tensors, keys):
        for _ in range(keys):
            key, value = _entry(file)
            ending = next((one for one in missing if key.endswith(one)), None)
            if ending is not None:
                found[key] = value
                missing.discard(ending)
            if not missing:
                break
    return found


class GgufTensor(NamedTuple):
    """One tensor of a GGUF file."""

    name: str
    shape: tuple[int, ...]  # innermost first
    kind: int  # 0 is F32, 1 is F16
    offset: int  # from where the tensors begin


def read_tensors(path: Path) -> tuple[dict[str, Any], list[GgufTensor], int]:
    """All values, the tensors, and where in the file these begin.

    Raises CorruptDataError for anything else than a GGUF file, OSError.
    """
    tensors: list[GgufTensor] = []
    with _header(path) as (file, count, keys):
        values = dict(_entry(file) for _ in range(keys))
        for _ in range(count):
            name = _text(file)
            (dimensions,) = struct.unpack("<I", _exactly(file, 4))
            if dimensions > _MOST_DIMENSIONS:
                raise struct.error(f"{dimensions} dimensions")
            shape = struct.unpack(f"<{dimensions}Q", _exactly(file, 8 * dimensions))
            kind, offset = struct.unpack("<IQ", _exactly(file, 12))
            tensors.append(GgufTensor(name, shape, kind, offset))
        alignment = values.get("general.alignment", _ALIGNMENT)
        if not isinstance(alignment, int) or not 0 < alignment <= _MOST_ALIGNMENT:
            raise struct.error(f"alignment {alignment!r}")
        return values, tensors, file.tell() + -file.tell() % alignment


@contextmanager
def _header(path: Path) -> Iterator[tuple[BinaryIO, int, int]]:
    """The file at its first entry, and the numbers of its tensors and entries."""
    with path.open("rb") as file:
        try:
            if file.read(4) != _MAGIC:
                raise CorruptDataError(f"{path} is not a GGUF file")
            _version, tensors, entries = struct.unpack("<IQQ", _exactly(file, 20))
            yield file, tensors, entries
        except (struct.error, UnicodeDecodeError) as error:
            raise CorruptDataError(f"{path} has a damaged GGUF header") from error


def _entry(file: BinaryIO) -> tuple[str, Any]:
    key = _text(file)
    (kind,) = struct.unpack("<I", _exactly(file, 4))
    return key, _value(file, kind)


def _value(file: BinaryIO, kind: int) -> Any:
    """One value; of an array nothing but its place is taken."""
    if kind in _PLAIN:
        return struct.unpack(f"<{_PLAIN[kind]}", _exactly(file, struct.calcsize(_PLAIN[kind])))[0]
    if kind == _STRING:
        return _text(file)
    if kind != _ARRAY:
        raise struct.error(f"type {kind}")
    of, count = struct.unpack("<IQ", _exactly(file, 12))
    if count > _MOST_VALUES:
        raise struct.error(f"{count} values")
    if of in _PLAIN:
        file.seek(count * struct.calcsize(_PLAIN[of]), 1)
    else:
        for _ in range(count):
            _value(file, of)
    return None


def _text(file: BinaryIO) -> str:
    (length,) = struct.unpack("<Q", _exactly(file, 8))
    if length > _LONGEST_TEXT:
        raise struct.error(f"a text of {length} bytes")
    return _exactly(file, length).decode("utf-8", "replace")


def _exactly(file: BinaryIO, count: int) -> bytes:
    data = file.read(count)
    if len(data) != count:
        raise struct.error("the file ends")
    return data
