"""Parts of an activations run: their content, writing and opening them.

A part is one Parquet file of documents (or windows of them) and, for each layer, one safetensors
file whose rows are in the order of the documents' kept positions.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch import Tensor

from mi_crow.causes import machine_error
from mi_crow.errors import CorruptDataError
from mi_crow.store.atomic import whole_file
from mi_crow.store.checksums import FileSum, SummingFile
from mi_crow.store.runs.layer_file import LayerFile, write_tensors
from mi_crow.store.runs.manifest import LayerSpec, PartSpec

DTYPES = {
    "fp32": torch.float32,
    "bf16": torch.bfloat16,
    "fp16": torch.float16,
    "int8": torch.int8,
}
HELDOUT = "heldout"
TOKENS = "tokens"  # the folder of the documents
_HINT = "capture the run again"
_NORM_TOLERANCE = 0.5  # relative error of a stored row's norm

DOCUMENT_SCHEMA = pa.schema(
    [
        ("document", pa.int64()),  # its number in the dataset
        ("window", pa.int32()),  # 0, 1, .. within the document
        ("text", pa.string()),  # of the window
        ("label", pa.string()),
        ("split", pa.string()),
        ("token_ids", pa.list_(pa.int32())),
        ("kept", pa.list_(pa.int32())),  # positions in `token_ids` that have a row
    ]
)


class StoredRows(NamedTuple):
    """Activations of n tokens in their stored form."""

    values: Tensor  # [n, d], storage dtype
    norms: Tensor  # [n] fp32: L2 norms of the rows before rounding
    scales: Tensor | None = None  # [n] fp32, for int8: a row is values * scale


def quantise(x: Tensor) -> tuple[Tensor, Tensor]:
    """Symmetric int8 with one scale per token: fp32 [n, d] to int8 [n, d] and fp32 scales [n].

    scale = max |x| / 127 and x is about values * scale; a row of zeros gets scale 0.
    """
    scales = x.abs().amax(dim=1) / 127
    # For a scale of 0, also of subnormal rows, the inverse is 0.
    inverse = torch.where(scales > 0, 1 / scales, 0.0).nan_to_num_(posinf=0.0)
    return (x * inverse[:, None]).round_().clamp_(-127, 127).to(torch.int8), scales


def stored_rows(x: Tensor, dtype: str) -> StoredRows:
    """fp32 rows [n, d] as a run of the given storage dtype stores them."""
    norms = row_norms(x)
    if dtype == "int8":
        values, scales = quantise(x.float())
        return StoredRows(values, norms, scales)
    return StoredRows(x.to(DTYPES[dtype]), norms)


def row_norms(rows: Tensor) -> Tensor:
    """L2 norm of each row of [n, d], computed in fp32: [n]."""
    return torch.linalg.vector_norm(rows, dim=1, dtype=torch.float32)


def write_part(
    run_dir: Path, part: PartSpec, documents: pa.Table, rows: Mapping[str, StoredRows]
) -> dict[str, FileSum]:
    """Writes the files of one part and returns their checksums by folder, for `PartSpec.files`; the
    part exists for readers once the manifest names it.

    `documents` follows DOCUMENT_SCHEMA; `rows` maps layer names to their CPU tensors, which are
    written without a copy. Norms and splits are stored beside them, so that training never reads
    the documents. Raises OSError, and ValueError when the number of rows does not match the
    documents.
    """
    flags = held_out(documents).astype(np.uint8)
    heldout = torch.from_numpy(np.repeat(flags, kept_lengths(documents)))
    files: dict[str, FileSum] = {}
    for layer, stored in rows.items():
        if len(stored.values) != len(heldout):
            raise ValueError(f"{len(stored.values)} rows for {len(heldout)} kept tokens")
        tensors = {"activations": stored.values, "norms": stored.norms, "heldout": heldout}
        if stored.scales is not None:
            tensors["scales"] = stored.scales
        target = run_dir / layer / f"{part.stem}.safetensors"
        with whole_file(target) as path, path.open("wb") as file:
            summing = SummingFile(file)
            write_tensors(summing.as_file(), tensors)
            files[layer] = summing.sum
    with whole_file(run_dir / TOKENS / f"{part.stem}.parquet") as path, path.open("wb") as file:
        summing = SummingFile(file)
        pq.write_table(documents, summing, compression="zstd")
        files[TOKENS] = summing.sum
    return files


def kept_lengths(documents: pa.Table) -> np.ndarray:
    """Kept tokens of each row of the table: int64 [rows]."""
    return np.diff(documents["kept"].combine_chunks().offsets.to_numpy()).astype(np.int64)


def held_out(documents: pa.Table) -> np.ndarray:
    """Which rows of the table are held out: bool [rows]."""
    return np.array([split == HELDOUT for split in documents["split"].to_pylist()], dtype=bool)


class Part(ABC):
    """Some documents, and activations of their kept tokens at one layer, stored or live."""

    @abstractmethod
    def __len__(self) -> int:
        """The number of rows, one per kept token."""

    @abstractmethod
    def take(self, index: slice | Tensor) -> Tensor:
        """Rows [m, d] for a slice or row numbers [m], floating point."""

    @property
    @abstractmethod
    def norms(self) -> Tensor:
        """L2 norms of the rows: [n] fp32, on the CPU."""

    @abstractmethod
    def columns(self, *names: str) -> pa.Table:
        """Some columns of `table`; the others are not read."""

    @cached_property
    def table(self) -> pa.Table:
        """The documents, see DOCUMENT_SCHEMA."""
        return self.columns(*DOCUMENT_SCHEMA.names)

    @cached_property
    def row_split(self) -> Tensor:
        """[n] bool: True where the document is held out."""
        return self._of_rows(held_out(self.columns("split")))

    @cached_property
    def table_row(self) -> Tensor:
        """[n] int64: the row of the table that each row belongs to."""
        return self._of_rows(np.arange(len(self.kept_counts)))

    @cached_property
    def row_document(self) -> Tensor:
        """[n] int64: the document each row belongs to, by its number in the dataset."""
        return self._of_rows(self.columns("document")["document"].to_numpy())

    @cached_property
    def row_window(self) -> Tensor:
        """[n] int32: the window of its document."""
        return self._of_rows(self.columns("window")["window"].to_numpy())

    @cached_property
    def row_position(self) -> Tensor:
        """[n] int64: its position in the token ids of its row of the table."""
        positions = self.columns("kept")["kept"].combine_chunks().flatten().to_numpy()
        return torch.from_numpy(positions.astype(np.int64))

    @cached_property
    def kept_counts(self) -> np.ndarray:
        """Kept tokens of each row of the table: int64."""
        return kept_lengths(self.columns("kept"))

    def _of_rows(self, of_documents: np.ndarray) -> Tensor:
        return torch.from_numpy(np.repeat(of_documents, self.kept_counts))


class RunPart(Part):
    """One part of one layer, read on demand; rows are memory-mapped."""

    def __init__(self, run_dir: Path, layer: LayerSpec, dtype: str, part: PartSpec) -> None:
        """Reads the header of the layer's file and a few rows. Raises CorruptDataError naming the
        file when it, or the documents' file, contradicts the manifest."""
        self.spec = part
        self.file: LayerFile = LayerFile(run_dir / layer.name / f"{part.stem}.safetensors")
        self._tokens_path = run_dir / TOKENS / f"{part.stem}.parquet"
        self._check_size(self.file.path, part.files.get(layer.name), self.file.size)
        self._check_size(self._tokens_path, part.files.get(TOKENS))
        n, fp32 = part.tokens, torch.float32
        self._expect("activations", DTYPES[dtype], (n, layer.width))
        self._expect("norms", fp32, (n,))
        if dtype == "int8":
            self._expect("scales", fp32, (n,))
        if "heldout" in self.file.places:  # files of the first format have none
            self._expect("heldout", torch.uint8, (n,))
        self._check_some_rows()

    def __len__(self) -> int:
        """The number of rows, one per kept token."""
        return self.spec.tokens

    def take(self, index: slice | Tensor) -> Tensor:
        """Rows [m, d] for a slice or row numbers [m]: in storage dtype, but fp32 for int8. A copy,
        except for a slice of a run that is not int8."""
        rows = self.stored(index)
        return rows.values if rows.scales is None else dequantised(rows.values, rows.scales)

    def stored(self, index: slice | Tensor) -> StoredRows:
        """The same rows in their stored form."""
        scales = None if self.scales is None else self.scales[index]
        return StoredRows(self._values[index], self.norms[index], scales)

    @cached_property
    def items(self) -> np.ndarray:
        """The stored rows, memory-mapped, as [n] items of a row's bytes."""
        return row_items(self._values)

    @cached_property
    def scales(self) -> Tensor | None:
        """[n] fp32, for int8."""
        return self.file.tensor("scales") if "scales" in self.file.places else None

    @cached_property
    def norms(self) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        """L2 norms of the rows: [n] fp32."""
        return self.file.tensor("norms")

    @cached_property
    def row_split(self) -> Tensor:
        """[n] bool: True where the document is held out."""
        if "heldout" in self.file.places:
            return self.file.read("heldout") != 0
        return self._of_rows(held_out(self.columns("split")))

    def columns(self, *names: str) -> pa.Table:
        """Some columns of `table`; no others are read. Raises CorruptDataError naming the file."""
        path = self._tokens_path
        schema = pa.schema([DOCUMENT_SCHEMA.field(name) for name in names])
        try:
            with pq.ParquetFile(path) as file:
                known = [name for name in names if name in file.schema_arrow.names]
                table = file.read(columns=known)
                if "window" in names and "window" not in known:  # the first format had none
                    windows = pa.array(np.zeros(file.metadata.num_rows, np.int32))
                    table = table.append_column("window", windows)
            return table.select(list(names)).cast(schema)
        except FileNotFoundError as error:
            raise CorruptDataError(f"{path} is missing", hint=_HINT) from error
        except (pa.ArrowException, OSError, KeyError, ValueError) as error:
            raise machine_error(error, path) or CorruptDataError(
                f"{path} is damaged ({error})", hint=_HINT
            ) from error

    @cached_property
    def kept_counts(self) -> np.ndarray:
        """Kept tokens of each row of the table: int64. Raises CorruptDataError when their number
        does not match the activations."""
        counts = kept_lengths(self.columns("kept"))
        if counts.sum() != len(self):
            raise CorruptDataError(
                f"{self._tokens_path} has {counts.sum():,} kept tokens, not {len(self):,}",
                hint=_HINT,
            )
        return counts

    @cached_property
    def _values(self) -> Tensor:
        return self.file.tensor("activations")

    def _check_size(self, path: Path, written: FileSum | None, size: int | None = None) -> None:
        """Raises CorruptDataError when a file does not have the size that was written."""
        if written is None:  # runs of former formats have no sizes
            return
        try:
            found = path.stat().st_size if size is None else size
        except FileNotFoundError as error:
            raise CorruptDataError(f"{path} is missing", hint=_HINT) from error
        if found != written.bytes:
            raise CorruptDataError(
                f"{path} is damaged (it has {found:,} bytes, {written.bytes:,} were written)",
                hint=_HINT,
            )

    def _check_some_rows(self) -> None:
        """Raises CorruptDataError when the norm of the last row or one in the middle is far from
        that stored: a power cut leaves files of the right size with zeros up to their end."""
        for row in {len(self) // 2, len(self) - 1} if len(self) else ():
            one = slice(row, row + 1)
            values, norms, scales = self.read_rows(one)
            found = float(row_norms(values if scales is None else dequantised(values, scales)))
            # Rounding to int8 may change a norm by a third; NaN fails too.
            if not abs(found - float(norms)) <= _NORM_TOLERANCE * float(norms):
                raise self.file.damaged(
                    f"row {row:,} has norm {found:.4g}, {float(norms):.4g} was written"
                )

    def read_rows(self, stretch: slice) -> StoredRows:
        """Rows read rather than mapped, so that unused parts are not kept mapped."""
        found: dict[str, Tensor] = {}
        for name in ("activations", "norms", "scales"):
            if (place := self.file.places.get(name)) is not None:
                with self.file.reading(name) as read:
                    content = torch.from_numpy(read(stretch).view(np.uint8).copy())
                shape = (stretch.stop - stretch.start, *place.shape[1:])
                found[name] = content.view(place.kind).view(shape)
        return StoredRows(found["activations"], found["norms"], found.get("scales"))

    def _expect(self, name: str, kind: torch.dtype, shape: tuple[int, ...]) -> None:
        place = self.file.places.get(name)
        if place is None:
            raise self.file.damaged(f"it has no {name}")
        if (place.kind, place.shape) != (kind, shape):
            found = f"{place.kind} {list(place.shape)}".removeprefix("torch.")
            wanted = f"{kind} {list(shape)}".removeprefix("torch.")
            raise self.file.damaged(f"{name!r} is {found}, not {wanted}")


def row_items(values: Tensor) -> np.ndarray:
    """Contiguous CPU rows [n, d] as [n] items of a row's bytes, sharing memory: NumPy copies such
    items whole, in one thread and without the GIL."""
    content = values.view(torch.uint8).numpy()
    return content.view(np.dtype((np.void, content.shape[1])))[:, 0]


def rows_of_items(items: np.ndarray, kind: torch.dtype) -> Tensor:
    """The rows [n, d] of [n] items from `row_items`, sharing memory."""
    content = items.view(np.uint8).reshape(len(items), items.itemsize)
    return torch.from_numpy(content).view(kind)


def dequantised(values: Tensor, scales: Tensor) -> Tensor:
    """fp32 rows [n, d] of int8 values [n, d] and scales [n], on the CPU.

    With NumPy, in one thread: while the trainer uses all cores, torch's threads wait for each other
    (30 ms for 2,048 rows instead of 0.2).
    """
    rows = values.numpy().astype(np.float32)
    rows *= scales.numpy()[:, None]
    return torch.from_numpy(rows)
