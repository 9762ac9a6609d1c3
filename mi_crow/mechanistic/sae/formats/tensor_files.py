"""Files of named tensors, read one tensor at a time and without running any code in them.

Only complete, dense, named tensors are read. Whatever else such files can hold (records, objects,
nested data, shapes larger than the file) is refused by name.
"""

import math
import pickle
import struct
import tokenize
import warnings
import zipfile
import zlib
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, cast

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from mi_crow.causes import machine_error
from mi_crow.errors import CorruptDataError, NotFoundError, UserError
from mi_crow.mechanistic.sae.cross_layer.refs import Index, TensorRef
from mi_crow.mechanistic.sae.formats.sharded import parts_on_disk
from mi_crow.mechanistic.sae.formats.wrapped import tensors_within, without_prefix
from mi_crow.store.json_object import JsonObject

_AGAIN = "copy or download it again"
_OURS = ("encoder_rows", "b_enc", "W_dec", "b_dec")
_MATRICES = frozenset(
    [
        *("W_enc", "W_dec", "W_skip", "encoder.weight", "decoder.weight"),
        *("w_enc", "w_dec", "affine_skip_connection"),  # Gemma Scope 2
        *("W_E", "W_D"),  # Llamascopium
    ]
)
_MOST_SHARED = 64 << 20  # bytes by which a tensor may exceed its storage

# What zip archives, NumPy's header and torch's unpickler raise for invalid bytes.
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
    """The tensors of a safetensors file, which may be cut into parts; only headers are read.

    Raises NotFoundError for a missing file, CorruptDataError for an invalid or incomplete one.
    """
    found: dict[str, TensorRef] = {}
    for part in parts_on_disk(path):
        tensors = _read_one_safetensors(part)
        if twice := sorted(found.keys() & tensors.keys()):
            raise CorruptDataError(f"{path.parent} holds {twice[0]} twice", hint=_AGAIN)
        found |= tensors
    return without_prefix(found)


def _read_one_safetensors(path: Path) -> dict[str, TensorRef]:
    _must_exist(path)

    @contextmanager
    def opened() -> Iterator[Any]:
        try:
            with safe_open(path, framework="pt") as file:
                yield file
        except (SafetensorError, OSError, ValueError, RuntimeError, MemoryError) as error:
            raise machine_error(error, path) or CorruptDataError(
                f"{path} is not a complete safetensors file ({_short(error)})", hint=_AGAIN
            ) from error

    with opened() as file:
        shapes = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118 (not a dict)

    def one(name: str) -> Tensor:
        with opened() as file:
            return file.get_tensor(name)

    def part(name: str, index: Index) -> Tensor:
        # As ranges of one, which every version of safetensors takes, and then without them.
        ranges = tuple(slice(at, at + 1) if isinstance(at, int) else at for at in index)
        with opened() as file:
            found: Tensor = file.get_slice(name)[ranges]
        return found[tuple(0 if isinstance(at, int) else slice(None) for at in index)]

    return {
        name: TensorRef(
            shape, lambda name=name: one(name), lambda at, name=name: part(name, at), path
        )
        for name, shape in shapes.items()
    }


def read_npz(path: Path) -> dict[str, TensorRef]:
    """The arrays of an .npz file; only their headers are read, and never pickled objects.

    Raises NotFoundError for a missing file, UserError for arrays of objects, CorruptDataError for
    an invalid file, arrays of records, or a shape that does not match the bytes.
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

    return {
        name: TensorRef(shape, lambda name=name: one(name), source=path)
        for name, shape in shapes.items()
    }


@contextmanager
def _archive(path: Path) -> Iterator[zipfile.ZipFile]:
    try:
        with zipfile.ZipFile(path) as archive:
            yield archive
    except (*_BROKEN_ZIP, *_BROKEN_NPY, OSError, KeyError, RuntimeError) as error:
        raise machine_error(error, path) or CorruptDataError(
            f"{path} is not a complete .npz file ({_short(error)})", hint=_AGAIN
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
        raise UserError(f"{path} holds Python objects in {name!r}, which are never read")
    if kind.kind not in "fiub" or kind.itemsize > 8:
        raise CorruptDataError(f"{path} holds {_short(kind)} for {name}, not weights")
    if any(type(one) is not int or one < 0 for one in shape):
        raise CorruptDataError(f"{path} has the shape {_short(shape)} for {name}", hint=_AGAIN)
    if size - file.tell() != math.prod(shape) * kind.itemsize:
        raise CorruptDataError(
            f"{path} holds {size - file.tell():,} bytes for {name}, which does not match its shape "
            f"{_short(shape)}",
            hint=_AGAIN,
        )
    return shape


def read_torch(path: Path) -> Mapping[str, Any]:
    """The object that `torch.save` wrote, if it maps names to plain data and tensors.

    Tensors are memory-mapped where the file allows it. Raises UserError for a file that could run
    code or holds anything else, CorruptDataError for an invalid file.
    """
    _must_exist(path)
    try:
        found = _torch_load(path)
    except pickle.UnpicklingError as error:
        raise UserError(
            f"{path} is refused: it holds more than tensors, and loading it could run code",
            hint="ask for a file of plain tensors, preferably as safetensors",
        ) from error
    except _BROKEN_TORCH as error:
        raise machine_error(error, path) or CorruptDataError(
            f"{path} is not a complete file written by torch.save", hint=_AGAIN
        ) from error
    if not isinstance(found, Mapping):
        raise UserError(f"{path} holds a {type(found).__name__}, not named tensors")
    check_plain(found, path)
    inside = tensors_within(found)
    check_plain(inside, path)
    return without_prefix(inside)


def check_plain(found: Mapping[Any, Any], path: Path) -> None:
    """Raises UserError for names that are not strings and tensors that are not plain arrays."""
    for name, value in found.items():
        if not isinstance(name, str):
            raise UserError(f"{path} holds the name {_short(name)}, which is not a string")
        if isinstance(value, Tensor):
            _check_dense(value, name, path)


def _check_dense(tensor: Tensor, name: str, path: Path) -> None:
    plain = tensor.layout is torch.strided and tensor.device.type == "cpu"
    if not plain or tensor.is_quantized or tensor.is_nested:
        raise UserError(
            f"{path} holds {name}, which is not a plain tensor (sparse, quantized or without data)"
        )
    if tensor.nbytes > tensor.untyped_storage().nbytes() + _MOST_SHARED:
        raise UserError(
            f"{path} has the shape {tuple(tensor.shape)} for {name}, but not that many bytes"
        )


def _torch_load(path: Path) -> Any:
    # Files from before torch 1.6 are not zip archives and cannot be mapped.
    mapped = zipfile.is_zipfile(path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # on pickle protocols, before it refuses them
        return torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)


def refs(tensors: Mapping[str, Tensor]) -> dict[str, TensorRef]:
    """References to tensors that are in memory (or mapped)."""
    return {name: TensorRef.of(tensor) for name, tensor in tensors.items()}


def tensors_of(found: Mapping[str, Any], names: Collection[str], path: Path) -> dict[str, Tensor]:
    """Those of `names` that exist. Raises UserError for one that is not a tensor."""
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
    """Raises UserError naming the tensors that are missing or unknown to the format."""
    missing = [name for name in required if name not in found]
    unknown = sorted(set(found) - set(required) - set(optional))
    if missing or unknown:
        said = [f"has no {', '.join(missing)}"] if missing else []
        said += [f"holds {listed(unknown)}, which is not known there"] if unknown else []
        raise UserError(
            f"{path} is not what {format_name} writes: it {' and '.join(said)}",
            hint=f"expected tensors: {', '.join(required)}",
        )


def check_tensors(
    found: Mapping[str, TensorRef],
    required: Collection[str],
    path: Path,
    format_name: str,
    optional: Collection[str] = (),
) -> None:
    """The same; also raises CorruptDataError for a matrix without two dimensions, another tensor
    with more than one, and an empty tensor."""
    check_names(found, required, path, format_name, optional)
    for name, ref in found.items():
        right = len(ref.shape) == 2 if name in _MATRICES else len(ref.shape) <= 1
        if not right or 0 in ref.shape:
            wanted = "a matrix" if name in _MATRICES else "a vector"
            raise CorruptDataError(f"{path} holds {ref.shape} for {name}, which must be {wanted}")


def named_tensors(
    found: Mapping[str, Any], names: Collection[str], path: Path, format_name: str
) -> dict[str, TensorRef]:
    """The tensors `names`, which are all that a torch file may hold. Raises what `check_names`,
    `tensors_of` and `check_tensors` do."""
    check_names(found, names, path, format_name)
    tensors = refs(tensors_of(found, names, path))
    check_tensors(tensors, names, path, format_name)
    return tensors


def check_all_there(folder: Path, wanted: Collection[str], there: Collection[str]) -> None:
    """Raises CorruptDataError naming files of a set that are missing."""
    if missing := sorted({*wanted} - {*there}):
        raise CorruptDataError(f"{folder} has no {', '.join(missing)}", hint="copy it again")


def check_decoders(ref: TensorRef, layers: int, name: str, path: Path) -> None:
    """Raises CorruptDataError unless a tensor has a decoder [latents, width] for each of this many
    layers, in the middle."""
    if len(ref.shape) != 3 or ref.shape[1] != layers or 0 in ref.shape:
        raise CorruptDataError(
            f"{path} holds {ref.shape} for {name}, which must be [latents, {layers} layers, width]"
        )


def by_our_names(
    found: Mapping[str, TensorRef], names: Sequence[str], *, transposed: Collection[str] = ()
) -> dict[str, TensorRef]:
    """The encoder's matrix and bias and the decoder's, which a format calls `names`, in this order,
    by our names. `transposed`: those of ours that the file has the other way round."""
    return {
        ours: found[theirs].t() if ours in transposed else found[theirs]
        for ours, theirs in zip(_OURS, names, strict=False)
    }


def check_fixed(cfg: JsonObject, fixed: Mapping[str, Any]) -> None:
    """Raises UserError for a key with another value than the only one that is supported; keys may
    be missing."""
    for key, known in fixed.items():
        found = cfg.values.get(key, known)
        if found != known or type(found) is not type(known):
            raise UserError(f"{cfg.place} has {key} = {found!r}, which cannot be read")


def check_sizes(cfg: JsonObject, sizes: Mapping[str, int]) -> None:
    """Raises CorruptDataError where the configuration gives another size than the weights have;
    `sizes` are theirs by its keys, which may be missing."""
    for key, size in sizes.items():
        if cfg.integer(key, size) != size:
            raise CorruptDataError(
                f"{cfg.place} says {key} = {cfg.values[key]}, the weights {size}"
            )


def listed(names: Sequence[str], most: int = 12) -> str:
    """Names of tensors for a sentence, some of them where they are many."""
    shown = [name if name.isprintable() else repr(name) for name in names[:most]]
    return ", ".join(shown) + (", ..." if len(names) > most else "")


def _short(what: Any) -> str:
    """The first line of an error or value, shortened."""
    return (str(what).splitlines() or [type(what).__name__])[0][:120] or type(what).__name__


def _must_exist(path: Path) -> None:
    if not path.is_file():
        raise NotFoundError(f"no file {path}")
