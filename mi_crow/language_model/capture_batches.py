"""The hot loop of a capture: batches of documents through the model, kept rows to the host.

On CUDA the copy of one batch runs while the next one computes: rows go through pinned memory and
are put in place one batch later.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from mi_crow.errors import MiCrowError, UserError
from mi_crow.language_model.capture_pass import run_to
from mi_crow.language_model.tokenize import pad

if TYPE_CHECKING:
    from mi_crow.language_model.language_model import LanguageModel
    from mi_crow.language_model.layers import HookPoint


@dataclass(frozen=True)
class Document:
    """One text as tokens."""

    number: int  # in the dataset
    token_ids: list[int]
    kept: list[int]  # positions whose activations are kept


class BatchSize:
    """Documents a pass: halved each time the device has no room for so many."""

    def __init__(self, size: int, tell: Callable[[str], None]) -> None:
        self.size = size
        self._tell = tell

    def shrink(self, error: BaseException) -> None:
        """Raises UserError when a single document has no room either."""
        if self.size == 1:
            raise UserError(
                "the device has no room for one document",
                hint="lower --context-length, or use --model-dtype bf16 or a smaller model",
            ) from error
        self.size = (self.size + 1) // 2
        self._tell(f"the device is out of memory: going on with {self.size} documents a batch")
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


@dataclass(frozen=True)
class _Copy:
    """Rows of one batch on their way to the host."""

    batch: list[int]  # places of the documents
    rows: "dict[HookPoint, Tensor]"  # [kept tokens of the batch, d], storage dtype, on the host
    finite: Tensor  # [points] bool, on the host
    event: Any  # recorded behind the copies on CUDA, else None


class RowCollector:
    """Collects the kept rows of one part's documents."""

    def __init__(
        self,
        lm: "LanguageModel",
        points: "Sequence[HookPoint]",
        documents: Sequence[Document],
        dtype: torch.dtype,
    ) -> None:
        self._lm, self._points, self._documents, self._dtype = lm, points, documents, dtype
        self._starts = [0]
        for document in documents:
            self._starts.append(self._starts[-1] + len(document.kept))
        self.rows = {
            point.name: torch.empty(self._starts[-1], lm.layers.width(point.point), dtype=dtype)
            for point in points
        }

    def collect(self, batch_size: BatchSize) -> Iterator[list[int]]:
        """Fills `rows` [tokens, d] by layer name, rows in document order; gives the places of each
        batch's documents once it is under way.

        Raises MiCrowError naming layer and document where an activation is not finite.
        """
        before: _Copy | None = None
        order = self._by_length()
        while order:
            batch = order[: batch_size.size]
            try:
                copy = self._start(batch)
            except RuntimeError as error:
                if not _out_of_memory(error):
                    raise
                batch_size.shrink(error)
                continue
            order = order[len(batch) :]
            if before is not None:
                self._finish(before)
            before = copy
            yield batch
        if before is not None:
            self._finish(before)

    def _by_length(self) -> list[int]:
        """Documents of like length stand together, so that padding is a small share; the longest
        come first, so that memory runs out at once or not at all."""
        kept = [place for place, document in enumerate(self._documents) if document.kept]
        return sorted(kept, key=lambda place: (-len(self._documents[place].token_ids), place))

    def _start(self, batch: list[int]) -> _Copy:
        """Runs the model on a batch and starts copying the kept rows to the host."""
        encoding = pad([self._documents[i].token_ids for i in batch], self._lm.tokenizer)
        length = encoding.input_ids.shape[1]
        flat = torch.cat(
            [torch.tensor(self._documents[i].kept) + b * length for b, i in enumerate(batch)]
        )
        device = self._lm.device
        encoding = encoding.to(device)
        found = run_to(self._lm, self._points, encoding.input_ids, encoding.attention_mask)
        flat = flat.to(device, non_blocking=True)
        picked = {
            point: tensor.flatten(0, 1).index_select(0, flat).to(self._dtype)
            for point, tensor in found.items()
        }
        finite = torch.stack([rows.isfinite().all() for rows in picked.values()])
        if device.type != "cuda":
            return _Copy(batch, {p: r.cpu() for p, r in picked.items()}, finite.cpu(), None)
        rows = {point: _to_pinned(tensor) for point, tensor in picked.items()}
        finite = _to_pinned(finite)
        event = torch.cuda.Event()
        event.record()
        return _Copy(batch, rows, finite, event)

    def _finish(self, copy: _Copy) -> None:
        """Puts a batch's rows in their place, once they are there."""
        if copy.event is not None:
            copy.event.synchronize()
        if not bool(copy.finite.all()):
            raise self._not_finite(copy.batch, copy.rows)
        for point, rows in copy.rows.items():
            offset = 0
            for i in copy.batch:
                start, end = self._starts[i], self._starts[i + 1]
                self.rows[point.name][start:end] = rows[offset : offset + end - start]
                offset += end - start

    def _not_finite(self, batch: list[int], found: "Mapping[HookPoint, Tensor]") -> MiCrowError:
        owners = [i for i in batch for _ in self._documents[i].kept]
        for point, rows in found.items():
            wrong = (~rows.isfinite().all(dim=1)).nonzero()
            if len(wrong):
                document = self._documents[owners[int(wrong[0, 0])]]
                reason = "NaN or infinity"
                hint = "compute in fp32 or bf16 (--model-dtype), or leave that document out"
                if self._dtype is torch.float16:
                    hint = "store bf16 (--dtype), which has room for large values, or " + hint
                return MiCrowError(
                    f"layer {point.point!r} gave {reason} in document {document.number}", hint=hint
                )
        raise AssertionError("every row is finite")


def _to_pinned(tensor: Tensor) -> Tensor:
    host = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
    return host.copy_(tensor, non_blocking=True)


def _out_of_memory(error: RuntimeError) -> bool:
    text = str(error).lower()
    return isinstance(error, torch.OutOfMemoryError) or any(
        sign in text for sign in ("out of memory", "can't allocate memory")
    )
