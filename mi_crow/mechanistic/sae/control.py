"""A control for every quality figure: activations without structure between their dimensions."""

from collections.abc import Iterator

import torch
from torch import Tensor

from mi_crow.mechanistic.sae.source import TRAIN, TokenSource


class ShuffledSource:
    """The tokens of another source with each dimension taken from another token.

    Every dimension keeps its distribution, and what held between dimensions is gone: an SAE
    trained on it shows what its scores are worth. Within a batch dimension j is rotated by a
    shift of its own, so that no two dimensions of a row come from one token (as long as the batch
    has more tokens than dimensions), and the tokens of a batch are a random draw already.
    """

    def __init__(self, source: TokenSource) -> None:
        self._source = source
        self.inline = source.inline
        self.apart = source.apart
        self.count = source.count
        self.median_norm = source.median_norm

    @property
    def width(self) -> int:
        return self._source.width

    def batches(
        self,
        batch_size: int,
        seed: int,
        split: str = TRAIN,
        max_norm: float | None = None,
        start: int = 0,
    ) -> Iterator[Tensor]:
        batches = self._source.batches(batch_size, seed, split, max_norm, start)
        for number, batch in enumerate(batches, start):
            yield _rotated(batch, _generator(seed, number))

    def sample(
        self, n: int, seed: int, split: str = TRAIN, max_norm: float | None = None
    ) -> Tensor:
        # Rows of a sample stand in the order of the run, so neighbours are alike: mix them first.
        generator = _generator(seed, -1)
        rows = self._source.sample(n, seed, split, max_norm)
        return _rotated(rows[torch.randperm(len(rows), generator=generator)], generator)


def _generator(seed: int, batch: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed * 1_000_003 + batch + 1)


def _rotated(batch: Tensor, generator: torch.Generator) -> Tensor:
    """batch [n, d] with column j moved down by its own shift, round and round."""
    n, width = batch.shape
    repeats = -(-width // n)
    shifts = torch.cat([torch.randperm(n, generator=generator) for _ in range(repeats)])[:width]
    rows = (torch.arange(n)[:, None] + shifts) % n
    return batch.gather(0, rows.to(batch.device))
