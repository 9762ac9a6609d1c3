"""The plan of one part of a run: its rows, and the batches they go through the model in."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from mi_crow.language_model.capture.windows import Row
from mi_crow.store.runs.parts import DOCUMENT_SCHEMA

_SIMILAR = 0.8  # of the longest row's length
_FULL_ENOUGH = 0.25  # of the batch size


@dataclass(frozen=True)
class Batch:
    """Some rows of a part, padded on the right.

    No attention mask: in a causal model nothing attends to its right, and only kept tokens are
    read.
    """

    input_ids: Tensor  # [rows, length] int64
    kept: Tensor  # [n] int64: positions of the kept tokens in the flattened `input_ids`
    part_rows: np.ndarray  # [n] int64: the rows of the part that they go to
    counts: tuple[int, ...]  # kept tokens of each row
    documents: tuple[int, ...]  # number of each row's document in the dataset
    documents_started: int  # whose first window is among these rows

    def rows(self, which: slice) -> "Batch":
        """Some of its rows, as a batch of their own; the last ones carry the started documents."""
        n = len(self.counts)
        start, stop, _ = which.indices(n)
        if (start, stop) == (0, n):
            return self
        length, ends = self.input_ids.shape[1], np.cumsum((0, *self.counts))
        tokens = slice(int(ends[start]), int(ends[stop]))
        return Batch(
            self.input_ids[start:stop],
            self.kept[tokens] - start * length,
            self.part_rows[tokens],
            self.counts[start:stop],
            self.documents[start:stop],
            self.documents_started if stop == n else 0,
        )


@dataclass(frozen=True)
class PartPlan:
    """What one part will contain."""

    shard: int
    piece: int
    closes: bool  # the last piece of its shard
    documents: int  # whose first window is in it
    tokens: int  # kept
    table: pa.Table
    batches: tuple[Batch, ...]
    real_positions: int  # tokens that go through the model
    positions: int  # the same with padding


def plan_part(
    rows: Sequence[Row],
    batch_size: int,
    fill: int,
    *,
    shard: int,
    piece: int,
    closes: bool,
    pinned: bool,
) -> PartPlan:
    """Batches of rows of similar length, so that little is padding; the longest come first, so that
    memory runs out at once or never."""
    starts = np.cumsum([0, *(len(row.kept) for row in rows)])
    order = sorted(
        (n for n, row in enumerate(rows) if len(row.kept)),
        key=lambda n: (-len(rows[n].token_ids), n),
    )
    batches = tuple(
        _batch(rows, chosen, starts, fill, pinned)
        for chosen in _similar(order, [len(row.token_ids) for row in rows], batch_size)
    )
    return PartPlan(
        shard,
        piece,
        closes,
        documents=sum(row.documents_started for row in rows),
        tokens=int(starts[-1]),
        table=_table(rows),
        batches=batches,
        real_positions=sum(len(rows[n].token_ids) for n in order),
        positions=sum(batch.input_ids.numel() for batch in batches),
    )


def _similar(
    order: Sequence[int], lengths: Sequence[int], batch_size: int
) -> Iterator[Sequence[int]]:
    """Cuts rows, longest first, into batches of at most `batch_size`; earlier if a batch has enough
    rows and the next row would be mostly padding."""
    start = 0
    for at, n in enumerate(order):
        size, shorter = at - start, lengths[n] < _SIMILAR * lengths[order[start]]
        if size == batch_size or (shorter and size >= batch_size * _FULL_ENOUGH):
            yield order[start:at]
            start = at
    if order:
        yield order[start:]


def _batch(
    rows: Sequence[Row], chosen: Sequence[int], starts: np.ndarray, fill: int, pinned: bool
) -> Batch:
    length = len(rows[chosen[0]].token_ids)
    ids = np.full((len(chosen), length), fill, np.int64)
    for at, n in enumerate(chosen):
        ids[at, : len(rows[n].token_ids)] = rows[n].token_ids
    kept = np.concatenate(
        [rows[n].kept.astype(np.int64) + at * length for at, n in enumerate(chosen)]
    )
    part_rows = np.concatenate([np.arange(starts[n], starts[n + 1]) for n in chosen])
    tensors = [torch.from_numpy(ids), torch.from_numpy(kept)]
    if pinned:
        tensors = [tensor.pin_memory() for tensor in tensors]
    return Batch(
        tensors[0],
        tensors[1],
        part_rows,
        tuple(len(rows[n].kept) for n in chosen),
        tuple(rows[n].document for n in chosen),
        sum(rows[n].documents_started for n in chosen),
    )


def _table(rows: Sequence[Row]) -> pa.Table:
    return pa.table(
        {
            "document": [row.document for row in rows],
            "window": [row.window for row in rows],
            "text": [row.text for row in rows],
            "label": [row.label for row in rows],
            "split": [row.split for row in rows],
            "token_ids": [row.token_ids for row in rows],
            "kept": [row.kept for row in rows],
        },
        schema=DOCUMENT_SCHEMA,
    )
