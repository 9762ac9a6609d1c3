"""A process that trains with others reads its own rows of every batch, and no others."""

import os
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import pytest
import torch

from mi_crow.store.runs.layer_file import LayerFile
from mi_crow.store.runs.pair import PairReader
from mi_crow.store.runs.reader import RunReader
from mi_crow.store.runs.reads import Reads
from tests.helpers.stored_runs import LAYER, WIDTH, write_run

PARTS = [[7, 3, 9], [11], [4, 5, 6], [8, 2]]
ROWS = sum(map(sum, PARTS))


@pytest.fixture(autouse=True)
def _no_syncs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "fsync", lambda _: None)


@pytest.mark.parametrize("dtype", ["fp32", "bf16", "int8"])
@pytest.mark.parametrize("buffer_rows", [10_000, 25])
@pytest.mark.parametrize("world", [1, 3])
def test_the_parts_of_all_processes_are_the_batches(
    tmp_path: Path, dtype: str, buffer_rows: int, world: int
) -> None:
    write_run(tmp_path, PARTS, {1}, dtype)
    for batch_size, start in ((7, 0), (5, 9), (64, 2)):
        reader = RunReader(tmp_path, LAYER, buffer_rows * WIDTH * 4)
        whole = list(islice(reader.batches(batch_size, 3, start=start), 20))
        parts = [
            list(islice(reader.batches(batch_size, 3, start=start, reads=Reads(n, world)), 20))
            for n in range(world)
        ]
        for number, batch in enumerate(whole):
            assert torch.equal(torch.cat([part[number] for part in parts]), batch)
            cut = batch.tensor_split(world)
            assert [len(part[number]) for part in parts] == [len(one) for one in cut]


def test_pairs_of_layers_are_read_in_the_same_parts(tmp_path: Path) -> None:
    write_run(tmp_path, PARTS)
    pair = PairReader(tmp_path, LAYER, LAYER, 25 * WIDTH * 8)
    whole = list(islice(pair.batches(6, 1), 9))
    parts = [list(islice(pair.batches(6, 1, reads=Reads(n, 2)), 9)) for n in range(2)]
    for number, batch in enumerate(whole):
        assert torch.equal(torch.cat([part[number] for part in parts]), batch)


def test_bytes_of_others_stay_on_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_run(tmp_path, PARTS)
    read: list[int] = []
    reading = LayerFile.reading

    def counted(self: LayerFile, name: str):  # type: ignore[no-untyped-def]
        from contextlib import contextmanager

        @contextmanager
        def counting() -> Iterator[object]:
            with reading(self, name) as one:

                def count(stretch: slice) -> object:
                    read.append((stretch.stop - stretch.start) if name == "activations" else 0)
                    return one(stretch)

                yield count

        return counting()

    def of(reads: Reads) -> int:
        reader = RunReader(tmp_path, LAYER, 24 * WIDTH * 4)
        reader.count()
        read.clear()
        batches = reader.batches(4, 0, reads=reads)
        for _ in islice(batches, ROWS // 4):
            pass
        batches.close()  # type: ignore[attr-defined]
        return sum(read)

    monkeypatch.setattr(LayerFile, "reading", counted)
    alone = of(Reads())
    shared = [of(Reads(n, 4)) for n in range(4)]
    # A block or two are read ahead of what is used.
    assert alone <= 2 * ROWS
    assert max(shared) <= alone / 4 + 4


def test_rows_are_gathered_into_the_memory_that_was_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_run(tmp_path, PARTS)
    made: list[torch.Tensor] = []

    def room(self: Reads, rows: int, width: int, kind: torch.dtype) -> torch.Tensor:
        assert self.pinned or not rows
        made.append(torch.empty(rows, width, dtype=kind))
        return made[-1]

    monkeypatch.setattr(Reads, "room", room)
    for buffer_rows in (10_000, 25):
        reader = RunReader(tmp_path, LAYER, buffer_rows * WIDTH * 4)
        for batch in islice(reader.batches(6, 0, reads=Reads(1, 2, pinned=True)), 8):
            assert any(batch.data_ptr() == one.data_ptr() for one in made)
