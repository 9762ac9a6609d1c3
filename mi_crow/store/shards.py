"""Parts of an activations run: written whole, read memory-mapped, shuffled by seed.

A part is one Parquet file of documents and, for each layer, one safetensors file whose rows stand
in the order of the documents' kept positions.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from mi_crow.errors import CorruptDataError, UserError
from mi_crow.store.atomic import whole_file
from mi_crow.store.manifest import PartSpec, RunManifest

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
HELDOUT = "heldout"

DOCUMENT_SCHEMA = pa.schema(
    [
        ("document", pa.int64()),
        ("text", pa.string()),
        ("label", pa.string()),
        ("split", pa.string()),
        ("token_ids", pa.list_(pa.int32())),
        ("kept", pa.list_(pa.int32())),
    ]
)


def write_part(
    run_dir: Path, part: PartSpec, documents: pa.Table, activations: Mapping[str, Tensor]
) -> None:
    """Writes the files of one part; it exists for readers once the manifest names it.

    `activations` maps layer names to [tokens, d] in storage dtype; each row's L2 norm, taken in
    fp32, is stored beside it, so that massive tokens are found without reading the rows.
    """
    for layer, rows in activations.items():
        with whole_file(run_dir / layer / f"{part.stem}.safetensors") as path:
            save_file({"activations": rows.contiguous(), "norms": row_norms(rows)}, path)
    with whole_file(run_dir / "tokens" / f"{part.stem}.parquet") as path:
        pq.write_table(documents, path, compression="zstd")


def row_norms(rows: Tensor) -> Tensor:
    """L2 norm of each row of [n, d], taken in fp32: [n]. Works in pieces, to hold no fp32 copy."""
    pieces = [torch.linalg.vector_norm(piece.float(), dim=1) for piece in rows.split(4096)]
    return torch.cat(pieces) if pieces else torch.empty(0)


@dataclass(frozen=True)
class RunPart:
    """One part of one layer, rows memory-mapped."""

    table: pa.Table  # one row a document, see DOCUMENT_SCHEMA
    activations: Tensor  # [n, d], storage dtype
    norms: Tensor  # [n] fp32
    row_document: Tensor  # [n] int64: the document each row belongs to
    row_position: Tensor  # [n] int64: its position among the document's token ids
    row_split: Tensor  # [n] bool: True where the document is held out


class RunReader:
    """One layer of a run, memory-mapped: opening it reads no activations."""

    def __init__(self, run_dir: Path, layer: str) -> None:
        """Raises NotFoundError for a layer that the run lacks, UserError for a run without
        tokens."""
        self.run_dir = run_dir
        self.manifest = RunManifest.load(run_dir)
        self.layer = self.manifest.layer(layer)
        if not self.manifest.n_tokens:
            raise UserError(f"run {self.manifest.run_id!r} holds no tokens", hint="capture again")

    @property
    def width(self) -> int:
        return self.layer.width

    @property
    def n_tokens(self) -> int:
        return self.manifest.n_tokens

    def parts(self) -> Iterator[RunPart]:
        """The parts in order. Raises CorruptDataError naming a file that is not what it should
        be."""
        for part in self.manifest.parts:
            yield self._open(part)

    def median_norm(self) -> float:
        """Median L2 norm over all kept tokens."""
        return float(torch.cat([part.norms for part in self._parts]).median())

    def batches(
        self,
        batch_size: int,
        seed: int,
        split: str = "train",
        max_norm: float | None = None,
        start: int = 0,
    ) -> Iterator[Tensor]:
        """Endless batches [batch_size, d] of tokens shuffled over the whole run.

        Batch i is a function of (seed, i) alone: an epoch is a permutation drawn from (seed,
        epoch), and batches run on across epochs; so `start=i` goes on exactly.
        """
        rows = self._rows(split, max_norm)
        if not len(rows):
            raise UserError(
                f"run {self.manifest.run_id!r} holds no {split} tokens", hint="capture more texts"
            )
        position, epoch, order = start * batch_size, -1, rows
        while True:
            pieces, wanted = [], batch_size
            while wanted:
                now, offset = divmod(position, len(rows))
                if now != epoch:
                    epoch, order = now, _permuted(rows, seed, now)
                pieces.append(order[offset : offset + wanted])
                wanted -= len(pieces[-1])
                position += len(pieces[-1])
            yield self._gather(np.concatenate(pieces))

    def sample(
        self, n: int, seed: int, split: str = "train", max_norm: float | None = None
    ) -> Tensor:
        """At most `n` tokens [<= n, d], drawn by `seed`, in the order of the run."""
        rows = self._rows(split, max_norm)
        # An epoch that training never reaches, so that the draw is independent of its order.
        return self._gather(np.sort(_permuted(rows, seed, 2**40)[:n]))

    @cached_property
    def _parts(self) -> list[RunPart]:
        return list(self.parts())

    @cached_property
    def _starts(self) -> np.ndarray:
        """Number of the first row of each part, and the total."""
        return np.cumsum([0] + [part.norms.numel() for part in self._parts])

    def _rows(self, split: str, max_norm: float | None) -> np.ndarray:
        heldout = torch.cat([part.row_split for part in self._parts])
        keep = heldout if split == HELDOUT else ~heldout
        if max_norm is not None:
            keep = keep & (torch.cat([part.norms for part in self._parts]) <= max_norm)
        return keep.numpy().nonzero()[0]

    def _gather(self, rows: np.ndarray) -> Tensor:
        """The given rows of the run: [len(rows), d], each part read in ascending order."""
        result = torch.empty(len(rows), self.width, dtype=DTYPES[self.manifest.dtype])
        owner = np.searchsorted(self._starts, rows, side="right") - 1
        for number in np.unique(owner):
            places = np.flatnonzero(owner == number)
            local = rows[places] - self._starts[number]
            part = self._parts[number].activations
            result[torch.from_numpy(places)] = part[torch.from_numpy(local)]
        return result

    def _open(self, part: PartSpec) -> RunPart:
        tokens = self.run_dir / "tokens" / f"{part.stem}.parquet"
        rows = self.run_dir / self.layer.name / f"{part.stem}.safetensors"
        try:
            table = pq.read_table(tokens)
            with safe_open(rows, framework="pt") as file:
                activations = file.get_tensor("activations")
                norms = file.get_tensor("norms")
        except FileNotFoundError as error:
            raise CorruptDataError(
                f"run {self.manifest.run_id!r} lacks {error.filename or rows}", hint="capture again"
            ) from error
        except (SafetensorError, pa.ArrowException, OSError) as error:
            raise CorruptDataError(
                f"{rows} or {tokens.name} is damaged ({error})", hint="capture again"
            ) from error
        lengths = np.diff(table["kept"].combine_chunks().offsets.to_numpy())
        if activations.shape != (part.tokens, self.width) or lengths.sum() != part.tokens:
            raise CorruptDataError(
                f"{rows} holds {list(activations.shape)}, not [{part.tokens}, {self.width}]",
                hint="capture again",
            )
        documents = np.array(table["document"].to_numpy())
        heldout = np.array(table["split"].to_pylist()) == HELDOUT
        return RunPart(
            table,
            activations,
            norms,
            torch.from_numpy(np.repeat(documents, lengths)),
            torch.from_numpy(table["kept"].combine_chunks().values.to_numpy().astype(np.int64)),
            torch.from_numpy(np.repeat(heldout, lengths)),
        )


def _permuted(rows: np.ndarray, seed: int, epoch: int) -> np.ndarray:
    return rows[np.random.default_rng([seed, epoch]).permutation(len(rows))]
