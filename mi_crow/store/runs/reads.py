"""Which rows of every batch a process reads, and into what memory."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True)
class Reads:
    """Each of `world` processes reads its part of every batch, cut as `tensor_split` cuts it."""

    rank: int = 0
    world: int = 1
    pinned: bool = False  # page-locked memory, from which a GPU copies while the CPU goes on

    def of(self, batch_size: int) -> slice:
        """The rows of a batch that this process reads."""
        size, longer = divmod(batch_size, self.world)
        begin = self.rank * size + min(self.rank, longer)
        return slice(begin, begin + size + (self.rank < longer))

    def mask(self, first: int, n: int, batch_size: int) -> np.ndarray | None:
        """Which of n rows of a stream, from row `first` on, are read: bool [n]; None for all."""
        if self.world == 1:
            return None
        own = self.of(batch_size)
        within = (first + np.arange(n)) % batch_size
        return (own.start <= within) & (within < own.stop)

    def room(self, rows: int, width: int, kind: torch.dtype) -> Tensor:
        """Memory for rows on their way to the device: [rows, width]."""
        return torch.empty(rows, width, dtype=kind, pin_memory=self.pinned)


EVERY_ROW = Reads()
