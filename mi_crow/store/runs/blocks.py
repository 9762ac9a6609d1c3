"""Shuffling a run that does not fit in memory: blocks of random chunks, with their rows mixed.

A chunk is some contiguous rows of a part. Each epoch permutes all chunks, cuts them into blocks
that fit in memory, and permutes the rows of each block. So reads from disk are long, and a batch
has rows from all over the run. (seed, epoch) decides everything, so any block can be made again
without those before it.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import count

import numpy as np
import torch
from torch import Tensor

from mi_crow.store.runs.parts import RunPart, dequantised, row_items, rows_of_items

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
    seed: tuple[int, int, int]  # for the order of its rows


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

    def __len__(self) -> int:
        return len(self.order)

    def rows(self, begin: int, end: int) -> Tensor:
        """Rows begin..end in the shuffled order: [end - begin, d], int8 ones in fp32. A copy."""
        chosen = self.order[begin:end]
        values = rows_of_items(row_items(self.values)[chosen], self.values.dtype)
        if self.scales is None:
            return values
        return dequantised(values, torch.from_numpy(self.scales.numpy()[chosen]))


def read_blocks(
    plans: Iterable[BlockPlan],
    chunks: Chunks,
    parts: Sequence[RunPart],
    masks: Sequence[np.ndarray],
    most_rows: int,
) -> Iterator[Block]:
    """The planned blocks of at most `most_rows`, their chunks read in the order of the run.

    Read, not mapped: mapped pages would count as memory of this process. Buffers are reused, since
    fresh pages cost more than reading into them. Raises CorruptDataError naming a file that cannot
    be read.
    """
    stored = parts[0].file.places["activations"]
    ring: list[tuple[Tensor, Tensor]] = []
    for number, plan in enumerate(plans):
        if number < BLOCKS_AT_ONCE:
            values = torch.empty(most_rows, *stored.shape[1:], dtype=stored.kind)
            ring.append((values, torch.empty(most_rows)))
        values, scales = ring[number % BLOCKS_AT_ONCE]
        block = Block(
            values[: plan.rows],
            scales[: plan.rows] if stored.kind == torch.int8 else None,
            np.random.default_rng(plan.seed).permutation(plan.rows),
        )
        _fill(block, plan, chunks, parts, masks)
        yield block


def _fill(
    block: Block,
    plan: BlockPlan,
    chunks: Chunks,
    parts: Sequence[RunPart],
    masks: Sequence[np.ndarray],
) -> None:
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
        for name, target in targets.items():
            done = 0
            with parts[number].file.reading(name) as read:
                for stretch, rows in zip(stretches, wanted, strict=True):
                    target[done : done + len(rows)] = read(stretch)[rows]
                    done += len(rows)
            targets[name] = target[done:]


def cut_batches(blocks: Iterable[Block], batch_size: int, skip: int) -> Iterator[Tensor]:
    """Batches [batch_size, d] of consecutive rows of the blocks, without the first `skip` rows."""
    pieces: list[Tensor] = []
    missing = batch_size
    for block in blocks:
        at, skip = skip, 0
        while at < len(block):
            end = min(at + missing, len(block))
            pieces.append(block.rows(at, end))
            missing -= end - at
            at = end
            if not missing:
                yield pieces[0] if len(pieces) == 1 else torch.cat(pieces)
                pieces, missing = [], batch_size
