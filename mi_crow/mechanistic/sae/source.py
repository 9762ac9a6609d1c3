"""Where training tokens come from: a captured run or a tensor, behind one small protocol."""

import math
from collections import deque
from collections.abc import Generator, Iterator
from contextlib import closing
from itertools import islice
from typing import TYPE_CHECKING, Protocol

import torch
from torch import Tensor

from mi_crow.background import read_ahead
from mi_crow.errors import CorruptDataError, UserError

if TYPE_CHECKING:
    from mi_crow.store.runs.reader import RunReader

TRAIN, HELDOUT = "train", "heldout"
_BATCHES_AHEAD = 6


def not_finite(before: str = "") -> CorruptDataError:
    """What to raise about activations with NaN or infinity in them."""
    return CorruptDataError(
        f"{before}some activations are not finite",
        hint="capture the layer again, in bf16 or fp32 if it was fp16",
    )


class TokenSource(Protocol):
    """Activations of many tokens, shuffled on demand. Batches come in the storage dtype."""

    @property
    def inline(self) -> bool:
        """True when batches are made on the training device itself: never in a thread beside."""
        ...

    @property
    def apart(self) -> bool:
        """True when, among processes that share the tokens, `batches` gives each its own part."""
        ...

    @property
    def width(self) -> int: ...

    def count(self, split: str = TRAIN, max_norm: float | None = None) -> int:
        """Tokens of a split, those above `max_norm` left out."""
        ...

    def median_norm(self) -> float: ...

    def batches(
        self,
        batch_size: int,
        seed: int,
        split: str = TRAIN,
        max_norm: float | None = None,
        start: int = 0,
    ) -> Iterator[Tensor]:
        """Endless shuffled batches [batch_size, d] from batch `start` on; batch i depends on
        (seed, i) alone."""
        ...

    def sample(
        self, n: int, seed: int, split: str = TRAIN, max_norm: float | None = None
    ) -> Tensor:
        """A fixed subset of at most n tokens: [<= n, d]."""
        ...


class TensorSource:
    """Tokens of a tensor [n, d]. Without a mask every tenth row is held out."""

    inline = False
    apart = False

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
                    shuffled_epoch, shuffled = epoch, _shuffled(rows, seed, epoch)
                taken = shuffled[offset : offset + wanted]
                chosen.append(taken)
                wanted -= taken.numel()
                position += taken.numel()
            yield self._activations[torch.cat(chosen)]

    def sample(
        self, n: int, seed: int, split: str = TRAIN, max_norm: float | None = None
    ) -> Tensor:
        rows = self._rows(split, max_norm)
        return self._activations[_shuffled(rows, seed, -1)[:n].sort().values]

    def _rows(self, split: str, max_norm: float | None) -> Tensor:
        keep = self._heldout if split == HELDOUT else ~self._heldout
        if max_norm is not None:
            keep = keep & (self._norms <= max_norm)
        return keep.nonzero()[:, 0]


def _shuffled(rows: Tensor, seed: int, epoch: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed * 1_000_003 + epoch + 1)
    return rows[torch.randperm(rows.numel(), generator=generator)]


class RunSource:
    """Tokens of one layer of a captured run."""

    inline = False
    apart = False

    def __init__(self, reader: "RunReader") -> None:
        self.reader = reader
        self.count = reader.count
        self.batches = reader.batches
        self.sample = reader.sample
        self.median_norm = reader.median_norm

    @property
    def width(self) -> int:
        return self.reader.width


def fixed_batches(
    source: TokenSource, tokens: int, max_norm: float | None, batch_size: int = 2048
) -> Iterator[Tensor]:
    """Batches of the same up to `tokens` training tokens, whatever the run's seed was."""
    available = source.count(TRAIN, max_norm)
    batch_size = min(batch_size, max(available, 1))
    n = math.ceil(min(tokens, available) / batch_size)
    return islice(source.batches(batch_size, 0, TRAIN, max_norm), n)


def device_batches(
    batches: Iterator[Tensor], device: torch.device, inline: bool = False
) -> Generator[Tensor, None, None]:
    """The same batches on `device`.

    For CUDA a thread reads and pins some ahead, and each is copied while the one before it is
    worked on. For the CPU, and `inline`, they are made when they are asked for: there a thread
    would only take time from the step itself.
    """
    if inline or device.type != "cuda":
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
        batch.record_stream(working)  # it belongs to the other stream: not to be reused early
        return batch

    for batch in pinned:
        with torch.cuda.stream(copying):
            moved = batch.to(device, non_blocking=True)
            waiting.append((moved, copying.record_event()))
        if len(waiting) > 1:
            yield next_one()
    while waiting:
        yield next_one()
