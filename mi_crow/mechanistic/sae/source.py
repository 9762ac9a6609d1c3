"""Where training tokens come from: a captured run or a tensor, behind one small protocol."""

import math
import queue
import threading
from collections.abc import Generator, Iterator
from contextlib import closing
from functools import cached_property
from itertools import islice
from typing import TYPE_CHECKING, Protocol

import torch
from torch import Tensor

from mi_crow.errors import UserError

if TYPE_CHECKING:
    from mi_crow.store.shards import RunReader

TRAIN, HELDOUT = "train", "heldout"


class TokenSource(Protocol):
    """Activations of many tokens, shuffled on demand. Batches come in the storage dtype."""

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

    def __init__(self, reader: "RunReader") -> None:
        self.reader = reader
        self.batches = reader.batches
        self.sample = reader.sample
        self.median_norm = reader.median_norm

    @property
    def width(self) -> int:
        return self.reader.width

    def count(self, split: str = TRAIN, max_norm: float | None = None) -> int:
        heldout, norms = self._rows
        keep = heldout if split == HELDOUT else ~heldout
        return int((keep if max_norm is None else keep & (norms <= max_norm)).sum())

    @cached_property
    def _rows(self) -> tuple[Tensor, Tensor]:
        """Which rows of the run are held out, and the norm of each."""
        parts = [(part.row_split, part.norms) for part in self.reader.parts()]
        return torch.cat([split for split, _ in parts]), torch.cat([norms for _, norms in parts])


def fixed_batches(
    source: TokenSource, tokens: int, max_norm: float | None, batch_size: int = 2048
) -> Iterator[Tensor]:
    """Batches of the same up to `tokens` training tokens, whatever the run's seed was."""
    available = source.count(TRAIN, max_norm)
    batch_size = min(batch_size, max(available, 1))
    n = math.ceil(min(tokens, available) / batch_size)
    return islice(source.batches(batch_size, 0, TRAIN, max_norm), n)


def device_batches(batches: Iterator[Tensor], device: torch.device) -> Iterator[Tensor]:
    """The same batches on `device`; for CUDA read ahead in a thread, pinned, copied without
    waiting."""
    if device.type != "cuda":
        for batch in batches:
            yield batch.to(device)
        return
    with closing(_read_ahead(batches, depth=3)) as pinned:
        for batch in pinned:
            yield batch.to(device, non_blocking=True)


def _read_ahead(batches: Iterator[Tensor], depth: int) -> Generator[Tensor, None, None]:
    """`batches`, read and pinned by a thread that stays `depth` ahead."""
    ready: queue.Queue[Tensor | BaseException | None] = queue.Queue(depth)
    stopped = threading.Event()

    def put(item: Tensor | BaseException | None) -> None:
        while not stopped.is_set():
            try:
                ready.put(item, timeout=0.1)
                break
            except queue.Full:
                continue

    def read() -> None:
        try:
            for batch in batches:
                if stopped.is_set():
                    return
                put(batch.pin_memory())
            put(None)
        except BaseException as error:  # handed to the reader, which raises it
            put(error)

    thread = threading.Thread(target=read, name="sae-read-ahead", daemon=True)
    thread.start()
    try:
        while (item := ready.get()) is not None:
            if isinstance(item, BaseException):
                raise item
            yield item
    finally:
        stopped.set()
        thread.join()
