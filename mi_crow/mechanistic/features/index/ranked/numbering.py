"""Numbers of documents: a process counts those it reads, the index all of them in one order."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

Place = tuple[int, int, int]  # source, part or shard, piece of a shard: the order parts are read in


@dataclass(frozen=True)
class Numbering:
    """The documents of one process: part by part as it read them."""

    starts: np.ndarray  # int64 [parts]: its own number of the first document of each part
    shifts: np.ndarray  # int64 [parts]: what makes it the number in the index

    def of(self, own: np.ndarray) -> np.ndarray:
        """The numbers in the index of documents int [n] as this process numbered them: int32."""
        if not len(own):
            return own.astype(np.int32)
        part = np.searchsorted(self.starts, own, side="right") - 1
        return (own + self.shifts[part]).astype(np.int32)


def in_order(places: Sequence[Sequence[Place]]) -> list[tuple[int, int]]:
    """(process, part) of all parts that the processes read, in the order one process reads them."""
    every = ((place, rank, part) for rank, of in enumerate(places) for part, place in enumerate(of))
    return [(rank, part) for _, rank, part in sorted(every)]


def numberings(
    order: Sequence[tuple[int, int]], counts: Sequence[np.ndarray]
) -> tuple[Numbering, ...]:
    """The numbering of each process whose parts hold int64 `counts` documents, in `order`."""
    starts = [np.cumsum(of) - of for of in counts]
    shifts = [np.zeros_like(of) for of in counts]
    before = 0
    for rank, part in order:
        shifts[rank][part] = before - starts[rank][part]
        before += counts[rank][part]
    # A part without documents begins where the next one does: the last of them owns the number.
    return tuple(Numbering(a, b) for a, b in zip(starts, shifts, strict=True))
