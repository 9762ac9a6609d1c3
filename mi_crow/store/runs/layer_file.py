"""One layer's rows of one part: a safetensors file, summed while it is written, read memory-mapped.

The format is small: eight bytes of length, a JSON header, the tensors' bytes. safetensors 0.8
writes the same bytes, also without a copy, but holds the interpreter's lock meanwhile (69 MB: the
model's thread stands still for 0.2 to 0.4 s, here 0.05 s) and cannot sum what it writes, so the
file would be read again (250 to 300 ms in place of 195). Its reader cannot read some rows into
memory used before. Other tools read the files as they are.
"""

import json
import math
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from io import FileIO
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from torch import Tensor

from mi_crow.causes import machine_error
from mi_crow.errors import CorruptDataError, MiCrowError
from mi_crow.store.safetensors_header import LENGTH_BYTES, HeaderError, read_header

_CODES = {
    torch.float32: "F32",
    torch.bfloat16: "BF16",
    torch.float16: "F16",
    torch.int8: "I8",
    torch.uint8: "U8",
}
_KINDS = {code: kind for kind, code in _CODES.items()}
_MAX_HEADER_BYTES = 1 << 20
_NOT_A_HEADER = (
    ValueError,
    KeyError,
    TypeError,
    AttributeError,
    OverflowError,  # an offset of Infinity
)
_HINT = "capture the run again"


def write_tensors(file: BinaryIO, tensors: Mapping[str, Tensor]) -> None:
    """Writes CPU tensors as a safetensors file.

    Wide types come first, so that every tensor starts at a multiple of its items' size.
    """
    names = sorted(tensors, key=lambda name: (-tensors[name].itemsize, tensors[name].nbytes, name))
    header: dict[str, Any] = {}
    end = 0
    for name in names:
        begin, end = end, end + tensors[name].nbytes
        header[name] = {
            "dtype": _CODES[tensors[name].dtype],
            "shape": list(tensors[name].shape),
            "data_offsets": [begin, end],
        }
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    file.write(len(text).to_bytes(LENGTH_BYTES, "little") + text)
    for name in names:
        if tensors[name].numel():
            file.write(_as_bytes(tensors[name]))


def _as_bytes(tensor: Tensor) -> memoryview:
    """The same memory as bytes [n]."""
    return tensor.detach().contiguous().view(-1).view(torch.uint8).numpy().data


@dataclass(frozen=True)
class TensorPlace:
    """Where a tensor is in a file."""

    kind: torch.dtype
    shape: tuple[int, ...]
    begin: int  # bytes from the start of the file


class LayerFile:
    """A file that `write_tensors` or another safetensors writer made.

    Opening only reads its header and checks it against the file's size.
    """

    def __init__(self, path: Path) -> None:
        """Raises CorruptDataError naming a file that is missing, truncated or damaged,
        MachineError where the system refuses to open or read it."""
        self.path = path
        with self._opened() as file:
            self.size: int = os.fstat(file.fileno()).st_size  # bytes
            try:
                entries, data = read_header(file, str(path), _MAX_HEADER_BYTES)
            except OSError as error:
                raise self._refused(error) from error
            except HeaderError as error:
                raise self.damaged("its header cannot be read") from error
        try:
            self.places: dict[str, TensorPlace] = {
                name: self._place(name, entry, data) for name, entry in entries.items()
            }
        except _NOT_A_HEADER as error:
            raise self.damaged("its header cannot be read") from error

    def damaged(self, why: str) -> CorruptDataError:
        return CorruptDataError(f"{self.path} is damaged ({why})", hint=_HINT)

    def _refused(self, error: OSError) -> MiCrowError:
        """The error for what the system said when opening or reading it."""
        if isinstance(error, FileNotFoundError):
            return CorruptDataError(f"{self.path} is missing", hint=_HINT)
        told = machine_error(error, self.path)
        return told or self.damaged(error.strerror or str(error))

    def tensor(self, name: str) -> Tensor:
        """The tensor, memory-mapped: nothing is read yet. It must not be written to."""
        place = self.places[name]
        size = math.prod(place.shape) * place.kind.itemsize
        if not size:
            return torch.empty(place.shape, dtype=place.kind)
        # The mapping outlives the descriptor, so that thousands of parts do not use them up.
        try:
            content = torch.from_file(str(self.path), False, place.begin + size, dtype=torch.uint8)
        except RuntimeError as error:  # it has gone since it was opened, or memory has
            told = machine_error(error, self.path) or self.damaged("it cannot be mapped")
            raise told from error
        return content[place.begin :].view(place.kind).view(place.shape)

    @contextmanager
    def reading(self, name: str) -> Iterator[Callable[[slice], np.ndarray]]:
        """A function that reads the items start..stop of the tensor's first dimension, each as one
        item of its bytes: [stop - start]. Each call overwrites the previous result."""
        place = self.places[name]
        item = np.dtype((np.void, math.prod(place.shape[1:]) * place.kind.itemsize))
        room = np.empty(0, item)

        def read(stretch: slice) -> np.ndarray:
            nonlocal room
            if len(room) < stretch.stop - stretch.start:
                room = np.empty(stretch.stop - stretch.start, item)
            result = room[: stretch.stop - stretch.start]
            try:
                file.seek(place.begin + stretch.start * item.itemsize)
                found = file.readinto(result.view(np.uint8).data)
            except OSError as error:
                raise self._refused(error) from error
            if found != result.nbytes:
                raise self.damaged("it has become shorter")
            return result

        with self._opened() as file:
            yield read

    def read(self, name: str) -> Tensor:
        """The tensor, read into memory."""
        place = self.places[name]
        result = torch.empty(place.shape, dtype=place.kind)
        if result.numel():
            with self.reading(name) as read:
                items = read(slice(0, len(result)))
                result.view(-1).view(torch.uint8).numpy()[:] = items.view(np.uint8)
        return result

    def _opened(self) -> FileIO:
        try:
            return self.path.open("rb", buffering=0)
        except OSError as error:
            raise self._refused(error) from error

    def _place(self, name: str, entry: dict[str, Any], data: int) -> TensorPlace:
        kind, shape = _KINDS[entry["dtype"]], tuple(int(size) for size in entry["shape"])
        begin, end = (data + int(offset) for offset in entry["data_offsets"])
        if end > self.size:
            raise self.damaged(f"it has {self.size:,} bytes, {name!r} ends at {end:,}")
        lies = begin < data or end - begin != math.prod(shape) * kind.itemsize
        if lies or any(size < 0 for size in shape) or begin % kind.itemsize:
            raise self.damaged(f"its header is wrong about {name!r}")
        return TensorPlace(kind, shape, begin)
