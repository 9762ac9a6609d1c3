"""The nearest features of another SAE by decoder cosine. Torch-free.

The rows are read from `sae_weights.safetensors` a block at a time. The bytes are read as they are
in the file: the NumPy reader of safetensors does not support bfloat16.
"""

import json
import mmap
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from mi_crow.causes import machine_error
from mi_crow.errors import CorruptDataError, NotFoundError, UserError
from mi_crow.mechanistic.features.records import Neighbour
from mi_crow.mechanistic.sae.fitting import check_has_feature
from mi_crow.store.safetensors_header import HeaderError, read_header

_DTYPES = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2"}
_BLOCK_BYTES = 16 << 20
_DECODER = "W_dec"
_ADDS_UP = "cross_layer_transcoder"  # each latent writes to several layers of one stream


@dataclass(frozen=True)
class MappedRows:
    """One tensor on disk: [features, width]."""

    values: np.ndarray  # mapped from the file
    is_bf16: bool

    @classmethod
    def open(cls, path: Path, entry: Mapping[str, Any], begin: int) -> "MappedRows":
        """Raises ValueError, KeyError or TypeError for an entry that cannot be one."""
        first, last = entry["data_offsets"]
        rows, width = (int(n) for n in entry["shape"])
        dtype = np.dtype(_DTYPES[entry["dtype"]])
        if last - first != rows * width * dtype.itemsize:
            raise ValueError(f"{_DECODER} is cut")
        values = np.memmap(path, dtype, "r", begin + first, (rows, width))
        return cls(values, entry["dtype"] == "BF16")

    def rows(self, first: int, last: int) -> np.ndarray:
        """float32 [last - first, width]."""
        some = self.values[first:last]
        if self.is_bf16:  # bfloat16 is the upper half of a float32
            return (some.astype(np.uint32) << np.uint32(16)).view(np.float32)
        return some.astype(np.float32)


@dataclass(frozen=True)
class DecoderRows:
    """The decoder of one SAE on disk: [features, width]. Of an SAE over several layers what
    `decoder_rows` is: of a crosscoder the rows of the last layer, of a transcoder the sum of all
    that a latent adds to the stream."""

    sae_id: str
    parts: tuple[tuple[MappedRows, ...], ...]  # of consecutive features: what is added up

    @classmethod
    def open(cls, folder: Path, sae_id: str) -> "DecoderRows":
        """Maps the decoder of the SAE in `folder`. Raises NotFoundError, CorruptDataError."""
        path = folder / "sae_weights.safetensors"
        try:
            with path.open("rb") as file:
                header, begin = read_header(file, str(path))
            names = [[_DECODER]] if _DECODER in header else _over_layers(folder)
            parts = tuple(
                tuple(MappedRows.open(path, header[name], begin) for name in some) for some in names
            )
            shapes = [one.values.shape for some in parts for one in some]
            if len({width for _, width in shapes}) != 1:
                raise ValueError("the layers have different widths")
        except FileNotFoundError as error:
            raise NotFoundError(f"SAE {sae_id!r} has no weights in its folder") from error
        except (OSError, HeaderError, ValueError, LookupError, TypeError) as error:
            raise machine_error(error, path) or CorruptDataError(
                f"the decoder of SAE {sae_id!r} cannot be read ({error!r})"
            ) from error
        return cls(sae_id, parts)

    def __len__(self) -> int:
        return sum(len(some[0].values) for some in self.parts)

    @property
    def width(self) -> int:
        return self.parts[0][0].values.shape[1]

    def release(self) -> None:
        """Gives back the memory of what was read; the system keeps it as long as it has room."""
        for one in chain.from_iterable(self.parts):
            mapped = getattr(one.values, "_mmap", None)
            if mapped is not None and hasattr(mmap, "MADV_DONTNEED"):
                mapped.madvise(mmap.MADV_DONTNEED)

    def rows(self, first: int, last: int) -> np.ndarray:
        """float32 [last - first, width]."""
        found, begin = [np.zeros((0, self.width), dtype=np.float32)], 0
        for some in self.parts:
            end = begin + len(some[0].values)
            here = max(first, begin) - begin, min(last, end) - begin
            if here[0] < here[1]:
                own = some[0].rows(*here)
                for one in some[1:]:
                    own += one.rows(*here)
                found.append(own)
            begin = end
        return np.concatenate(found)


def _over_layers(folder: Path) -> list[list[str]]:
    """The tensors of an SAE over several layers, by the layer of the latents, whose rows are added
    up. Raises ValueError, KeyError or TypeError for what is none."""
    config = json.loads((folder / "cfg.json").read_text())
    layers = config["layers"]
    last = layers[-1]["number"]
    if config.get("shared"):
        return [[f"{_DECODER}.{last}.{last}"]]
    adds_up = config["architecture"] == _ADDS_UP
    return [
        [f"{_DECODER}.{one['number']}.{to}" for to in (one["writes_to"] if adds_up else [last])]
        for one in layers
    ]


def similar_features(
    ours: DecoderRows, feature: int, theirs: DecoderRows, count: int = 10
) -> list[Neighbour]:
    """The `count` features of `theirs` with the highest decoder cosine to one of `ours`, highest
    first, ties by number.

    Rows of zero length have no direction and never appear. Raises UserError when the layers have
    different widths or the feature has no direction, NotFoundError for an unknown feature.
    """
    width, other = ours.width, theirs.width
    if width != other:
        raise UserError(
            f"the decoder of {ours.sae_id!r} is {width} wide, that of {theirs.sae_id!r} {other}",
            hint="compare SAEs of layers of the same width",
        )
    check_has_feature(feature, ours.sae_id, len(ours))
    [direction] = ours.rows(feature, feature + 1).astype(np.float64)
    length = np.linalg.norm(direction)
    if not length > 0:
        raise UserError(f"feature {feature} of {ours.sae_id!r} has no decoder direction")
    cosines = _cosines(theirs, (direction / length).astype(np.float32))
    order = np.argsort(-cosines, kind="stable")[:count]
    return [Neighbour(int(n), float(cosines[n])) for n in order if np.isfinite(cosines[n])]


def _cosines(theirs: DecoderRows, direction: np.ndarray) -> np.ndarray:
    """float32 [features]; -inf for a row of zero length or with values that are not finite."""
    total, width = len(theirs), theirs.width
    step = max(1, _BLOCK_BYTES // (4 * max(width, 1)))
    cosines = np.full(total, -np.inf, dtype=np.float32)
    for first in range(0, total, step):
        rows = theirs.rows(first, min(first + step, total))
        lengths = np.sqrt(np.einsum("ij,ij->i", rows, rows))
        known = (lengths > 0) & np.isfinite(lengths)
        cosines[first : first + len(rows)][known] = (rows @ direction)[known] / lengths[known]
        theirs.release()
    return cosines
