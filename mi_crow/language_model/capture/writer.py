"""What happens to captured rows on the host: put in order, written, committed.

Two threads: one puts rows where they belong in a part's buffers, one writes whole parts. Neither
uses torch's own threads, which belong to the model.
"""

import queue
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from time import perf_counter

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from mi_crow.background import Stage
from mi_crow.causes import disk_is_full, machine_error
from mi_crow.errors import MachineError, MiCrowError
from mi_crow.language_model.capture.forward import Copy, ErrorSums
from mi_crow.language_model.capture.plan import PartPlan
from mi_crow.progress import Progress
from mi_crow.store.runs.manifest import LayerSpec, PartSpec, updating_manifest
from mi_crow.store.runs.parts import DTYPES, StoredRows, write_part

_COPIES_AHEAD = 4
_PARTS_IN_MEMORY = 2  # one is filled while the other is written
_POLL_S = 0.1


class PartBuffers:
    """Memory for the rows of one part, reused for the next: fresh pages cost more than the copy
    that fills them."""

    def __init__(self, layers: list[LayerSpec], dtype: str) -> None:
        self._layers, self._kind = layers, DTYPES[dtype]
        self._with_scales = dtype == "int8"
        self._room = 0
        self._rows: dict[str, StoredRows] = {}

    def rows(self, tokens: int) -> dict[str, StoredRows]:
        """Views of [tokens, d] for each layer; their contents are undefined."""
        if tokens > self._room:
            self._room = tokens
            self._rows = {
                layer.name: StoredRows(
                    torch.empty(tokens, layer.width, dtype=self._kind),
                    torch.empty(tokens),
                    torch.empty(tokens) if self._with_scales else None,
                )
                for layer in self._layers
            }
        return {
            name: StoredRows(
                one.values[:tokens],
                one.norms[:tokens],
                None if one.scales is None else one.scales[:tokens],
            )
            for name, one in self._rows.items()
        }


@dataclass
class _OpenPart:
    """A part that is being filled."""

    plan: PartPlan
    buffers: PartBuffers
    rows: dict[str, StoredRows]
    errors: dict[str, list[float]] = field(default_factory=dict)


class PartWriter:
    """Takes copies and writes parts. A context manager: at its end everything is on disk."""

    def __init__(
        self,
        run_dir: Path,
        rank: int,
        next_index: int,
        layers: list[LayerSpec],
        dtype: str,
        points: Mapping[str, str],
        progress: Progress,
    ) -> None:
        """`points` gives each layer's short name, for messages."""
        self._run_dir, self._rank, self._index = run_dir, rank, next_index
        self._points, self._progress, self._dtype = points, progress, dtype
        self._free: queue.SimpleQueue[PartBuffers] = queue.SimpleQueue()
        for _ in range(_PARTS_IN_MEMORY):
            self._free.put(PartBuffers(layers, dtype))
        self._last_commit = perf_counter()
        self._writing = Stage(self._write, depth=1, name="capture-write")
        self._placing = Stage(self._take, depth=_COPIES_AHEAD, name="capture-place")
        self.batch_size = 0  # as far as memory forced it down, for the manifest

    def begin(self, plan: PartPlan) -> "_OpenPart":
        """A part to fill. Waits for free buffers; raises what a thread raised."""
        while True:
            self._placing.check()
            self._writing.check()
            try:
                buffers = self._free.get(timeout=_POLL_S)
            except queue.Empty:
                continue
            return _OpenPart(plan, buffers, buffers.rows(plan.tokens))

    def put(self, part: _OpenPart, copy: Copy) -> None:
        self._placing.put((part, copy))

    def end(self, part: _OpenPart) -> None:
        self._placing.put((part, None))

    def __enter__(self) -> "PartWriter":
        self._writing.__enter__()
        self._placing.__enter__()
        return self

    def __exit__(self, kind: object, error: BaseException | None, tb: object) -> None:
        try:
            self._placing.__exit__(kind, error, tb)
        except BaseException as failure:
            self._writing.__exit__(type(failure), failure, None)
            raise
        self._writing.__exit__(kind, error, tb)

    def _take(self, item: tuple[_OpenPart, Copy | None]) -> None:
        part, copy = item
        if copy is None:
            self._writing.put(part)
            return
        if copy.event is not None:
            copy.event.synchronize()
        if not bool(copy.finite.all()):
            raise not_finite(copy, self._points, self._dtype)
        for name, rows in copy.rows.items():
            place_rows(part.rows[name], rows, copy.batch.part_rows)
        for name, sums in copy.errors.items():
            _add(part.errors, name, sums)

    def _write(self, part: _OpenPart) -> None:
        plan = part.plan
        spec = PartSpec(
            self._rank,
            self._index,
            plan.documents,
            plan.tokens,
            plan.shard,
            plan.piece,
            plan.closes,
            positions=plan.positions,
            real_positions=plan.real_positions,
            rounding=part.errors,
        )
        try:
            sums = write_part(self._run_dir, spec, plan.table, part.rows)
        except OSError as error:
            raise _unwritable(error) from error
        self._free.put(part.buffers)
        pa.default_memory_pool().release_unused()  # tables come and go: memory stays flat
        now = perf_counter()
        with updating_manifest(self._run_dir) as manifest:
            manifest.add(replace(spec, files=sums))
            if self._rank == 0:
                manifest.seconds += now - self._last_commit
                manifest.settings["batch_size_used"] = self.batch_size
        self._last_commit = now
        self._index += 1
        self._progress.checkpoint(spec.stem)


def _unwritable(error: OSError) -> MiCrowError:
    if disk_is_full(error):
        return MachineError(
            "the disk is full", hint="free some space and resume: what was written is complete"
        )
    cause = machine_error(error)
    return cause or MiCrowError(f"a part cannot be written ({error.strerror or error})")


def place_rows(target: StoredRows, rows: StoredRows, part_rows: np.ndarray) -> None:
    """target[part_rows] = rows, one memory copy per row."""
    for into, one in zip(target, rows, strict=True):
        if into is not None and one is not None and len(one):
            _as_items(into)[part_rows] = _as_items(one)


def _as_items(tensor: Tensor) -> np.ndarray:
    """[n, ...] as n opaque items of a row's bytes each, sharing memory."""
    flat = tensor.contiguous().view(len(tensor), -1).view(torch.uint8).numpy()
    return flat.view(np.dtype((np.void, flat.shape[1])))[:, 0]


def _add(errors: dict[str, list[float]], name: str, sums: ErrorSums) -> None:
    held = errors.setdefault(name, [0.0, 0.0])
    held[0] += float(sums.error)
    held[1] += float(sums.variance)


def not_finite(copy: Copy, points: Mapping[str, str], dtype: str) -> MiCrowError:
    """The error naming the first layer and document with a value that is not finite."""
    owners = np.repeat(copy.batch.documents, copy.batch.counts)
    for name, rows in copy.rows.items():
        wrong = ~rows.norms.isfinite()
        if rows.values.is_floating_point():
            wrong |= ~rows.values.isfinite().all(dim=1)
        if bool(wrong.any()):
            document = owners[int(wrong.nonzero()[0, 0])]
            hint = "compute in fp32 or bf16 (--model-dtype), or leave that document out"
            if dtype == "fp16":
                hint = "store bf16 (--dtype), which has room for large values, or " + hint
            return MiCrowError(
                f"layer {points[name]!r} gave NaN or infinity in document {document}", hint=hint
            )
    raise AssertionError("every row is finite")
