"""The hot loop of a capture: batches through the model, kept rows on their way to the host.

On CUDA the copies run on a stream of their own, into pinned memory, while the next batch computes.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from mi_crow.language_model.base import CausalModel
from mi_crow.language_model.capture.plan import Batch, PartPlan
from mi_crow.language_model.capture_pass import run_to
from mi_crow.language_model.hook_points.point import HookPoint
from mi_crow.language_model.placement.batch_size import BatchSize
from mi_crow.store.runs.parts import DTYPES, StoredRows, quantise


@dataclass(frozen=True)
class ErrorSums:
    """The error of rounding some tokens to int8, without outliers: FVU = error / variance."""

    error: Tensor  # scalar fp64: sum |x - x_hat|^2
    variance: Tensor  # scalar fp64: sum |x - mean of the batch|^2


@dataclass(frozen=True)
class Copy:
    """The kept rows of one batch, on their way to the host."""

    batch: Batch
    rows: dict[str, StoredRows]  # by layer name, [kept tokens of the batch, d]
    finite: Tensor  # [layers] bool
    errors: dict[str, ErrorSums]  # of int8 runs
    event: Any  # recorded after the copies on CUDA, else None


class Forward:
    """Runs batches of a capture and starts the copies of what is kept."""

    def __init__(
        self,
        lm: CausalModel,
        points: Sequence[HookPoint],
        dtype: str,
        size: BatchSize,
        *,
        to_host: bool = True,
    ) -> None:
        """Without `to_host` the rows stay on the model's device."""
        self._lm, self._points, self._dtype, self._size = lm, points, dtype, size
        copies = to_host and lm.device.type == "cuda"
        self._stream = torch.cuda.Stream(lm.device) if copies else None

    def part(self, plan: PartPlan) -> Iterator[Copy]:
        """The batches of a part, in smaller pieces when memory runs out."""
        for batch in plan.batches:
            yield from self.batch(batch)

    def batch(self, batch: Batch) -> Iterator[Copy]:
        """One batch, in smaller pieces when memory runs out."""
        yield from self._size.pieces(len(batch.counts), partial(self._rows, batch))

    def _rows(self, batch: Batch, rows: slice) -> Copy:
        return self._run(batch.rows(rows))

    @torch.inference_mode()
    def _run(self, batch: Batch) -> Copy:
        device = self._lm.device
        found = run_to(self._lm, self._points, batch.input_ids.to(device, non_blocking=True))
        kept = batch.kept.to(device, non_blocking=True)
        rows, errors = {}, {}
        for point, tensor in found.items():
            x = tensor.flatten(0, 1).index_select(0, kept)
            norms = torch.linalg.vector_norm(x, dim=1, dtype=torch.float32)
            if self._dtype == "int8":
                values, scales = quantise(x.float())
                rows[point.stored] = StoredRows(values, norms, scales)
                errors[point.stored] = _rounding(x.float(), values, scales, norms)
            else:
                rows[point.stored] = StoredRows(x.to(DTYPES[self._dtype]), norms, None)
        finite = torch.stack([_finite(one) for one in rows.values()])
        if self._stream is None:
            return Copy(batch, rows, finite, errors, None)
        return self._copied(batch, rows, finite, errors)

    def _copied(
        self,
        batch: Batch,
        rows: dict[str, StoredRows],
        finite: Tensor,
        errors: dict[str, ErrorSums],
    ) -> Copy:
        """The copy in pinned memory, complete once its event has passed."""
        assert self._stream is not None
        self._stream.wait_stream(torch.cuda.current_stream(self._lm.device))
        with torch.cuda.stream(self._stream):
            host = {
                name: StoredRows(
                    _to_pinned(one.values),
                    _to_pinned(one.norms),
                    None if one.scales is None else _to_pinned(one.scales),
                )
                for name, one in rows.items()
            }
            sums = {
                name: ErrorSums(_to_pinned(one.error), _to_pinned(one.variance))
                for name, one in errors.items()
            }
            flags = _to_pinned(finite)
            event = torch.cuda.Event()
            event.record(self._stream)
        return Copy(batch, host, flags, sums, event)


def _finite(rows: StoredRows) -> Tensor:
    """Whether all values are finite, also as stored: fp16 overflows at 65,504."""
    whole = rows.norms.isfinite().all()
    return whole & rows.values.isfinite().all() if rows.values.is_floating_point() else whole


def _rounding(x: Tensor, values: Tensor, scales: Tensor, norms: Tensor) -> ErrorSums:
    usual = (norms <= 10 * norms.median()).to(x.dtype)[:, None] if len(x) else norms[:, None]
    count = usual.sum().clamp_min(1)
    error = ((x - values * scales[:, None]) * usual).square().sum(dtype=torch.float64)
    centred = (x - (x * usual).sum(0) / count) * usual
    return ErrorSums(error, centred.square().sum(dtype=torch.float64))


def _to_pinned(tensor: Tensor) -> Tensor:
    """A copy in pinned memory, under way on the current stream."""
    host = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
    host.copy_(tensor, non_blocking=True)
    tensor.record_stream(torch.cuda.current_stream(tensor.device))
    return host
