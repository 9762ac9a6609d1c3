"""The header of a safetensors file: which tensors it has and where their bytes are. Torch-free.

The format is eight bytes of length (little-endian), a JSON object, the tensors' bytes. The NumPy
reader of the safetensors package does not support bfloat16, the torch reader needs torch.
"""

from typing import Any, BinaryIO

from mi_crow.errors import MiCrowError
from mi_crow.store.json_file import parse_json

LENGTH_BYTES = 8


class HeaderError(MiCrowError):
    """A header that ends too early, is too long, or is not a JSON object."""


def read_header(
    file: BinaryIO, place: str, max_bytes: int = 100 << 20
) -> tuple[dict[str, Any], int]:
    """The entry of each tensor (`dtype`, `shape`, `data_offsets`), and the offset in bytes at which
    the tensors begin. `place` names the file in errors.

    The entries are as the file says: nothing in them is checked. Raises HeaderError, OSError.
    """
    entries, _, offset = read_whole_header(file, place, max_bytes)
    return entries, offset


def read_whole_header(
    file: BinaryIO, place: str, max_bytes: int = 100 << 20
) -> tuple[dict[str, Any], dict[str, Any], int]:
    """The same with the file's own metadata in between."""
    length = int.from_bytes(file.read(LENGTH_BYTES), "little")
    if not 0 < length <= max_bytes:
        raise HeaderError(f"{place} has no safetensors header")
    text = file.read(length)
    if len(text) != length:
        raise HeaderError(f"{place} ends within its header")
    entries = parse_json(text, f"the header of {place}", error=HeaderError)
    if not isinstance(entries, dict):
        raise HeaderError(f"the header of {place} is not an object")
    metadata = entries.pop("__metadata__", None)
    return entries, metadata if isinstance(metadata, dict) else {}, LENGTH_BYTES + length
