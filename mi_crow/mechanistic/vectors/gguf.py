"""GGUF control vectors, as llama.cpp and repeng read and write them.

The architecture is `controlvector`; the tensor `direction.N` [d] is added to the residual stream
after block N, which is `resid_post.N` here. llama.cpp knows no `direction.0`.
"""

import re
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from mi_crow.errors import CorruptDataError, UserError
from mi_crow.language_model.gguf_header import GgufTensor, read_tensors
from mi_crow.store.atomic import whole_file

if TYPE_CHECKING:
    from torch import Tensor

ARCHITECTURE = "controlvector"
_NAME = re.compile(r"direction\.(\d{1,6})")
_POINT = re.compile(r"resid_post\.(\d+)")
_VERSION, _ALIGNMENT = 3, 32
_STRING, _INTEGER, _F32 = 8, 5, 0
_KINDS = {0: np.dtype("<f4"), 1: np.dtype("<f2")}
_MOST_WIDTH = 1 << 20


def read_gguf(path: Path) -> "tuple[dict[str, Tensor], dict[str, str]]":
    """The directions by hook point, and what the file says of its model.

    Raises UserError for a GGUF file that is no control vector, CorruptDataError for a damaged one,
    OSError.
    """
    import torch

    values, tensors, start = read_tensors(path)
    if values.get("general.architecture") != ARCHITECTURE:
        raise UserError(
            f"{str(path)!r} is a GGUF file of {values.get('general.architecture') or 'something'!r}"
            ", not a control vector",
            hint="a control vector is what repeng and llama-cvector-generator write",
        )
    directions = {}
    with path.open("rb") as file:
        for one in tensors:
            match = _NAME.fullmatch(one.name)
            if match is None:
                raise CorruptDataError(f"{path} holds a tensor {one.name!r}, not only directions")
            file.seek(start + one.offset)
            data = file.read(_bytes_of(path, one))
            if len(data) != _bytes_of(path, one):
                raise CorruptDataError(f"{path} ends within {one.name}")
            row = np.frombuffer(data, _KINDS[one.kind]).astype(np.float32)
            directions[f"resid_post.{int(match[1])}"] = torch.from_numpy(row)
    if not directions:
        raise CorruptDataError(f"{path} holds no direction")
    hint = values.get(f"{ARCHITECTURE}.model_hint")
    return directions, {"model_type": hint} if isinstance(hint, str) else {}


def _bytes_of(path: Path, one: GgufTensor) -> int:
    if len(one.shape) != 1 or not 0 < one.shape[0] <= _MOST_WIDTH:
        raise CorruptDataError(f"{path} holds {one.name} of shape {list(one.shape)}, not a vector")
    if one.kind not in _KINDS:
        raise UserError(f"{one.name} of {str(path)!r} is quantised", hint="export it as F32")
    return one.shape[0] * _KINDS[one.kind].itemsize


def write_gguf(path: Path, directions: "Mapping[str, Tensor]", model_hint: str) -> None:
    """Writes directions at `resid_post.N` as F32, whole or not at all. Raises UserError for other
    points, for resid_post.0, and for several widths."""
    numbered: dict[int, np.ndarray] = {}
    for point, direction in directions.items():
        match = _POINT.fullmatch(point)
        if match is None or not int(match[1]):
            raise UserError(
                f"llama.cpp has no place for a direction at {point}",
                hint="control vectors are for resid_post.1 and later blocks; export safetensors",
            )
        numbered[int(match[1])] = direction.float().cpu().numpy().astype("<f4")
    if len({len(one) for one in numbered.values()}) != 1:
        raise UserError("the vector has several widths", hint="export safetensors")
    header = struct.pack("<4sIQQ", b"GGUF", _VERSION, len(numbered), 3)
    header += _string("general.architecture") + struct.pack("<I", _STRING) + _string(ARCHITECTURE)
    header += _string(f"{ARCHITECTURE}.model_hint") + struct.pack("<I", _STRING)
    header += _string(model_hint) + _string(f"{ARCHITECTURE}.layer_count")
    header += struct.pack("<Ii", _INTEGER, len(numbered))
    offset, body = 0, b""
    for number, row in sorted(numbered.items()):
        header += _string(f"direction.{number}")
        header += struct.pack("<IQIQ", 1, len(row), _F32, offset)
        body += _padded(row.tobytes())
        offset = len(body)
    with whole_file(path) as temporary:
        temporary.write_bytes(_padded(header) + body)


def _string(text: str) -> bytes:
    data = text.encode()
    return struct.pack("<Q", len(data)) + data


def _padded(data: bytes) -> bytes:
    return data + b"\0" * (-len(data) % _ALIGNMENT)
