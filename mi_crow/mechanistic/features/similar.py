"""The nearest features of another SAE by decoder cosine. Torch-free.

The rows are read from `sae_weights.safetensors` a block at a time. The bytes are read as they are
in the file: the NumPy reader of safetensors does not support bfloat16.
"""

import mmap
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mi_crow.causes import machine_error
from mi_crow.errors import CorruptDataError, NotFoundError, UserError
from mi_crow.mechanistic.features.records import Neighbour
from mi_crow.mechanistic.sae.fitting import check_has_feature
from mi_crow.store.safetensors_header import HeaderError, read_header

_DTYPES = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2"}
_BLOCK_BYTES = 16 << 20
_DECODER = "W_dec"


@dataclass(frozen=True)
class DecoderRows:
    """The decoder of one SAE on disk: [features, width]."""

    sae_id: str
    values: np.ndarray  # mapped from the file
    is_bf16: bool

    @classmethod
    def open(cls, folder: Path, sae_id: str) -> "DecoderRows":
        """Maps the decoder of the SAE in `folder`. Raises NotFoundError, CorruptDataError."""
        path = folder / "sae_weights.safetensors"
        try:
            with path.open("rb") as file:
                header, begin = read_header(file, str(path))
            entry = header[_DECODER]
            first, last = entry["data_offsets"]
            rows, width = (int(n) for n in entry["shape"])
            dtype = np.dtype(_DTYPES[entry["dtype"]])
            if last - first != rows * width * dtype.itemsize:
                raise ValueError(f"{_DECODER} is cut")
            values = np.memmap(path, dtype, "r", begin + first, (rows, width))
        except FileNotFoundError as error:
            raise NotFoundError(f"SAE {sae_id!r} has no weights in its folder") from error
        except (OSError, HeaderError, ValueError, KeyError, TypeError) as error:
            raise machine_error(error, path) or CorruptDataError(
                f"the decoder of SAE {sae_id!r} cannot be read ({error!r})"
            ) from error
        return cls(sae_id, values, entry["dtype"] == "BF16")

    def release(self) -> None:
        """Gives back the memory of what was read; the system keeps it as long as it has room."""
        mapped = getattr(self.values, "_mmap", None)
        if mapped is not None and hasattr(mmap, "MADV_DONTNEED"):
            mapped.madvise(mmap.MADV_DONTNEED)

    def rows(self, first: int, last: int) -> np.ndarray:
        """float32 [last - first, width]."""
        some = self.values[first:last]
        if self.is_bf16:  # bfloat16 is the upper half of a float32
            return (some.astype(np.uint32) << np.uint32(16)).view(np.float32)
        return some.astype(np.float32)


def similar_features(
    ours: DecoderRows, feature: int, theirs: DecoderRows, count: int = 10
) -> list[Neighbour]:
    """The `count` features of `theirs` with the highest decoder cosine to one of `ours`, highest
    first, ties by number.

    Rows of zero length have no direction and never appear. Raises UserError when the layers have
    different widths or the feature has no direction, NotFoundError for an unknown feature.
    """
    width, other = ours.values.shape[1], theirs.values.shape[1]
    if width != other:
        raise UserError(
            f"the decoder of {ours.sae_id!r} is {width} wide, that of {theirs.sae_id!r} {other}",
            hint="compare SAEs of layers of the same width",
        )
    check_has_feature(feature, ours.sae_id, len(ours.values))
    [direction] = ours.rows(feature, feature + 1).astype(np.float64)
    length = np.linalg.norm(direction)
    if not length > 0:
        raise UserError(f"feature {feature} of {ours.sae_id!r} has no decoder direction")
    cosines = _cosines(theirs, (direction / length).astype(np.float32))
    order = np.argsort(-cosines, kind="stable")[:count]
    return [Neighbour(int(n), float(cosines[n])) for n in order if np.isfinite(cosines[n])]


def _cosines(theirs: DecoderRows, direction: np.ndarray) -> np.ndarray:
    """float32 [features]; -inf for a row of zero length or with values that are not finite."""
    total, width = theirs.values.shape
    step = max(1, _BLOCK_BYTES // (4 * max(width, 1)))
    cosines = np.full(total, -np.inf, dtype=np.float32)
    for first in range(0, total, step):
        rows = theirs.rows(first, min(first + step, total))
        lengths = np.sqrt(np.einsum("ij,ij->i", rows, rows))
        known = (lengths > 0) & np.isfinite(lengths)
        cosines[first : first + len(rows)][known] = (rows @ direction)[known] / lengths[known]
        theirs.release()
    return cosines
