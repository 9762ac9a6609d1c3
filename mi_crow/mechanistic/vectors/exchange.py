"""Vectors from and for other tools: safetensors files and GGUF control vectors."""

import json
import re
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mi_crow.errors import CorruptDataError, NotFoundError, UserError
from mi_crow.mechanistic.vectors.stored import METADATA_KEY, SteeringVector, check_directions
from mi_crow.store.atomic import whole_file
from mi_crow.store.json_file import parse_json

if TYPE_CHECKING:
    from torch import Tensor

FORMATS = ("safetensors", "gguf")
_WRITTEN = {
    True: "a control vector is what repeng and llama-cvector-generator write",
    False: "give a file with a tensor [d] for each layer",
}
_NUMBERED = re.compile(r"(?:.*\.)?(?:direction|layers?|h|blocks?)[._](\d+)")


def format_of(path: Path) -> str:
    """The format of a file by its name. Raises UserError."""
    found = path.suffix.lower().removeprefix(".")
    if found not in FORMATS:
        raise UserError(
            f"{str(path)!r} is neither a .safetensors nor a .gguf file", hint="name it so"
        )
    return found


def import_vector(
    path: Path, name: str, layer: str | None = None, model_id: str | None = None
) -> SteeringVector:
    """A vector from a file of ours or of another tool.

    In a safetensors file a tensor [d] (or [1, d]) is for the hook point that it is named after:
    `resid_post.12`, `direction.12`, `layers.12`, `12`; a single one with any name is for `layer`.
    Raises NotFoundError, and UserError for a file that holds no vector.
    """
    if not path.is_file():
        raise NotFoundError(f"no file {str(path)!r}")
    as_gguf = format_of(path) == "gguf"
    try:
        directions, made = _from_gguf(path) if as_gguf else _from_safetensors(path, layer)
    except CorruptDataError as error:  # the user named the file, and can name another one
        raise UserError(str(error), hint=_WRITTEN[as_gguf]) from error
    if layer is not None and layer not in directions:
        if len(directions) != 1:
            raise UserError(
                f"{str(path)!r} has directions for {', '.join(directions)}",
                hint="leave out --layer",
            )
        directions = {layer: next(iter(directions.values()))}
    check_directions(name, directions)
    if model_id is not None:
        made["model_id"] = model_id
    made = {"method": "imported", **made, "source": path.name, "created": time.time()}
    return SteeringVector(name, directions, made)


def _from_gguf(path: Path) -> "tuple[dict[str, Tensor], dict[str, Any]]":
    from mi_crow.mechanistic.vectors.gguf import read_gguf

    return read_gguf(path)


def _from_safetensors(path: Path, layer: str | None) -> "tuple[dict[str, Tensor], dict[str, Any]]":
    from safetensors import safe_open
    from safetensors.torch import load_file

    try:
        tensors = load_file(path)
        with safe_open(path, "pt") as file:
            own = (file.metadata() or {}).get(METADATA_KEY)
    except Exception as error:  # the Rust reader's own kinds of errors
        raise CorruptDataError(f"{path} is not a readable safetensors file ({error})") from error
    directions = {}
    for key, tensor in tensors.items():
        row = tensor[0] if tensor.ndim == 2 and tensor.shape[0] == 1 else tensor
        if row.ndim != 1:
            raise UserError(
                f"{str(path)!r} holds {key!r} of shape {list(tensor.shape)}, not a vector",
                hint="mi-crow import reads SAEs",
            )
        directions[_point(key, layer if len(tensors) == 1 else None, path)] = row.float()
    made = parse_json(own, f"the metadata of {path.name}") if own is not None else {}
    return directions, made if isinstance(made, dict) else {}


def _point(key: str, layer: str | None, path: Path) -> str:
    """The hook point that a tensor is named after."""
    if layer is not None:
        return layer
    if key.isdecimal():
        return f"resid_post.{key}"
    match = _NUMBERED.fullmatch(key)
    if match is not None:
        return f"resid_post.{match[1]}"
    if re.fullmatch(r"[a-z]+(?:_[a-z]+)*\.\d+", key):  # a short name of ours
        return key
    raise UserError(
        f"{str(path)!r} does not say for which layer {key!r} is", hint="name it with --layer"
    )


def export_vector(vector: SteeringVector, path: Path) -> None:
    """Writes a vector as the file's name says, whole or not at all. Raises UserError."""
    if format_of(path) == "gguf":
        from mi_crow.mechanistic.vectors.gguf import write_gguf

        hint = vector.made.get("model_type") or vector.made.get("model_id") or ""
        write_gguf(path, vector.directions, str(hint))
        return
    from safetensors.torch import save_file

    made = json.dumps(dict(vector.made), ensure_ascii=False)
    with whole_file(path) as temporary:
        tensors = {key: one.contiguous() for key, one in vector.directions.items()}
        save_file(tensors, temporary, {METADATA_KEY: made})
