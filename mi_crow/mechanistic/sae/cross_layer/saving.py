"""Writing a cross-layer SAE: `cfg.json` that names its layers, and one file of tensors."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from mi_crow.mechanistic.sae.cross_layer.record import CrossLayerRecord
from mi_crow.mechanistic.sae.cross_layer.refs import weights
from mi_crow.mechanistic.sae.metadata import CONFIG_NAME, WEIGHTS_NAME, SaeMetadata
from mi_crow.store.atomic import whole_file, write_json
from mi_crow.store.checksums import sum_of

_NAMES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.bfloat16: "BF16",
    torch.float16: "F16",
}


def save_layers(
    record: CrossLayerRecord,
    metadata: SaeMetadata,
    dtype: torch.dtype,
    folder: Path,
    place: Path | None = None,
) -> Path:
    """Writes the weights in `dtype`, one tensor after the other, then `cfg.json`: a folder with a
    `cfg.json` is complete. `place` is where they come from, for messages. Raises CorruptDataError
    for weights that are not finite."""
    folder.mkdir(parents=True, exist_ok=True)
    with whole_file(folder / WEIGHTS_NAME) as path:
        _write(record, dtype, path, place or folder)
    config = _config(record, metadata, dtype)
    config["metadata"]["mi_crow"]["weights"] = asdict(sum_of(folder / WEIGHTS_NAME))
    write_json(folder / CONFIG_NAME, config)
    return folder


def _config(record: CrossLayerRecord, metadata: SaeMetadata, dtype: torch.dtype) -> dict[str, Any]:
    return {
        "architecture": record.architecture,
        "d_in": record.n_inputs,
        "d_sae": record.n_latents,
        "dtype": str(dtype).removeprefix("torch."),
        **({"shared": True} if record.shared else {}),
        **({"k": record.k} if record.k is not None else {}),
        **({"models": [asdict(model) for model in record.models]} if record.models else {}),
        "layers": [
            {
                "number": layer.number,
                **({"model": layer.model} if layer.model else {}),
                "read": layer.read,
                "written": layer.written,
                "writes_to": list(layer.decoders),
            }
            for layer in record.layers
        ],
        "metadata": metadata.as_json(),
    }


def _write(record: CrossLayerRecord, dtype: torch.dtype, path: Path, place: Path) -> None:
    """A safetensors file: the length of its header, the header, the tensors."""
    refs = {name: ref for layer in record.layers for name, ref in layer.tensors().items()}
    header: dict[str, Any] = {}
    end = 0
    for name, ref in refs.items():
        begin, size = end, dtype.itemsize
        for length in ref.shape:
            size *= length
        end = begin + size
        header[name] = {
            "dtype": _NAMES[dtype],
            "shape": list(ref.shape),
            "data_offsets": [begin, end],
        }
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for name, ref in refs.items():
            tensor = weights(ref, name, place, torch.device("cpu"), dtype)
            file.write(tensor.reshape(-1).view(torch.uint8).numpy().data)
