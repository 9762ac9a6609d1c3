"""Samples that depend only on seed and position, so that every way of reading draws the same."""

import heapq
from collections.abc import Callable, Iterator
from hashlib import sha256
from typing import TypeVar

import numpy as np

from mi_crow.datasets.fields import RawRow

Kept = TypeVar("Kept")
_BLOCK = 1 << 20  # positions hashed at once
_STEP = 4096  # the same while reading rows


def hashes(start: int, stop: int, seed: int) -> np.ndarray:
    """A pseudo-random uint64 for each position in [start, stop), all different.

    SplitMix64 (Steele, Lea, Flood 2014) of the position, from a state that the seed determines.
    """
    state = int.from_bytes(sha256(str(seed).encode()).digest()[:8], "big")
    with np.errstate(over="ignore"):
        mixed = np.arange(start, stop, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
        mixed += np.uint64(state)
        mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return mixed ^ (mixed >> np.uint64(31))


def least_positions(total: int, n: int, seed: int) -> np.ndarray:
    """The `n` of `total` positions with the smallest hashes, in order: [min(n, total)] int64."""
    best, values = np.empty(0, np.int64), np.empty(0, np.uint64)
    for start in range(0, total, _BLOCK):
        stop = min(start + _BLOCK, total)
        best = np.concatenate([best, np.arange(start, stop)])
        values = np.concatenate([values, hashes(start, stop, seed)])
        if len(best) > n:
            kept = np.argpartition(values, n)[:n] if n else slice(0)
            best, values = best[kept], values[kept]
    return best[np.argsort(values)]


def least_rows(
    rows: Iterator[RawRow], n: int, seed: int, convert: Callable[[RawRow], Kept | None]
) -> list[Kept]:
    """What `convert` makes of the `n` rows with the smallest hashes, smallest first; it returns
    None for rows to skip. One pass, `n` rows in memory."""
    heap: list[tuple[int, int, Kept]] = []  # negated hashes: the greatest hash on top
    values: list[int] = []
    for number, row in enumerate(rows):
        if number % _STEP == 0:
            values = hashes(number, number + _STEP, seed).tolist()
        value = values[number % _STEP]
        if len(heap) < n or -heap[0][0] > value:
            kept = convert(row)
            if kept is not None:
                add = heapq.heappush if len(heap) < n else heapq.heapreplace
                add(heap, (-value, number, kept))
    return [kept for _, _, kept in sorted(heap, key=lambda item: -item[0])]
