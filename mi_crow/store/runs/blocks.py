"""Shuffling a run that does not fit in memory: blocks of random chunks, with their rows mixed.

A chunk is some contiguous rows of a part. Each epoch permutes all chunks, cuts them into blocks
that fit in memory, and permutes the rows of each block. So reads from disk are long, and a batch
has rows from all over the run. (seed, epoch) decides everything, so any block can be made again
without those before it.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import count

import numpy as np
import torch
from torch import Tensor

from mi_crow.store.runs.parts import RunPart, dequantised, row_items, rows_of_items
from mi_crow.store.runs.reads import EVERY_ROW, Reads

# One is in use, one waits, one is being read.
BLOCKS_AT_ONCE = 3


@dataclass(frozen=True)
class Chunks:
    """Contiguous rows of a run with at least one wanted row, in the order of the run."""

    part: np.ndarray  # [chunks] number of the part
    start: np.ndarray  # [chunks] first row within the part
    stop: np.ndarray  # [chunks] one past the last
    wanted: np.ndarray  # [chunks] number of wanted rows in them

    def __len__(self) -> int:
        return len(self.part)


@dataclass(frozen=True)
class BlockPlan:
    """The chunks of a block."""

    chunks: np.ndarray  # ascending
    first: int  # position of its first row in the epoch
    rows: int
    seed: tuple[int, int, int]  # for the order of its rows; the second is the epoch


def cut_chunks(masks: Sequence[np.ndarray], size: int) -> Chunks:
    """Cuts parts into chunks of `size` rows (the last of a part may be shorter). `masks` marks
    the wanted rows of each part: bool [rows]."""
    pieces: list[tuple[np.ndarray, ...]] = []
    for number, mask in enumerate(masks):
        start = np.arange(0, len(mask), size)
        if len(start):
            wanted = np.add.reduceat(mask, start, dtype=np.int64)
            stop = np.minimum(start + size, len(mask))
            some = wanted > 0
            part = np.full(len(start), number)
            pieces.append((part[some], start[some], stop[some], wanted[some]))
    return Chunks(*(np.concatenate(column) for column in zip(*pieces, strict=True)))


def plan_epoch(chunks: Chunks, block_rows: int, seed: int, epoch: int) -> list[BlockPlan]:
    """The blocks of one epoch, each of about `block_rows` rows (at most one chunk more)."""
    order = np.random.default_rng([seed, epoch]).permutation(len(chunks))
    first = np.cumsum(chunks.wanted[order]) - chunks.wanted[order]
    cuts = np.flatnonzero(np.diff(first // block_rows)) + 1
    plans = []
    for number, members in enumerate(np.split(order, cuts), 1):
        rows = int(chunks.wanted[members].sum())
        begin = plans[-1].first + plans[-1].rows if plans else 0
        # Numbered from 1: trailing zeros do not change a seed sequence.
        plans.append(BlockPlan(np.sort(members), begin, rows, (seed, epoch, number)))
    return plans


def plans_from(chunks: Chunks, block_rows: int, seed: int, position: int) -> Iterator[BlockPlan]:
    """Endless blocks, epoch after epoch, starting with the one that contains row `position`."""
    first, position = divmod(position, int(chunks.wanted.sum()))
    for epoch in count(first):
        for plan in plan_epoch(chunks, block_rows, seed, epoch):
            if epoch > first or plan.first + plan.rows > position:
                yield plan


@dataclass(frozen=True)
class Block:
    """The rows of a block, valid until BLOCKS_AT_ONCE - 1 more blocks have been requested."""

    values: Tensor  # [n, d] storage dtype, in the order of the run
    scales: Tensor | None  # [n] of int8 rows
    order: np.ndarray  # [n] the shuffled order
    mask: np.ndarray | None  # which rows of the whole block these are, in its shuffled order

    def __len__(self) -> int:
        return len(self.order)

    def before(self, rows: int) -> int:
        """How many of these rows are among the first `rows` of the whole block."""
        return rows if self.mask is None else int(self.mask[:rows].sum())

    def rows(self, begin: int, end: int) -> Tensor:
        """Rows begin..end in the shuffled order: [end - begin, d], int8 ones in fp32. A copy."""
        chosen = self.order[begin:end]
        values = rows_of_items(row_items(self.values)[chosen], self.values.dtype)
        if self.scales is None:
            return values
        return dequantised(values, torch.from_numpy(self.scales.numpy()[chosen]))

    def fill(self, room: Tensor, begin: int) -> None:
        """Copies the rows from `begin` on, in the shuffled order, into [n, d] of their dtype."""
        chosen = self.order[begin : begin + len(room)]
        # Without `clip` NumPy would copy them twice; no number is out of range.
        np.take(row_items(self.values), chosen, out=row_items(room), mode="clip")


def read_blocks(
    plans: Iterable[BlockPlan],
    chunks: Chunks,
    parts: Sequence[RunPart],
    masks: Sequence[np.ndarray],
    most_rows: int,
    batch_size: int,
    reads: Reads = EVERY_ROW,
) -> Iterator[Block]:
    """The planned blocks of at most `most_rows`, their chunks read in the order of the run; of each
    only the rows that `reads` takes of batches of `batch_size`.

    Read, not mapped: mapped pages would count as memory of this process. Buffers are reused, since
    fresh pages cost more than reading into them. Raises CorruptDataError naming a file that cannot
    be read.
    """
    stored = parts[0].file.places["activations"]
    ring: list[tuple[Tensor, Tensor]] = []
    of_epoch, own = int(chunks.wanted.sum()), reads.of(batch_size)
    most_rows = min(most_rows, (most_rows // batch_size + 2) * (own.stop - own.start))
    for number, plan in enumerate(plans):
        if number < BLOCKS_AT_ONCE:
            values = torch.empty(most_rows, *stored.shape[1:], dtype=stored.kind)
            ring.append((values, torch.empty(most_rows)))
        values, scales = ring[number % BLOCKS_AT_ONCE]
        order, needed = np.random.default_rng(plan.seed).permutation(plan.rows), None
        mask = reads.mask(plan.seed[1] * of_epoch + plan.first, plan.rows, batch_size)
        if mask is not None:
            needed = np.zeros(plan.rows, dtype=bool)  # in the order of the run
            needed[order[mask]] = True
            order = (np.cumsum(needed) - 1)[order[mask]]
        block = Block(
            values[: len(order)],
            scales[: len(order)] if stored.kind == torch.int8 else None,
            order,
            mask,
        )
        _fill(block, plan, chunks, parts, masks, needed)
        yield block


def _fill(
    block: Block,
    plan: BlockPlan,
    chunks: Chunks,
    parts: Sequence[RunPart],
    masks: Sequence[np.ndarray],
    needed: np.ndarray | None,
) -> None:
    """Reads the rows of a block, those `needed` of them: bool, in the order of the run."""
    targets = {"activations": row_items(block.values)}
    if block.scales is not None:
        targets["scales"] = row_items(block.scales[:, None])
    owners = chunks.part[plan.chunks]
    for number in np.unique(owners):
        mine = plan.chunks[owners == number]
        stretches = [
            slice(int(start), int(stop))
            for start, stop in zip(chunks.start[mine], chunks.stop[mine], strict=True)
        ]
        wanted = [np.flatnonzero(masks[number][stretch]) for stretch in stretches]
        if needed is not None:
            ends = np.cumsum([len(rows) for rows in wanted])
            own = np.split(needed[: ends[-1]], ends[:-1])
            needed = needed[ends[-1] :]
            wanted = [rows[mine] for rows, mine in zip(wanted, own, strict=True)]
        for name, target in targets.items():
            done = 0
            with parts[number].file.reading(name) as read:
                for stretch, rows in zip(stretches, wanted, strict=True):
                    if needed is None:
                        target[done : done + len(rows)] = read(stretch)[rows]
                    else:
                        _read_rows(read, stretch.start, rows, target[done : done + len(rows)])
                    done += len(rows)
            targets[name] = target[done:]


def _read_rows(
    read: Callable[[slice], np.ndarray], begin: int, rows: np.ndarray, target: np.ndarray
) -> None:
    """Reads these rows of a stretch that begins at `begin`, neighbours at once, and no others."""
    cuts = np.flatnonzero(np.diff(rows) != 1) + 1
    done = 0
    for run in np.split(rows, cuts) if len(rows) else ():
        stretch = slice(begin + int(run[0]), begin + int(run[-1]) + 1)
        target[done : done + len(run)] = read(stretch)
        done += len(run)


def cut_batches(
    blocks: Iterable[Block], batch_size: int, skip: int, reads: Reads = EVERY_ROW
) -> Iterator[Tensor]:
    """The rows that `reads` takes of batches [batch_size, d] of consecutive rows of the blocks,
    without the first `skip` rows. Gathered straight into the memory that `reads` gives."""
    of_batch = reads.of(batch_size)
    size = of_batch.stop - of_batch.start
    pieces: list[Tensor] = []
    room, missing = torch.empty(0), size
    for block in blocks:
        at, skip = block.before(skip), 0
        while at < len(block):
            n = min(missing, len(block) - at)
            if block.scales is not None:
                pieces.append(block.rows(at, at + n))
            else:
                if missing == size:
                    room = reads.room(size, block.values.shape[1], block.values.dtype)
                block.fill(room[size - missing : size - missing + n], at)
            missing -= n
            at += n
            if not missing:
                yield torch.cat(pieces) if len(pieces) > 1 else (pieces or [room])[0]
                pieces, missing = [], size
