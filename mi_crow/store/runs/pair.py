"""Two layers of a run read together: the same tokens of both, in the same order."""

from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from torch import Tensor

from mi_crow.store.runs.reader import BUFFER_BYTES, RunReader
from mi_crow.store.runs.reads import EVERY_ROW, Reads


class PairReader:
    """Rows [n, width of the first + width of the second]; norms are those of the first layer."""

    live = False

    def __init__(
        self, run_dir: Path, first: str, second: str, buffer_bytes: int = BUFFER_BYTES
    ) -> None:
        """`buffer_bytes` as for `RunReader`, for both layers together. Raises NotFoundError for a
        layer that the run lacks."""
        self.first: RunReader = RunReader(run_dir, first, buffer_bytes)
        self.second: RunReader = RunReader(run_dir, second, buffer_bytes)
        # How a large run is cut into blocks depends on it, and both are to be cut alike.
        self._row_bytes = self.first.row_bytes + self.second.row_bytes
        self.count: Callable[..., int] = self.first.count
        self.median_norm: Callable[[], float] = self.first.median_norm

    @property
    def width(self) -> int:
        return self.first.width + self.second.width

    def batches(
        self,
        batch_size: int,
        seed: int,
        split: str = "train",
        max_norm: float | None = None,
        start: int = 0,
        reads: Reads = EVERY_ROW,
    ) -> Iterator[Tensor]:
        """As `RunReader.batches`."""
        selection = self.first.select(split, max_norm)
        both = (
            reader.selected_batches(selection, batch_size, seed, start, self._row_bytes, reads)
            for reader in (self.first, self.second)
        )
        for first, second in zip(*both, strict=True):
            yield torch.cat([first, second], dim=1)

    def sample(
        self, n: int, seed: int, split: str = "train", max_norm: float | None = None
    ) -> Tensor:
        """As `RunReader.sample`."""
        selection = self.first.select(split, max_norm)
        both = (self.first, self.second)
        rows = [reader.selected_sample(selection, n, seed, self._row_bytes) for reader in both]
        return torch.cat(rows, dim=1)
