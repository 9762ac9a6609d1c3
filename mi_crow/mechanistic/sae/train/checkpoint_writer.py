"""Checkpoints while the training goes on: copied between two steps, written by a thread."""

from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from mi_crow.mechanistic.sae.train.checkpoint import save_checkpoint
from mi_crow.mechanistic.sae.train.metrics import MetricsTable
from mi_crow.mechanistic.sae.train.state import TrainState
from mi_crow.progress import Progress
from mi_crow.store.free_space import available_memory

METRICS_NAME = "metrics.parquet"
CHECKPOINTS_NAME = "checkpoints"
# Copies that would take more than this share of the available memory are not made: the step waits
# for the disk then.
_MOST_OF_MEMORY = 0.5


class Keepable(Protocol):
    """A training that may be kept."""

    @property
    def state(self) -> TrainState: ...
    @property
    def table(self) -> MetricsTable: ...
    @property
    def folder(self) -> Path | None: ...


@dataclass(frozen=True)
class _Kept:
    """What one training is to continue from."""

    folder: Path
    step: int
    tensors: dict[str, Tensor]
    facts: dict[str, Any]
    table: MetricsTable

    def write(self) -> str:
        """Metrics, then the checkpoint that makes them count; its name."""
        self.table.write(self.folder / METRICS_NAME)
        return save_checkpoint(self.folder / CHECKPOINTS_NAME, self.step, self.tensors, self.facts)


class CheckpointWriter:
    """Writes the checkpoints of some trainings, one after the other.

    A context manager: at the end of the block the last one is on the disk, also where the training
    failed. What the disk refused is raised by the next `keep`, `tell` or `wait`.
    """

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._pool = ThreadPoolExecutor(1, "checkpoints")
        self._writing: Future[str] | None = None
        self._pinned: dict[tuple[int, str], Tensor] = {}  # on CUDA: what is copied into

    def __enter__(self) -> "CheckpointWriter":
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        self._pool.shutdown()
        if error is None:
            self.wait()

    def keep(self, trainings: Sequence[Keepable], seconds: float) -> None:
        """Begins to write those that have a folder, as they are now. Collective: all processes of a
        training call it. Waits for the checkpoint before it."""
        self.wait()
        kept: list[_Kept] = []
        copied = True
        for number, training in enumerate(trainings):
            if training.folder is None:
                continue
            state = training.state
            state.seconds = seconds
            tensors = state.tensors()
            if state.sharing.ranks.rank > 0:
                continue
            fresh = [one for key, one in tensors.items() if (number, key) not in self._pinned]
            if _room_for(fresh):
                tensors = {key: self._copy(number, key, one) for key, one in tensors.items()}
            else:
                copied = False
            table = MetricsTable(list(training.table.rows))
            kept.append(_Kept(training.folder, state.step, tensors, state.facts(), table))
        if kept:
            ready = _copied_on(trainings[0].state.sae.device)
            self._writing = self._pool.submit(_write, kept, ready)
        if not copied:
            self.wait()

    def tell(self) -> None:
        """Reports a checkpoint that is on the disk by now."""
        if self._writing is not None and self._writing.done():
            self.wait()

    def wait(self) -> None:
        """Until everything is on the disk."""
        if self._writing is not None:
            writing, self._writing = self._writing, None
            self._progress.checkpoint(writing.result())

    def _copy(self, number: int, name: str, tensor: Tensor) -> Tensor:
        """A copy in host memory; on CUDA pinned, so that neither host nor device waits for it."""
        source = tensor.detach()
        if source.device.type != "cuda":
            return source.to("cpu", copy=True)
        held = self._pinned.get((number, name))
        if held is None:
            held = torch.empty(source.shape, dtype=source.dtype, pin_memory=True)
            self._pinned[number, name] = held
        return held.copy_(source, non_blocking=True)


def _write(kept: Sequence[_Kept], ready: "torch.cuda.Event | None") -> str:
    if ready is not None:
        ready.synchronize()
    return [one.write() for one in kept][-1]


def _copied_on(device: torch.device) -> "torch.cuda.Event | None":
    """On CUDA what happens once the copies begun so far are done."""
    if device.type != "cuda":
        return None
    event = torch.cuda.Event()
    event.record(torch.cuda.current_stream(device))
    return event


def _room_for(tensors: Sequence[Tensor]) -> bool:
    available = available_memory()
    size = sum(one.numel() * one.element_size() for one in tensors)
    return available is None or size <= _MOST_OF_MEMORY * available
