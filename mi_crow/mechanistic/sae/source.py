"""Where training tokens come from: one protocol for captured runs, tensors and the running model.

A captured run is read by `RunReader` (for transcoders `PairReader`), the running model by
`train/live.py`.
"""

import math
from collections import deque
from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from itertools import islice
from typing import Protocol

import torch
from torch import Tensor

from mi_crow.background import read_ahead
from mi_crow.errors import CorruptDataError, UserError
from mi_crow.store.runs.reads import EVERY_ROW, Reads

TRAIN, HELDOUT = "train", "heldout"
_BATCHES_AHEAD = 6


def not_finite(before: str = "") -> CorruptDataError:
    """The error to raise for activations that contain NaN or infinity."""
    return CorruptDataError(
        f"{before}some activations are not finite",
        hint="capture the layer again, in bf16 or fp32 if it was fp16",
    )


class TokenSource(Protocol):
    """Activations of many tokens, shuffled on demand. Batches come in the storage dtype."""

    @property
    def live(self) -> bool:
        """True when the running model makes the batches: they are on the training device already,
        and of several processes each gets its own part of them."""
        ...

    @property
    def width(self) -> int: ...

    def count(self, split: str = TRAIN, max_norm: float | None = None) -> int:
        """Number of tokens of a split with an L2 norm of at most `max_norm`."""
        ...

    def median_norm(self) -> float: ...

    def batches(
        self,
        batch_size: int,
        seed: int,
        split: str = TRAIN,
        max_norm: float | None = None,
        start: int = 0,
        reads: Reads = EVERY_ROW,
    ) -> Iterator[Tensor]:
        """Endless shuffled batches [batch_size, d], beginning with batch `start`; batch i depends
        only on (seed, i). Of each the rows that `reads` names; live sources know their own part."""
        ...

    def sample(
        self, n: int, seed: int, split: str = TRAIN, max_norm: float | None = None
    ) -> Tensor:
        """A fixed subset of at most n tokens: [<= n, d]."""
        ...


class SideBySide(TokenSource, Protocol):
    """The same tokens at several layers, each layer in units of its own."""

    @property
    def widths(self) -> tuple[int, ...]: ...

    @property
    def scales(self) -> tuple[float, ...]:
        """What each layer was multiplied by."""
        ...

    def median_largest_norm(self) -> float:
        """The median of a token's largest norm over the layers read, as the model gives them."""
        ...


class TensorSource:
    """Tokens of a tensor [n, d]. Without a mask every tenth row is held out."""

    live = False

    def __init__(self, activations: Tensor, heldout: Tensor | None = None) -> None:
        if activations.ndim != 2 or activations.shape[0] == 0:
            raise UserError(
                f"activations must be a non-empty [tokens, width] tensor, "
                f"not {list(activations.shape)}"
            )
        self._activations = activations
        self._norms = activations.float().norm(dim=1)
        if heldout is None:
            heldout = torch.arange(activations.shape[0]) % 10 == 0
        self._heldout = heldout

    @property
    def width(self) -> int:
        return self._activations.shape[1]

    def count(self, split: str = TRAIN, max_norm: float | None = None) -> int:
        return self._rows(split, max_norm).numel()

    def median_norm(self) -> float:
        return float(self._norms.median())

    def batches(
        self,
        batch_size: int,
        seed: int,
        split: str = TRAIN,
        max_norm: float | None = None,
        start: int = 0,
        reads: Reads = EVERY_ROW,
    ) -> Iterator[Tensor]:
        rows = self._rows(split, max_norm)
        position = start * batch_size
        shuffled_epoch, shuffled = -1, rows
        while True:
            chosen: list[Tensor] = []
            wanted = batch_size
            while wanted:
                epoch, offset = divmod(position, rows.numel())
                if epoch != shuffled_epoch:
                    shuffled_epoch, shuffled = epoch, rows[permutation(rows.numel(), seed, epoch)]
                piece = shuffled[offset : offset + wanted]
                chosen.append(piece)
                wanted -= piece.numel()
                position += piece.numel()
            yield self._activations[torch.cat(chosen)[reads.of(batch_size)]]

    def sample(
        self, n: int, seed: int, split: str = TRAIN, max_norm: float | None = None
    ) -> Tensor:
        rows = self._rows(split, max_norm)
        return self._activations[rows[permutation(rows.numel(), seed, -1)[:n]].sort().values]

    def _rows(self, split: str, max_norm: float | None) -> Tensor:
        keep = self._heldout if split == HELDOUT else ~self._heldout
        if max_norm is not None:
            keep = keep & (self._norms <= max_norm)
        return keep.nonzero()[:, 0]


def permutation(n: int, seed: int, number: int) -> Tensor:
    """The order [n] of epoch or block `number`; -1 for a sample, which is of none of them."""
    return torch.randperm(n, generator=_generator(seed, number))


def _generator(seed: int, number: int) -> torch.Generator:
    """For epoch or batch `number`; -1 for a sample, which is none of them."""
    return torch.Generator().manual_seed(seed * 1_000_003 + number + 1)


class ShuffledSource:
    """A control for every quality figure: the tokens of another source with each dimension taken
    from another token.

    Every dimension keeps its distribution, and the structure between dimensions is gone: an SAE
    trained on it shows what its scores are worth. Within a batch, whose tokens are a random sample
    already, dimension j is rotated by its own shift, so that no two dimensions of a row come from
    one token (as long as the batch has more tokens than dimensions).
    """

    def __init__(self, source: TokenSource) -> None:
        self._source = source
        self.live: bool = source.live
        self.count: Callable[..., int] = source.count
        self.median_norm: Callable[[], float] = source.median_norm

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
        reads: Reads = EVERY_ROW,
    ) -> Iterator[Tensor]:
        batches = self._source.batches(batch_size, seed, split, max_norm, start)
        for number, batch in enumerate(batches, start):  # whole ones: its columns change tokens
            rotated = _rotated(batch, _generator(seed, number))
            yield rotated if self.live else rotated[reads.of(batch_size)]

    def sample(
        self, n: int, seed: int, split: str = TRAIN, max_norm: float | None = None
    ) -> Tensor:
        # Rows of a sample are in the order of the run, so neighbours are alike: mix them first.
        generator = _generator(seed, -1)
        rows = self._source.sample(n, seed, split, max_norm)
        return _rotated(rows[torch.randperm(len(rows), generator=generator)], generator)


def _rotated(batch: Tensor, generator: torch.Generator) -> Tensor:
    """batch [n, d] with each column rotated down by its own shift."""
    n, width = batch.shape
    repeats = -(-width // n)
    shifts = torch.cat([torch.randperm(n, generator=generator) for _ in range(repeats)])[:width]
    rows = (torch.arange(n)[:, None] + shifts) % n
    return batch.gather(0, rows.to(batch.device))


def fixed_batches(
    source: TokenSource, tokens: int, max_norm: float | None, batch_size: int = 2048
) -> Iterator[Tensor]:
    """Batches of a fixed sample of up to `tokens` training tokens, independent of any seed."""
    available = source.count(TRAIN, max_norm)
    batch_size = min(batch_size, max(available, 1))
    n = math.ceil(min(tokens, available) / batch_size)
    return islice(source.batches(batch_size, 0, TRAIN, max_norm), n)


def device_batches(
    batches: Iterator[Tensor], device: torch.device, live: bool = False
) -> Generator[Tensor, None, None]:
    """The same batches on `device`.

    For CUDA a thread reads and pins some ahead, and each is copied during the step before it. On
    the CPU, and for `live` batches, which are on the device already, each is made on demand: there
    a thread would only take time from the step itself.
    """
    if live or device.type != "cuda":
        for batch in batches:
            yield batch.to(device)
        return
    pinned = (batch.pin_memory() for batch in batches)
    with closing(read_ahead(pinned, _BATCHES_AHEAD, "sae-read-ahead")) as ready:
        yield from _copied_ahead(ready, device)


def _copied_ahead(pinned: Iterator[Tensor], device: torch.device) -> Iterator[Tensor]:
    """The batches on a CUDA device, copied one ahead on a stream of their own."""
    copying, waiting = torch.cuda.Stream(device), deque[tuple[Tensor, torch.Event]]()

    def next_one() -> Tensor:
        batch, copied = waiting.popleft()
        working = torch.cuda.current_stream(device)
        working.wait_event(copied)
        batch.record_stream(working)  # the other stream owns its memory: do not reuse it early
        return batch

    for batch in pinned:
        with torch.cuda.stream(copying):
            moved = batch.to(device, non_blocking=True)
            waiting.append((moved, copying.record_event()))
        if len(waiting) > 1:
            yield next_one()
    while waiting:
        yield next_one()
