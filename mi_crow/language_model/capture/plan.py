"""One part of a run before the model has seen it: its rows, and the batches they go through in."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from mi_crow.language_model.capture.windows import Row
from mi_crow.store.runs.parts import DOCUMENT_SCHEMA

_LIKE = 0.8  # of the longest row's length
_WORTH = 0.25  # of the batch size


@dataclass(frozen=True)
class Batch:
    """Some rows of a part, padded on the right.

    No attention mask: in a causal model nothing attends to what stands to its right, and only kept
    tokens are read.
    """

    input_ids: Tensor  # [rows, length] int64
    picked: Tensor  # [n] int64: where the kept tokens stand in the flattened `input_ids`
    places: np.ndarray  # [n] int64: which of the part's tokens they are
    counts: tuple[int, ...]  # kept tokens of each row
    documents: tuple[int, ...]  # number of each row's document in the dataset
    begun: int  # documents that begin in these rows

    def at_most(self, rows: int) -> Iterator["Batch"]:
        """The same in batches of at most so many rows."""
        if rows >= len(self.counts):
            yield self
            return
        length, ends = self.input_ids.shape[1], np.cumsum((0, *self.counts))
        begun = self.begun
        for start in range(0, len(self.counts), rows):
            stop = min(start + rows, len(self.counts))
            tokens = slice(int(ends[start]), int(ends[stop]))
            yield Batch(
                self.input_ids[start:stop],
                self.picked[tokens] - start * length,
                self.places[tokens],
                self.counts[start:stop],
                self.documents[start:stop],
                begun if stop == len(self.counts) else 0,
            )


@dataclass(frozen=True)
class PartPlan:
    """What one part will hold."""

    shard: int
    piece: int
    closes: bool
    documents: int  # that begin in it
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
    """Batches of rows of like length, so that padding is a small share; the longest come first, so
    that memory runs out at once or not at all."""
    starts = np.cumsum([0, *(len(row.kept) for row in rows)])
    order = sorted(
        (place for place, row in enumerate(rows) if len(row.kept)),
        key=lambda place: (-len(rows[place].token_ids), place),
    )
    batches = tuple(
        _batch(rows, chosen, starts, fill, pinned)
        for chosen in _alike(order, [len(row.token_ids) for row in rows], batch_size)
    )
    return PartPlan(
        shard,
        piece,
        closes,
        documents=sum(row.begun for row in rows),
        tokens=int(starts[-1]),
        table=_table(rows),
        batches=batches,
        real_positions=sum(len(rows[place].token_ids) for place in order),
        positions=sum(batch.input_ids.numel() for batch in batches),
    )


def _alike(
    order: Sequence[int], lengths: Sequence[int], batch_size: int
) -> Iterator[Sequence[int]]:
    """Cuts rows that stand longest first into batches of at most `batch_size`; sooner, where a
    batch has its worth of rows and the next one would be a quarter padding."""
    start = 0
    for at, place in enumerate(order):
        size, shorter = at - start, lengths[place] < _LIKE * lengths[order[start]]
        if size == batch_size or (shorter and size >= batch_size * _WORTH):
            yield order[start:at]
            start = at
    if order:
        yield order[start:]


def _batch(
    rows: Sequence[Row], chosen: Sequence[int], starts: np.ndarray, fill: int, pinned: bool
) -> Batch:
    length = len(rows[chosen[0]].token_ids)
    ids = np.full((len(chosen), length), fill, np.int64)
    for at, place in enumerate(chosen):
        ids[at, : len(rows[place].token_ids)] = rows[place].token_ids
    picked = np.concatenate(
        [rows[place].kept.astype(np.int64) + at * length for at, place in enumerate(chosen)]
    )
    places = np.concatenate([np.arange(starts[place], starts[place + 1]) for place in chosen])
    tensors = [torch.from_numpy(ids), torch.from_numpy(picked)]
    if pinned:
        tensors = [tensor.pin_memory() for tensor in tensors]
    return Batch(
        tensors[0],
        tensors[1],
        places,
        tuple(len(rows[place].kept) for place in chosen),
        tuple(rows[place].document for place in chosen),
        sum(rows[place].begun for place in chosen),
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
