"""Parts of an activations run: written whole, read memory-mapped, shuffled by seed.

A part is one Parquet file of documents and, for each layer, one safetensors file whose rows stand
in the order of the documents' kept positions.
"""

from collections.abc import Iterator
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from mi_crow.errors import UserError
from mi_crow.store.manifest import RunManifest
from mi_crow.store.parts import (
    DOCUMENT_SCHEMA,
    DTYPES,
    HELDOUT,
    RunPart,
    StoredRows,
    quantise,
    row_norms,
    stored_rows,
    write_part,
)

__all__ = [
    "DOCUMENT_SCHEMA",
    "DTYPES",
    "HELDOUT",
    "RunPart",
    "RunReader",
    "StoredRows",
    "quantise",
    "row_norms",
    "stored_rows",
    "write_part",
]


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
            yield RunPart(self.run_dir, self.layer, self.manifest.dtype, part)

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
        kind = torch.float32 if self.manifest.dtype == "int8" else DTYPES[self.manifest.dtype]
        result = torch.empty(len(rows), self.width, dtype=kind)
        owner = np.searchsorted(self._starts, rows, side="right") - 1
        for number in np.unique(owner):
            places = np.flatnonzero(owner == number)
            local = rows[places] - self._starts[number]
            part = self._parts[number]
            result[torch.from_numpy(places)] = part.take(torch.from_numpy(local))
        return result


def _permuted(rows: np.ndarray, seed: int, epoch: int) -> np.ndarray:
    return rows[np.random.default_rng([seed, epoch]).permutation(len(rows))]
