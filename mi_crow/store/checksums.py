"""Sizes and checksums of files: computed while writing, compared when verifying.

XXH3 (xxhash.com) with 128 bits: an order of magnitude faster than a disk. It detects damage, not
forgery.
"""

import contextlib
import io
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, cast

import xxhash

_BLOCK_BYTES = 1 << 20  # hashed data is still in the cache when it is written


@dataclass(frozen=True)
class FileSum:
    """Size and checksum of a file."""

    bytes: int
    xxh3: str  # XXH3 of 128 bits, 32 hexadecimal digits

    @classmethod
    def from_json(cls, data: Any) -> "FileSum":
        """Raises TypeError or KeyError for invalid data."""
        if not isinstance(data["bytes"], int) or not isinstance(data["xxh3"], str):
            raise TypeError(f"{data!r} is not the sum of a file")
        return cls(data["bytes"], data["xxh3"])


class SummingFile(io.RawIOBase):
    """A file open for writing that computes its checksum on the way."""

    def __init__(self, file: BinaryIO) -> None:
        super().__init__()
        self._file, self._hash, self._bytes = file, xxhash.xxh3_128(), 0

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        view = memoryview(data).cast("B")
        for start in range(0, len(view), _BLOCK_BYTES):
            block = view[start : start + _BLOCK_BYTES]
            self._hash.update(block)
            self._file.write(block)
        self._bytes += len(view)
        return len(view)

    def tell(self) -> int:
        return self._bytes

    @property
    def sum(self) -> FileSum:
        """Of what was written so far."""
        return FileSum(self._bytes, self._hash.hexdigest())

    def as_file(self) -> BinaryIO:
        """Itself, typed for writers that expect a binary file."""
        return cast(BinaryIO, self)


def sum_of(path: Path) -> FileSum:
    """Reads a file and computes its checksum. Raises OSError."""
    found, room = xxhash.xxh3_128(), memoryview(bytearray(_BLOCK_BYTES))
    size = 0
    with path.open("rb", buffering=0) as file:
        while count := file.readinto(room):
            found.update(room[:count])
            size += count
    return FileSum(size, found.hexdigest())


def forget_cached(path: Path) -> None:
    """Makes the next read of a synced file come from the disk, where the system allows it."""
    if not hasattr(os, "posix_fadvise"):
        return
    with contextlib.suppress(OSError), path.open("rb") as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def difference(expected: FileSum, found: FileSum) -> str:
    """How a file differs from what was written, in words; '' when it does not."""
    if found.bytes != expected.bytes:
        return f"it has {found.bytes:,} bytes, {expected.bytes:,} were written"
    if found.xxh3 != expected.xxh3:
        return "its checksum does not match the recorded one"
    return ""
