"""How many rows go through a model at once: what suits the device, fewer when memory runs out."""

from collections.abc import Callable, Iterator
from typing import TypeVar

import torch

from mi_crow.causes import out_of_memory
from mi_crow.errors import UserError

DOCUMENTS = 32  # at once where a device is soon busy
# On CUDA a pass begins with so many tokens: far more than keep it busy, and what does not fit is
# halved, so that the first batch that fits is the largest power of two.
_CUDA_TOKENS = 1 << 16

Made = TypeVar("Made")


def documents_at_once(asked: int | None, device: torch.device, context: int) -> int:
    """The number of documents of up to `context` tokens to begin with: the one `asked` for, else
    what suits the device."""
    if asked is not None:
        return asked
    return max(DOCUMENTS, _CUDA_TOKENS // context) if device.type == "cuda" else DOCUMENTS


class BatchSize:
    """Rows per pass: halved each time memory runs out, for this batch and for all after it."""

    def __init__(
        self,
        size: int,
        log: Callable[[str], None],
        row: str = "document",
        hint: str = "lower --context-length, or use --model-dtype bf16 or a smaller model",
        *,
        fixed: bool = False,
    ) -> None:
        """`row` is what a batch is made of, `hint` says what helps when a single one does not fit.
        A `fixed` size is not halved: where several processes run every batch together, one that
        took smaller ones would leave the others waiting."""
        self._fixed = fixed
        self.size: int = size
        self.first: int = size  # before memory ran out
        self._log, self._row, self._hint = log, row, hint

    def pieces(self, rows: int, run: Callable[[slice], Made]) -> Iterator[Made]:
        """What `run` makes of all of `rows` rows in order, as many at a time as fit: each row
        once. Raises UserError where a single one does not fit."""
        start = 0
        while start < rows:
            stop = min(start + self.size, rows)
            try:
                made = run(slice(start, stop))
            except (RuntimeError, MemoryError) as error:
                if not out_of_memory(error):
                    raise
                if self._fixed:
                    raise UserError(
                        f"a batch of {stop - start} {self._row}s does not fit into the device's "
                        "memory",
                        hint="lower --batch-size",
                    ) from error
                if stop - start == 1:
                    raise UserError(
                        f"one {self._row} does not fit into the device's memory", hint=self._hint
                    ) from error
                made = None
            if made is None:  # here, since the error keeps what the pass had allocated
                self._halve(stop - start)
                continue
            yield made
            start = stop

    def used(self) -> dict[str, int]:
        """What to record: how far memory forced the size down; nothing where it did not."""
        return {"batch_size_used": self.size} if self.size < self.first else {}

    def _halve(self, rows: int) -> None:
        """After `rows` rows did not fit."""
        half = (rows + 1) // 2
        if half < self.size:  # several threads may find out at once
            self.size = half
            self._log(f"the device is out of memory: retrying with {half:,} {self._row}s per batch")
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
