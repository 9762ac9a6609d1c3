"""Reading one layer of an activations run: whole parts, shuffled batches, samples.

Opening a run only reads its manifest. Rows are selected by the norms and splits stored beside
them; the documents are read only when they are asked for.
"""

from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from mi_crow.background import read_ahead
from mi_crow.errors import UserError
from mi_crow.store.runs.blocks import (
    BLOCKS_AT_ONCE,
    cut_batches,
    cut_chunks,
    plans_from,
    read_blocks,
)
from mi_crow.store.runs.manifest import LayerSpec, RunManifest
from mi_crow.store.runs.parts import DTYPES, HELDOUT, RunPart, dequantised, row_items
from mi_crow.store.runs.reads import EVERY_ROW, Reads

BUFFER_BYTES = 512 << 20
_CHUNK_BYTES = 256 << 10  # a read that is long enough for any disk; hundreds make a block
_MIN_CHUNKS_IN_BLOCK = 64
_SELECTIONS_KEPT = 4
_ROWS_KEPT = 1 << 24  # at eight bytes each
_SAMPLE_EPOCH = 2**40  # never reached by training, so that a sample is not its first batches


@dataclass(frozen=True)
class Selection:
    """Which rows of a run are selected."""

    split: str
    masks: tuple[np.ndarray, ...]  # for each part: bool [rows]
    ends: np.ndarray  # [parts + 1]: how many are selected before each part, and in total

    @property
    def count(self) -> int:
        return int(self.ends[-1])

    def rows(self, number: int) -> np.ndarray:
        """The selected rows of a part: int64, ascending; cached unless they are too many."""
        if number in self._rows:
            return self._rows[number]
        found = np.flatnonzero(self.masks[number])
        if self.count <= _ROWS_KEPT:
            self._rows[number] = found
        return found

    @cached_property
    def _rows(self) -> dict[int, np.ndarray]:
        return {}


class RunReader:
    """One layer of a run, and a source of training tokens. Opening it reads no part."""

    live = False  # see `TokenSource`

    def __init__(self, run_dir: Path, layer: str, buffer_bytes: int = BUFFER_BYTES) -> None:
        """Runs of which more than `buffer_bytes` are selected are shuffled in blocks that together
        take that much memory.

        Raises NotFoundError for a layer that the run lacks, UserError for a run without tokens.
        """
        self.run_dir = run_dir
        self.manifest: RunManifest = RunManifest.load(run_dir)
        self.layer: LayerSpec = self.manifest.layer(layer)
        if not self.manifest.n_tokens:
            raise UserError(f"run {self.manifest.run_id!r} has no tokens", hint="capture again")
        self._kind = DTYPES[self.manifest.dtype]
        self._compact = self.manifest.dtype == "int8"
        self.row_bytes: int = self.width * self._kind.itemsize + 4 * self._compact
        self._buffer_bytes = buffer_bytes
        self._selections: dict[tuple[bool, float | None], Selection] = {}

    @property
    def width(self) -> int:
        return self.layer.width

    @property
    def n_tokens(self) -> int:
        return self.manifest.n_tokens

    def parts(self, first: int = 0, step: int = 1) -> Iterator[RunPart]:
        """The parts in the order of the manifest, every `step`-th from `first` on, opened one by
        one.

        Raises CorruptDataError naming a file that does not match the manifest.
        """
        for part in self.manifest.parts[first::step]:
            yield RunPart(self.run_dir, self.layer, self.manifest.dtype, part)

    def count(self, split: str = "train", max_norm: float | None = None) -> int:
        """Number of tokens of a split with an L2 norm of at most `max_norm`."""
        return self.select(split, max_norm).count

    def median_norm(self) -> float:
        """Median L2 norm over all kept tokens (the lower one of two), exact."""
        return median_of(self.stored_norms, self.n_tokens)

    def stored_norms(self) -> Iterator[np.ndarray]:
        """The norms of each part, fp32. Read rather than mapped: of a large run nothing of them is
        to stay in memory."""
        for part in self._parts:
            yield part.file.read("norms").numpy()

    def batches(
        self,
        batch_size: int,
        seed: int,
        split: str = "train",
        max_norm: float | None = None,
        start: int = 0,
        reads: Reads = EVERY_ROW,
    ) -> Iterator[Tensor]:
        """Endless shuffled batches [batch_size, d], beginning with batch `start`, in storage dtype
        (int8 runs in fp32); of each the rows that `reads` names, and no others are read.

        Batch i is a function of (seed, i) only, so `start=i` resumes exactly. Each epoch gives
        every selected row once, and batches span epochs. Rows that fit the buffer are permuted as a
        whole; a larger run is cut into blocks of random chunks, the next one read while the last is
        used. Raises UserError when no row is selected.
        """
        selection = self.select(split, max_norm)
        return self.selected_batches(selection, batch_size, seed, start, self.row_bytes, reads)

    def sample(
        self, n: int, seed: int, split: str = "train", max_norm: float | None = None
    ) -> Tensor:
        """A random sample of at most `n` tokens [<= n, d], in the order of the run."""
        return self.selected_sample(self.select(split, max_norm), n, seed, self.row_bytes)

    # What `PairReader` and `JoinedTokens` do for each of their layers: the rows of one selection,
    # cut by the bytes that one row takes of all layers together.

    def selected_batches(
        self,
        selection: Selection,
        batch_size: int,
        seed: int,
        start: int,
        row_bytes: int,
        reads: Reads = EVERY_ROW,
    ) -> Iterator[Tensor]:
        """`batches` of a selection."""
        if not selection.count:
            raise UserError(
                f"run {self.manifest.run_id!r} has no {selection.split} tokens",
                hint="capture more texts",
            )
        if self._fits(selection, row_bytes):
            return self._permuted_batches(selection, batch_size, seed, start, reads)
        return self._block_batches(selection, batch_size, seed, start, row_bytes, reads)

    def selected_sample(self, selection: Selection, n: int, seed: int, row_bytes: int) -> Tensor:
        """`sample` of a selection."""
        total, random = selection.count, np.random.default_rng([seed, _SAMPLE_EPOCH])
        if self._fits(selection, row_bytes):
            chosen = random.permutation(total)[:n]
        else:
            chosen = random.choice(total, min(n, total), replace=False, shuffle=False)
        return self._gather(np.sort(chosen), selection)

    def row_splits(self) -> Iterator[np.ndarray]:
        """For each part which of its rows are of held-out documents: bool."""
        for part in self._parts:
            yield part.row_split.numpy()

    @cached_property
    def _parts(self) -> list[RunPart]:
        return list(self.parts())

    def _fits(self, selection: Selection, row_bytes: int) -> bool:
        return selection.count * row_bytes <= self._buffer_bytes

    def select(self, split: str, max_norm: float | None) -> Selection:
        """The rows of a split with an L2 norm of at most `max_norm`."""
        key = (split == HELDOUT, max_norm)
        if key not in self._selections:
            masks = tuple(_mask(part, *key) for part in self._parts)
            ends = np.cumsum([0, *(int(mask.sum()) for mask in masks)])
            while len(self._selections) >= _SELECTIONS_KEPT:
                self._selections.pop(next(iter(self._selections)))
            self._selections[key] = Selection(split, masks, ends)
        return self._selections[key]

    def _permuted_batches(
        self, selection: Selection, batch_size: int, seed: int, start: int, reads: Reads
    ) -> Iterator[Tensor]:
        own = reads.of(batch_size)
        position, epoch, order = start * batch_size, -1, np.empty(0, np.int64)
        while True:
            pieces, wanted = [], batch_size
            while wanted:
                now, offset = divmod(position, selection.count)
                if now != epoch:
                    epoch = now
                    order = np.random.default_rng([seed, now]).permutation(selection.count)
                pieces.append(order[offset : offset + wanted])
                wanted -= len(pieces[-1])
                position += len(pieces[-1])
            yield self._gather(np.concatenate(pieces)[own], selection, reads)

    def _block_batches(
        self,
        selection: Selection,
        batch_size: int,
        seed: int,
        start: int,
        row_bytes: int,
        reads: Reads,
    ) -> Iterator[Tensor]:
        block_rows = max(1, self._buffer_bytes // BLOCKS_AT_ONCE // row_bytes)
        chunk_rows = max(1, min(_CHUNK_BYTES // row_bytes, block_rows // _MIN_CHUNKS_IN_BLOCK))
        chunks = cut_chunks(selection.masks, chunk_rows)
        position = start * batch_size
        plans = plans_from(chunks, block_rows, seed, position)
        first = next(plans)
        blocks = read_blocks(
            chain([first], plans),
            chunks,
            self._parts,
            selection.masks,
            most_rows=block_rows + chunk_rows,
            batch_size=batch_size,
            reads=reads,
        )
        before = position % selection.count - first.first
        with closing(read_ahead(blocks, BLOCKS_AT_ONCE - 2, "run-reader")) as ready:
            yield from cut_batches(ready, batch_size, before, reads)

    def _gather(self, ranks: np.ndarray, selection: Selection, reads: Reads = EVERY_ROW) -> Tensor:
        """The selected rows of these ranks: [len(ranks), d]."""
        # What int8 rows become is no place to gather them.
        values = (EVERY_ROW if self._compact else reads).room(len(ranks), self.width, self._kind)
        scales = torch.empty(len(ranks))
        items = row_items(values)
        owner = np.searchsorted(selection.ends, ranks, side="right") - 1
        for number in np.unique(owner):
            places = np.flatnonzero(owner == number)
            part = self._parts[number]
            local = selection.rows(number)[ranks[places] - selection.ends[number]]
            items[places] = part.items[local]
            if part.scales is not None:
                scales.numpy()[places] = part.scales.numpy()[local]
        return dequantised(values, scales) if self._compact else values


def median_of(norms: Callable[[], Iterator[np.ndarray]], n: int) -> float:
    """The median (the lower one of two), exact, of n numbers fp32 that come in several arrays.

    They are not negative, so their bits sort like their values: counting the upper halves finds
    that of the median, counting the lower halves among those finds the rest.
    """
    rank = (n - 1) // 2
    upper, rank = _rank_of_half(norms, rank, None)
    lower, _ = _rank_of_half(norms, rank, upper)
    return float(np.array([upper << 16 | lower], np.uint32).view(np.float32)[0])


def _rank_of_half(
    norms: Callable[[], Iterator[np.ndarray]], rank: int, upper: int | None
) -> tuple[int, int]:
    """Among all norms (those whose upper half is `upper`), the upper (lower) half of the bits of
    the one with the given rank, and its rank among those that share this half."""
    counts = np.zeros(1 << 16, np.int64)
    for some in norms():
        bits = some.view(np.uint32)
        halves = bits >> 16 if upper is None else bits[bits >> 16 == upper] & 0xFFFF
        counts += np.bincount(halves, minlength=1 << 16)
    ends = np.cumsum(counts)
    half = int(np.searchsorted(ends, rank, side="right"))
    return half, rank - int(ends[half] - counts[half])


def _mask(part: RunPart, heldout: bool, max_norm: float | None) -> np.ndarray:
    split = part.row_split.numpy()
    keep = split if heldout else ~split
    # Read rather than mapped: of a large run only this mask is to stay in memory.
    return keep if max_norm is None else keep & (part.file.read("norms").numpy() <= max_norm)
