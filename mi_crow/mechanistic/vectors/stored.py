"""A vector in the workspace: one safetensors file that also says how it was made.

`vectors/<name>.safetensors` holds one tensor [d] a hook point, under the point's name, and one
metadata entry `mi_crow` with JSON: model_id, revision, method, and what else was used to make it.
Under `layers` are figures of each point, all optional: `max` (the greatest projection on the texts
that it was made from, in multiples of the vector), `median_norm` (of a token there) and
`outlier_norm` (above which tokens are massive).
"""

import json
import math
import sys
from array import array
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mi_crow.errors import CorruptDataError, NotFoundError, UserError, nearest
from mi_crow.store.atomic import sync_folder, whole_file
from mi_crow.store.ids import validate_id
from mi_crow.store.json_file import parse_json
from mi_crow.store.safetensors_header import HeaderError, read_whole_header
from mi_crow.store.workspace import Workspace

if TYPE_CHECKING:
    from torch import Tensor

SUFFIX = ".safetensors"
METADATA_KEY = "mi_crow"


@dataclass(frozen=True)
class SteeringVector:
    """A direction at one hook point or several."""

    name: str
    directions: "Mapping[str, Tensor]"  # hook point -> [d] fp32
    made: Mapping[str, Any] = field(default_factory=dict)  # JSON: see the module

    def figure(self, point: str, name: str) -> float | None:
        """One of the figures of a point, None where it is not known."""
        layers = self.made.get("layers")
        found = layers.get(point, {}).get(name) if isinstance(layers, Mapping) else None
        return float(found) if isinstance(found, int | float) and found > 0 else None


@dataclass(frozen=True)
class VectorSummary:
    """A vector as its file's header tells it."""

    name: str
    path: Path
    widths: Mapping[str, int]  # hook point -> width
    made: Mapping[str, Any]

    @property
    def model_id(self) -> str:
        return str(self.made.get("model_id") or "")

    @property
    def method(self) -> str:
        return str(self.made.get("method") or "")


def vector_path(workspace: Workspace, name: str) -> Path:
    """The file of an existing vector. Raises UserError, NotFoundError."""
    path = workspace.vectors_dir / f"{validate_id(name, 'vector')}{SUFFIX}"
    if not path.is_file():
        known = [one.stem for one in _files(workspace)]
        hint = f"there is {nearest(name, known)}" if known else "make one: mi-crow vector make"
        raise NotFoundError(f"vector {name!r} not found", hint=hint)
    return path


def new_path(workspace: Workspace, name: str, *, replace: bool = False) -> Path:
    """Where a new vector will be. Raises UserError for a name that is not valid, or taken."""
    path = workspace.vectors_dir / f"{validate_id(name, 'vector')}{SUFFIX}"
    if path.exists() and not replace:
        raise UserError(
            f"vector {name!r} exists already", hint="choose another name or use --force"
        )
    return path


def save_vector(workspace: Workspace, vector: SteeringVector, *, replace: bool = False) -> Path:
    """Writes a vector, whole or not at all. Raises UserError where the name is taken."""
    from safetensors.torch import save_file

    path = new_path(workspace, vector.name, replace=replace)
    check_directions(vector.name, vector.directions)
    tensors = {
        point: one.detach().cpu().float().contiguous() for point, one in vector.directions.items()
    }
    with whole_file(path) as temporary:
        save_file(
            tensors, temporary, {METADATA_KEY: json.dumps(dict(vector.made), ensure_ascii=False)}
        )
    return path


def check_directions(name: str, directions: "Mapping[str, Tensor]") -> None:
    """Raises UserError for a vector without direction or with numbers that are not finite."""
    if not directions:
        raise UserError(f"vector {name!r} has no direction")
    for point, one in directions.items():
        if one.ndim != 1 or not one.numel():
            raise UserError(f"vector {name!r} has shape {list(one.shape)} at {point}, not [width]")
        if not bool(one.isfinite().all()):
            raise UserError(f"vector {name!r} has values at {point} that are not finite numbers")
        if not bool(one.any()):
            raise UserError(f"vector {name!r} is zero at {point}", hint="it has no direction")


def load_vector(workspace: Workspace, name: str) -> SteeringVector:
    """Reads a vector. Raises UserError, NotFoundError, CorruptDataError."""
    from safetensors.torch import load_file

    path = vector_path(workspace, name)
    summary = read_summary(path)
    try:
        tensors = load_file(path)
    except Exception as error:  # the Rust reader's own kinds of errors
        raise CorruptDataError(f"{path} is not a readable vector ({error})") from error
    directions = {point: tensors[point].float() for point in summary.widths}
    check_directions(name, directions)
    return SteeringVector(name, directions, summary.made)


def read_summary(path: Path) -> VectorSummary:
    """The header of a vector's file. Raises CorruptDataError, OSError. Torch-free."""
    try:
        with path.open("rb") as file:
            entries, metadata, _ = read_whole_header(file, path.name)
    except HeaderError as error:
        raise CorruptDataError(str(error)) from error
    made = parse_json(
        str(metadata.get(METADATA_KEY, "{}")).encode(), f"the metadata of {path.name}"
    )
    if not isinstance(made, dict):
        raise CorruptDataError(f"{path} says in no readable way how it was made")
    widths = {}
    for point, entry in entries.items():
        shape = entry.get("shape") if isinstance(entry, dict) else None
        if not isinstance(shape, list) or len(shape) != 1 or not isinstance(shape[0], int):
            raise CorruptDataError(f"{path} holds {point!r} of shape {shape}, not a vector")
        widths[point] = shape[0]
    return VectorSummary(path.stem, path, widths, made)


def list_vectors(workspace: Workspace) -> list[VectorSummary]:
    """The readable vectors, by name. Torch-free."""
    found = []
    for path in _files(workspace):
        try:
            found.append(read_summary(path))
        except (CorruptDataError, OSError):
            continue
    return found


def rename_vector(workspace: Workspace, name: str, new: str) -> None:
    """Gives a vector another name. Raises UserError where that is taken or not valid,
    NotFoundError."""
    path = vector_path(workspace, name)
    target = workspace.vectors_dir / f"{validate_id(new, 'vector')}{SUFFIX}"
    if target.exists():
        raise UserError(f"vector {new!r} exists already", hint="choose another name")
    path.rename(target)
    sync_folder(workspace.vectors_dir)


def norms_of(path: Path) -> dict[str, float]:
    """The length of a vector at each of its hook points, read without torch. Raises
    CorruptDataError, OSError."""
    with path.open("rb") as file:
        try:
            entries, _, start = read_whole_header(file, path.name)
        except HeaderError as error:
            raise CorruptDataError(str(error)) from error
        found = {}
        for point, entry in entries.items():
            if entry.get("dtype") != "F32":
                raise CorruptDataError(f"{path} holds {point!r} as {entry.get('dtype')}, not F32")
            first, end = entry["data_offsets"]
            file.seek(start + first)
            values = array("f", file.read(end - first))
            if sys.byteorder == "big":
                values.byteswap()
            found[point] = math.sqrt(math.fsum(value * value for value in values))
    return found


def remove_vector(workspace: Workspace, name: str) -> None:
    """Deletes a vector. Raises UserError, NotFoundError."""
    vector_path(workspace, name).unlink()


def _files(workspace: Workspace) -> list[Path]:
    return sorted(
        path for path in workspace.vectors_dir.glob(f"*{SUFFIX}") if not path.name.startswith(".")
    )
