"""Files of named tensors, read one tensor at a time and never by running what is in them.

Nothing but whole, dense numbers under names comes out of here. What such files can hold otherwise
(records, objects, numbers under numbers, sizes that the bytes do not bear) is refused by its name.
"""

import math
import pickle
import struct
import tokenize
import warnings
import zipfile
import zlib
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, cast

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from mi_crow.causes import machine_error
from mi_crow.errors import CorruptDataError, NotFoundError, UserError
from mi_crow.mechanistic.sae.formats.record import TensorRef

_AGAIN = "copy or download it again"
_MATRICES = frozenset(["W_enc", "W_dec", "W_skip", "encoder.weight", "decoder.weight"])
_MOST_SHARED = 64 << 20  # bytes that a tensor may have beyond those that are stored for it

# What zip archives, NumPy's header and torch's unpickler raise for bytes that are not theirs.
_BROKEN_ZIP = (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, struct.error)
_BROKEN_NPY = (ValueError, TypeError, SyntaxError, tokenize.TokenError, RecursionError, MemoryError)
_BROKEN_TORCH = (
    *_BROKEN_ZIP,
    RuntimeError,
    OSError,
    ValueError,
    TypeError,
    LookupError,
    AttributeError,
    AssertionError,
    OverflowError,
    ImportError,
    MemoryError,
)


def read_safetensors(path: Path) -> dict[str, TensorRef]:
    """The tensors of a safetensors file; only its header is read.

    Raises NotFoundError without the file, CorruptDataError when it is not one.
    """
    _must_exist(path)

    @contextmanager
    def opened() -> Iterator[Any]:
        try:
            with safe_open(path, framework="pt") as file:
                yield file
        except (SafetensorError, OSError, ValueError, RuntimeError, MemoryError) as error:
            raise machine_error(error, path) or CorruptDataError(
                f"{path} is not a whole safetensors file ({_short(error)})", hint=_AGAIN
            ) from error

    with opened() as file:
        shapes = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118 (not a dict)

    def one(name: str) -> Tensor:
        with opened() as file:
            return file.get_tensor(name)

    return {name: TensorRef(shape, lambda name=name: one(name)) for name, shape in shapes.items()}


def read_npz(path: Path) -> dict[str, TensorRef]:
    """The arrays of an .npz file; only their headers are read, and no pickled objects ever.

    Raises NotFoundError without the file, UserError for arrays of objects, CorruptDataError when it
    is no such file, or its arrays are records or longer than their bytes.
    """
    _must_exist(path)
    shapes: dict[str, tuple[int, ...]] = {}
    members: dict[str, str] = {}
    with _archive(path) as archive:
        for member in archive.infolist():
            name = member.filename.removesuffix(".npy")
            if name in members:
                raise CorruptDataError(f"{path} holds {name} twice", hint=_AGAIN)
            members[name] = member.filename
            with archive.open(member) as file:
                shapes[name] = _npy_shape(file, name, member.file_size, path)

    def one(name: str) -> Tensor:
        with _archive(path) as archive, archive.open(members[name]) as file:
            array = np.lib.format.read_array(cast(Any, file), allow_pickle=False)
        return torch.from_numpy(array.astype(array.dtype.newbyteorder("="), copy=False))

    return {name: TensorRef(shape, lambda name=name: one(name)) for name, shape in shapes.items()}


@contextmanager
def _archive(path: Path) -> Iterator[zipfile.ZipFile]:
    try:
        with zipfile.ZipFile(path) as archive:
            yield archive
    except (*_BROKEN_ZIP, *_BROKEN_NPY, OSError, KeyError, RuntimeError) as error:
        raise machine_error(error, path) or CorruptDataError(
            f"{path} is not a whole .npz file ({_short(error)})", hint=_AGAIN
        ) from error


def _npy_shape(file: IO[bytes], name: str, size: int, path: Path) -> tuple[int, ...]:
    version = np.lib.format.read_magic(cast(Any, file))
    read = (
        np.lib.format.read_array_header_1_0
        if version == (1, 0)
        else np.lib.format.read_array_header_2_0
    )
    shape, _, kind = read(cast(Any, file))
    if kind.hasobject:
        raise UserError(f"{path} holds Python objects in {name!r}, which are not read")
    if kind.kind not in "fiub" or kind.itemsize > 8:
        raise CorruptDataError(f"{path} holds {_short(kind)} for {name}, not numbers of a weight")
    if any(type(one) is not int or one < 0 for one in shape):
        raise CorruptDataError(f"{path} has the size {_short(shape)} for {name}", hint=_AGAIN)
    if size - file.tell() != math.prod(shape) * kind.itemsize:
        raise CorruptDataError(
            f"{path} holds {size - file.tell():,} bytes for {name}, which its size "
            f"{_short(shape)} does not fit",
            hint=_AGAIN,
        )
    return shape


def read_torch(path: Path) -> Mapping[str, Any]:
    """The object that `torch.save` wrote, if it is a mapping of names to plain data and tensors.

    Tensors are memory-mapped where the file allows it. Raises UserError for a file that could
    run code or holds other than names and tensors, CorruptDataError for one that is no such file.
    """
    _must_exist(path)
    try:
        found = _torch_load(path)
    except pickle.UnpicklingError as error:
        raise UserError(
            f"{path} is refused: it holds more than tensors, and loading it could run code",
            hint="ask for a file of plain tensors, best as safetensors",
        ) from error
    except _BROKEN_TORCH as error:
        raise machine_error(error, path) or CorruptDataError(
            f"{path} is not a whole file that torch.save wrote", hint=_AGAIN
        ) from error
    if not isinstance(found, Mapping):
        raise UserError(f"{path} holds a {type(found).__name__}, not tensors by their names")
    check_plain(found, path)
    return found


def check_plain(found: Mapping[Any, Any], path: Path) -> None:
    """Raises UserError for names that are not texts and tensors that are not plain arrays."""
    for name, value in found.items():
        if not isinstance(name, str):
            raise UserError(f"{path} holds {_short(name)} as a name, which is not a text")
        if isinstance(value, Tensor):
            _check_dense(value, name, path)


def _check_dense(tensor: Tensor, name: str, path: Path) -> None:
    plain = tensor.layout is torch.strided and tensor.device.type == "cpu"
    if not plain or tensor.is_quantized or tensor.is_nested:
        raise UserError(
            f"{path} holds {name} as no plain tensor (sparse, quantized or without data)"
        )
    if tensor.nbytes > tensor.untyped_storage().nbytes() + _MOST_SHARED:
        raise UserError(f"{path} has the size {tuple(tensor.shape)} for {name}, and no such bytes")


def _torch_load(path: Path) -> Any:
    # Files older than torch 1.6 are no zip archives and cannot be mapped.
    mapped = zipfile.is_zipfile(path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # on pickle protocols, before it refuses them
        return torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)


def refs(tensors: Mapping[str, Tensor]) -> dict[str, TensorRef]:
    """Tensors that are in memory (or mapped)."""
    return {name: TensorRef.of(tensor) for name, tensor in tensors.items()}


def tensors_of(found: Mapping[str, Any], names: Collection[str], path: Path) -> dict[str, Tensor]:
    """Those of `names` that are there. Raises UserError for one that is not a tensor."""
    for name in names:
        if name in found and not isinstance(found[name], Tensor):
            raise UserError(f"{path} holds {name}, which is not a tensor")
    return {name: found[name] for name in names if name in found}


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
        said += [f"holds {_listed(unknown)}, which is not known there"] if unknown else []
        raise UserError(
            f"{path} is not what {format_name} writes: it {' and '.join(said)}",
            hint=f"the tensors are to be {', '.join(required)}",
        )


def check_tensors(
    found: Mapping[str, TensorRef],
    required: Collection[str],
    path: Path,
    format_name: str,
    optional: Collection[str] = (),
) -> None:
    """The same for the tensors themselves. Raises CorruptDataError for a matrix without two
    dimensions, another tensor with more than one, and for one that is empty."""
    check_names(found, required, path, format_name, optional)
    for name, ref in found.items():
        right = len(ref.shape) == 2 if name in _MATRICES else len(ref.shape) <= 1
        if not right or 0 in ref.shape:
            wanted = "a matrix" if name in _MATRICES else "one number each"
            raise CorruptDataError(f"{path} holds {ref.shape} for {name}, which is to be {wanted}")


def _listed(names: list[str], most: int = 12) -> str:
    shown = [name if name.isprintable() else repr(name) for name in names[:most]]
    return ", ".join(shown) + (", ..." if len(names) > most else "")


def _short(what: Any) -> str:
    """The first line of an error or value, cut."""
    return (str(what).splitlines() or [type(what).__name__])[0][:120] or type(what).__name__


def _must_exist(path: Path) -> None:
    if not path.is_file():
        raise NotFoundError(f"no file {path}")
