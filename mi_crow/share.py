"""One process's share of some work, and how it tells the others what it found.

The processes pass arrays through files of a folder that all see: exactly, whatever their size, and
without a second copy in the memory of those that do not need them.
"""

import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import numpy as np

from mi_crow.ranks import ALONE, Ranks
from mi_crow.store.atomic import temporary_name
from mi_crow.store.leftovers import beside, remove

T = TypeVar("T")


class Share:
    """Which blocks of the work are this process's, of all that share it."""

    def __init__(self, ranks: Ranks, folder: Path) -> None:
        """`folder` is seen by all processes; whoever made it removes it."""
        self.ranks: Ranks = ranks
        self.folder: Path = folder
        self._gathered = 0

    @property
    def alone(self) -> bool:
        return self.ranks.world == 1

    @property
    def is_first(self) -> bool:
        """Whether this process writes the result."""
        return self.ranks.rank == 0

    @property
    def turn(self) -> tuple[int, int]:
        """(first, step): the numbers of the blocks that this process does."""
        return self.ranks.rank, self.ranks.world

    def mine(self, number: int) -> bool:
        """Whether this process does the block of that number."""
        return number % self.ranks.world == self.ranks.rank

    def own(self, blocks: Iterable[T]) -> Iterator[tuple[int, T]]:
        """Those of `blocks` that this process does, with their numbers."""
        return ((number, one) for number, one in enumerate(blocks) if self.mine(number))

    def own_folder(self, rank: int | None = None) -> Path:
        """The folder that a process (None: this one) keeps its share in."""
        return self.folder / f"rank-{self.ranks.rank if rank is None else rank}"

    def gather(
        self, arrays: Mapping[str, np.ndarray], *, to_first: bool = False
    ) -> list[dict[str, np.ndarray]]:
        """The `arrays` of every process, by rank; with `to_first` in the first process, and nothing
        in the others. All call it, in the same order. Raises RankLostError."""
        if self.alone:
            return [dict(arrays)]
        from safetensors.numpy import load_file, save_file

        self._gathered += 1
        own = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
        save_file(own, self._path(self.ranks.rank))
        self.ranks.wait()
        wanted = range(0 if to_first and not self.is_first else self.ranks.world)
        found = [load_file(self._path(rank)) for rank in wanted]
        self.ranks.wait()
        self._path(self.ranks.rank).unlink()
        return found

    def summed(self, counts: np.ndarray) -> np.ndarray:
        """Whole numbers summed over the processes."""
        return np.sum([one["counts"] for one in self.gather({"counts": counts})], axis=0)

    def sum_in_order(self, rows: Mapping[int, np.ndarray], width: int) -> np.ndarray:
        """The sum of float64 rows [width] that the processes have by number: added in the order of
        the numbers, so that it is the same to the last bit however many processes there are."""
        every = np.stack([*rows.values()]) if rows else np.zeros((0, width))
        found = self.gather({"numbers": np.array([*rows], dtype=np.int64), "rows": every})
        numbers = np.concatenate([one["numbers"] for one in found])
        every = np.concatenate([one["rows"] for one in found])
        total = np.zeros(width)
        for place in np.argsort(numbers):
            total += every[place]
        return total

    def _path(self, rank: int) -> Path:
        return self.folder / f"gathered-{self._gathered}-{rank}.safetensors"


WHOLE = Share(ALONE, Path())


@contextmanager
def shared(ranks: Ranks, parent: Path, what: str) -> Iterator[Share]:
    """The share of this process in `what`, with a folder in `parent` while the block runs. All
    processes open it. Raises RankLostError."""
    if ranks.world == 1:
        yield WHOLE
        return
    own = temporary_name(parent / what) if ranks.rank == 0 else None
    if own is not None:
        remove(beside(parent / what))  # of processes that were killed
        own.mkdir()
    try:
        yield Share(ranks, Path(ranks.agree(str(own))))
        ranks.wait()  # until nobody reads the folder any more
    finally:
        if own is not None:
            shutil.rmtree(own, ignore_errors=True)
