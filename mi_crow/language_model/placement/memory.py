"""What a model will take of a device's memory, from the headers of its files, here or on the hub.
Torch-free."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

from mi_crow.errors import MiCrowError
from mi_crow.hub import quiet_downloads
from mi_crow.progress import OF_WEIGHTS
from mi_crow.store.free_space import gigabytes
from mi_crow.store.json_file import read_json
from mi_crow.store.safetensors_header import read_header

# Bytes of a weight in each dtype; quantized ones have scales beside them.
_BYTES = {"fp32": 4.0, "bf16": 2.0, "fp16": 2.0, "8bit": 1.05, "4bit": 0.57}
_WHOLE = 2.0  # bytes of a weight that is not quantized
_WIDE = 512  # narrower models gain little from a faster product
_UNQUANTIZED = ("embed", "lm_head", "wte", "wpe", "norm")


def weights_bytes(folder: Path, dtype: str) -> int | None:
    """Bytes of the weights in `folder`, once loaded in `dtype`; None where no safetensors file
    says it, or one is damaged."""
    try:
        return _bytes([one for file in _files(folder) for one in _tensors(file)], dtype)
    except (MiCrowError, OSError, ValueError, TypeError):
        return None


@dataclass(frozen=True)
class Expected:
    """The weights of a model once they are loaded."""

    bytes: int
    dtype: str

    def sentence(self, place: str, free: int | None = None) -> str:
        """Where they go, and what is free there."""
        room = "" if free is None else f", of {gigabytes(free)} that are free"
        return f"{gigabytes(self.bytes)}{OF_WEIGHTS}{self.dtype} on {place}{room}"


def expected_weights(folder: Path, asked: str, kind: str) -> Expected | None:
    """What the weights in `folder` will take on a device of this kind (cpu, cuda, mps), loaded in
    the dtype `asked` for; None where their files do not say."""
    dtype = auto_dtype(*_configured(folder), kind) if asked == "auto" else asked
    needed = weights_bytes(folder, dtype)
    return None if needed is None else Expected(needed, dtype)


def published_weights(model: str, revision: str | None, asked: str, kind: str) -> Expected | None:
    """The same of a model on the hub, of which only the headers of its weights and its
    configuration are fetched; None where the hub does not say, whatever the reason. Ask only where
    the hub answers (see `hub_answers`)."""
    try:
        from huggingface_hub import HfApi, hf_hub_download

        with quiet_downloads():
            if asked == "auto":
                config = hf_hub_download(model, "config.json", revision=revision)
                asked = auto_dtype(*_configured(Path(config).parent), kind)
            found = HfApi().get_safetensors_metadata(model, revision=revision)
        files = found.files_metadata.values()
        tensors = [(name, own.shape) for file in files for name, own in file.tensors.items()]
        needed = _bytes(tensors, asked)
    except Exception:  # gated, absent, without such files, broken off: loading says which
        return None
    return None if needed is None else Expected(needed, asked)


def auto_dtype(stored: str, width: int, kind: str) -> str:
    """The dtype that a model computes in where none is asked for: bf16 on CUDA, on a CPU the
    fastest that loses nothing.

    A CPU that multiplies bf16 itself is about three times as fast in it (1,185 against 3,822
    tokens/s on SmolLM2-135M, two cores), one that does not is several times slower.
    """
    rounded = stored == "bfloat16" and width >= _WIDE
    return "bf16" if kind == "cuda" or (kind == "cpu" and rounded and cpu_has_bf16()) else "fp32"


def cpu_has_bf16() -> bool:
    """Whether this CPU has instructions for bf16 products (AVX-512 BF16 or AMX)."""
    try:
        told = Path("/proc/cpuinfo").read_text()
    except OSError:
        return False
    return re.search(r"\b(avx512_bf16|amx_tile)\b", told) is not None


def _configured(folder: Path) -> tuple[str, int]:
    """The dtype of the weights and the width that the configuration names."""
    try:
        whole = read_json(folder / "config.json")
    except (MiCrowError, OSError):
        return "", 0
    if not isinstance(whole, dict):
        return "", 0
    text = whole.get("text_config")
    config = {**whole, **text} if isinstance(text, dict) else whole
    width = config.get("hidden_size", config.get("n_embd"))
    stored = config.get("dtype") or config.get("torch_dtype")
    return str(stored), width if isinstance(width, int) else 0


def _bytes(tensors: Sequence[tuple[str, list[int]]], dtype: str) -> int | None:
    """Of tensors with their shapes; None without any."""
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
