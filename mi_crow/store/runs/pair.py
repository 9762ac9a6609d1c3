"""Two layers of a run read side by side: the same tokens of both, in the same order."""

from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor

from mi_crow.store.runs.reader import BUFFER_BYTES, RunReader, Selection


class _Follower(RunReader):
    """A layer whose rows are chosen and ordered by another layer's reader."""

    def __init__(self, run_dir: Path, layer: str, leader: RunReader, buffer_bytes: int) -> None:
        super().__init__(run_dir, layer, buffer_bytes)
        self._leader = leader
        # Row sizes decide how a large run is cut, so both must reckon with the same one.
        self._row_bytes = leader._row_bytes = self._row_bytes + leader._row_bytes

    def _select(self, split: str, max_norm: float | None) -> Selection:
        return self._leader._select(split, max_norm)


class PairReader:
    """Rows [n, width of the first + width of the second]; norms are those of the first layer."""

    inline = False
    apart = False

    def __init__(
        self, run_dir: Path, first: str, second: str, buffer_bytes: int = BUFFER_BYTES
    ) -> None:
        """`buffer_bytes` as for `RunReader`, for both layers. Raises NotFoundError for a layer
        that the run lacks."""
        self.first = RunReader(run_dir, first, buffer_bytes)
        self.second = _Follower(run_dir, second, self.first, buffer_bytes)
        self.count = self.first.count
        self.median_norm = self.first.median_norm

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
    ) -> Iterator[Tensor]:
        """As `RunReader.batches`."""
        both = (
            reader.batches(batch_size, seed, split, max_norm, start)
            for reader in (self.first, self.second)
        )
        for first, second in zip(*both, strict=True):
            yield torch.cat([first, second], dim=1)

    def sample(
        self, n: int, seed: int, split: str = "train", max_norm: float | None = None
    ) -> Tensor:
        """As `RunReader.sample`."""
        both = [reader.sample(n, seed, split, max_norm) for reader in (self.first, self.second)]
        return torch.cat(both, dim=1)
