"""What a model will take of a device's memory, from the headers of its files. Torch-free."""

from collections.abc import Iterator
from math import prod
from pathlib import Path
from typing import Any

from mi_crow.errors import MiCrowError
from mi_crow.store.safetensors_header import read_header

# Bytes of a weight in each dtype; quantized ones have scales beside them.
_BYTES = {"fp32": 4.0, "bf16": 2.0, "fp16": 2.0, "8bit": 1.05, "4bit": 0.57}
_WHOLE = 2.0  # bytes of a weight that is not quantized
_UNQUANTIZED = ("embed", "lm_head", "wte", "wpe", "norm")


def weights_bytes(folder: Path, dtype: str) -> int | None:
    """Bytes of the weights in `folder`, once loaded in `dtype`; None where no safetensors file
    says it, or one is damaged."""
    try:
        tensors = [one for file in _files(folder) for one in _tensors(file)]
    except (MiCrowError, OSError, ValueError, TypeError):
        return None
    return round(sum(_size(name, shape, dtype) for name, shape in tensors)) if tensors else None


def _files(folder: Path) -> list[Path]:
    """Those that are loaded: a repository may hold the same weights once more in other files."""
    parts = sorted(folder.glob("model-*-of-*.safetensors"))
    return parts or sorted(folder.glob("model.safetensors")) or sorted(folder.glob("*.safetensors"))


def _tensors(file: Path) -> Iterator[tuple[str, list[int]]]:
    with file.open("rb") as opened:
        entries, _ = read_header(opened, str(file))
    for name, entry in entries.items():
        yield name, _shape(entry)


def _shape(entry: Any) -> list[int]:
    return [int(size) for size in entry["shape"]]


def _size(name: str, shape: list[int], dtype: str) -> float:
    quantized = dtype in ("8bit", "4bit")
    if quantized and (len(shape) != 2 or any(part in name for part in _UNQUANTIZED)):
        return prod(shape) * _WHOLE
    return prod(shape) * _BYTES[dtype]
