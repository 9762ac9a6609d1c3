"""Files of named tensors, read one tensor at a time and never by running what is in them."""

import pickle
import warnings
import zipfile
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from mi_crow.causes import machine_error
from mi_crow.errors import CorruptDataError, NotFoundError, UserError
from mi_crow.mechanistic.sae.formats.record import TensorRef

_AGAIN = "copy or download it again"


def read_safetensors(path: Path) -> dict[str, TensorRef]:
    """The tensors of a safetensors file; only its header is read.

    Raises NotFoundError without the file, CorruptDataError when it is not one.
    """
    _must_exist(path)
    try:
        with safe_open(path, framework="pt") as file:
            names = file.keys()
            shapes = {name: tuple(file.get_slice(name).get_shape()) for name in names}
    except (SafetensorError, OSError, ValueError) as error:
        raise machine_error(error, path) or CorruptDataError(
            f"{path} is not a whole safetensors file ({error})", hint=_AGAIN
        ) from error

    def one(name: str) -> Tensor:
        with safe_open(path, framework="pt") as file:
            return file.get_tensor(name)

    return {name: TensorRef(shape, lambda name=name: one(name)) for name, shape in shapes.items()}


def read_npz(path: Path) -> dict[str, TensorRef]:
    """The arrays of an .npz file; only their headers are read, and no pickled objects ever.

    Raises NotFoundError without the file, CorruptDataError when it is not one.
    """
    _must_exist(path)
    try:
        with zipfile.ZipFile(path) as archive:
            shapes = {
                member.filename.removesuffix(".npy"): _npy_shape(archive, member.filename, path)
                for member in archive.infolist()
            }
    except (zipfile.BadZipFile, OSError, ValueError) as error:
        raise machine_error(error, path) or CorruptDataError(
            f"{path} is not a whole .npz file ({error})", hint=_AGAIN
        ) from error

    def one(name: str) -> Tensor:
        with np.load(path, allow_pickle=False) as arrays:
            return torch.from_numpy(arrays[name])

    return {name: TensorRef(shape, lambda name=name: one(name)) for name, shape in shapes.items()}


def _npy_shape(archive: zipfile.ZipFile, name: str, path: Path) -> tuple[int, ...]:
    with archive.open(name) as file:
        version = np.lib.format.read_magic(file)
        read = (
            np.lib.format.read_array_header_1_0
            if version == (1, 0)
            else np.lib.format.read_array_header_2_0
        )
        shape, _, kind = read(file)
    if kind.hasobject:
        raise UserError(f"{path} holds Python objects in {name!r}, which are not read")
    return shape


def read_torch(path: Path) -> Mapping[str, Any]:
    """The object that `torch.save` wrote, if it is a mapping of names to plain data and tensors.

    Tensors are memory-mapped where the file allows it. Raises UserError for a file that could
    run code, CorruptDataError for one that is no such file.
    """
    _must_exist(path)
    try:
        found = _torch_load(path)
    except pickle.UnpicklingError as error:
        raise UserError(
            f"{path} is refused: it holds more than tensors, and loading it could run code",
            hint="ask for a file of plain tensors, best as safetensors",
        ) from error
    except (RuntimeError, EOFError, OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise machine_error(error, path) or CorruptDataError(
            f"{path} is not a whole file that torch.save wrote", hint=_AGAIN
        ) from error
    if not isinstance(found, Mapping):
        raise UserError(f"{path} holds a {type(found).__name__}, not tensors by their names")
    return found


def _torch_load(path: Path) -> Any:
    # Files older than torch 1.6 are no zip archives and cannot be mapped.
    mapped = zipfile.is_zipfile(path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # on pickle protocols, before it refuses them
        return torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)


def refs(tensors: Mapping[str, Tensor]) -> dict[str, TensorRef]:
    """Tensors that are in memory (or mapped)."""
    return {name: TensorRef.of(tensor) for name, tensor in tensors.items()}


def check_names(
    found: Collection[str],
    required: Collection[str],
    path: Path,
    format_name: str,
    optional: Collection[str] = (),
) -> None:
    """Raises UserError naming the tensors that are missing or that the format does not know."""
    missing = [name for name in required if name not in found]
    unknown = sorted(set(found) - set(required) - set(optional))
    if missing or unknown:
        said = [f"has no {', '.join(missing)}"] if missing else []
        said += [f"holds {', '.join(unknown)}, which is not known there"] if unknown else []
        raise UserError(
            f"{path} is not what {format_name} writes: it {' and '.join(said)}",
            hint=f"the tensors are to be {', '.join(required)}",
        )


def _must_exist(path: Path) -> None:
    if not path.is_file():
        raise NotFoundError(f"no file {path}")
