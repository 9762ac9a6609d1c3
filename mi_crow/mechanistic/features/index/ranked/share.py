"""One process's share of an index, and how it tells the others what it found.

The processes pass arrays through files of a folder that all see: exactly, whatever their size, and
without a second copy in the memory of those that do not need them.
"""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from mi_crow.ranks import ALONE, Ranks


class Share:
    """Which blocks of the work are this process's, of all that build the index."""

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
        """Whether this process writes the index."""
        return self.ranks.rank == 0

    @property
    def turn(self) -> tuple[int, int]:
        """(first, step): the numbers of the blocks that this process does."""
        return self.ranks.rank, self.ranks.world

    def mine(self, number: int) -> bool:
        """Whether this process does the block of that number."""
        return number % self.ranks.world == self.ranks.rank

    def own_folder(self, rank: int | None = None) -> Path:
        """The folder that a process (None: this one) keeps its share in."""
        return self.folder / f"rank-{self.ranks.rank if rank is None else rank}"

    def gather(self, arrays: Mapping[str, np.ndarray]) -> list[dict[str, np.ndarray]]:
        """The `arrays` of every process, by rank. All call it, in the same order. Raises
        RankLostError."""
        if self.alone:
            return [dict(arrays)]
        from safetensors.numpy import load_file, save_file

        self._gathered += 1
        own = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
        save_file(own, self._path(self.ranks.rank))
        self.ranks.wait()
        found = [load_file(self._path(rank)) for rank in range(self.ranks.world)]
        self.ranks.wait()
        self._path(self.ranks.rank).unlink()
        return found

    def _path(self, rank: int) -> Path:
        return self.folder / f"gathered-{self._gathered}-{rank}.safetensors"


WHOLE = Share(ALONE, Path())
