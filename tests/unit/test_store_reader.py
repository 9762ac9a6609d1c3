"""Reading a run: lazily, shuffled by seed within bounded memory, going on anywhere."""

import json
import math
import os
import threading
from collections import Counter
from collections.abc import Iterator
from itertools import chain, islice
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mi_crow.errors import CorruptDataError, NotFoundError, UserError
from mi_crow.store.runs import blocks
from mi_crow.store.runs.manifest import PartSpec
from mi_crow.store.runs.parts import RunPart
from mi_crow.store.runs.reader import RunReader
from tests.helpers.stored_runs import LAYER, WIDTH, manifest_of, rows_of, write_run

PARTS = st.lists(st.lists(st.integers(0, 9), min_size=1, max_size=5), min_size=1, max_size=4)
ROW_BYTES = WIDTH * 4


@pytest.fixture(scope="module", autouse=True)
def no_syncs() -> Iterator[None]:
    """Hundreds of small runs are written here; what a crash would leave of them is no matter."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda _: None)
        yield


@pytest.mark.slow
@given(
    parts=PARTS,
    batch_size=st.integers(1, 9),
    start=st.integers(0, 40),
    seed=st.integers(0, 3),
    buffer_rows=st.sampled_from([1, 4, 13, 10_000]),
    data=st.data(),
)
def test_batches_give_every_wanted_row_once_an_epoch_and_go_on_anywhere(
    parts: list[list[int]],
    batch_size: int,
    start: int,
    seed: int,
    buffer_rows: int,
    data: st.DataObject,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    documents = sum(map(len, parts))
    heldout = data.draw(st.sets(st.integers(0, documents - 1)))
    max_norm = data.draw(st.sampled_from([None, 12.5]))
    folder = tmp_path_factory.mktemp("run")
    if not sum(map(sum, parts)):
        return
    write_run(folder, parts, heldout)

    def reader() -> RunReader:
        return RunReader(folder, LAYER, buffer_bytes=buffer_rows * ROW_BYTES)

    wanted = [
        int(values[0])
        for part in reader().parts()
        for values, norm, out in zip(
            part.take(slice(None)).tolist(), part.norms, part.row_split, strict=True
        )
        if not out and (max_norm is None or norm <= max_norm)
    ]
    assert reader().count("train", max_norm) == len(wanted)
    if not wanted:
        return
    count = start + 2 * len(wanted) // batch_size + 3
    stream = reader().batches(batch_size, seed, max_norm=max_norm)
    # Kept as tensors until all are there: memory is used again, but not theirs.
    batches = list(map(rows_of, list(islice(stream, count))))
    again = reader().batches(batch_size, seed, max_norm=max_norm, start=start)
    assert [rows_of(batch) for batch in islice(again, count - start)] == batches[start:]
    assert all(len(batch) == batch_size for batch in batches)
    rows = [row for batch in batches for row in batch]
    for epoch in range(len(rows) // len(wanted)):
        given_out = rows[epoch * len(wanted) : (epoch + 1) * len(wanted)]
        assert sorted(given_out) == wanted


def test_a_run_that_fits_is_permuted_as_a_whole(tmp_path: Path) -> None:
    write_run(tmp_path, [[20, 20], [10]], heldout={1})
    wanted = np.r_[0:20, 40:50]
    order = np.concatenate([np.random.default_rng([7, epoch]).permutation(30) for epoch in (0, 1)])
    reader = RunReader(tmp_path, LAYER)
    batches = [rows_of(batch) for batch in islice(reader.batches(12, 7), 5)]
    assert list(chain(*batches)) == wanted[order].tolist()
    drawn = np.random.default_rng([7, 2**40]).permutation(30)[:9]
    assert rows_of(reader.sample(9, 7)) == sorted(wanted[drawn])


@pytest.mark.parametrize("buffer_rows", [10_000, 20])
def test_epochs_and_seeds_differ_in_order(tmp_path: Path, buffer_rows: int) -> None:
    write_run(tmp_path, [[20, 20], [10]])
    reader = RunReader(tmp_path, LAYER, buffer_bytes=buffer_rows * ROW_BYTES)
    first, second = (rows_of(batch) for batch in islice(reader.batches(50, 0), 2))
    assert first != second
    assert rows_of(next(reader.batches(50, 1))) != first
    assert first != sorted(first)


def test_blocks_mix_rows_of_the_whole_run(tmp_path: Path) -> None:
    documents, length, batch_size = 120, 50, 100
    write_run(tmp_path, [[length] * 30] * 4)
    rows = documents * length
    reader = RunReader(tmp_path, LAYER, buffer_bytes=rows // 2 * ROW_BYTES)
    stream = [rows_of(batch) for batch in islice(reader.batches(batch_size, 0), rows // batch_size)]
    for batch in stream:
        owners = Counter(row // length for row in batch)
        # A plain shuffle gives 68 documents on average and hardly ever five rows of one.
        assert len(owners) > 30
        assert max(owners.values()) <= 15
        assert len({row // (rows // 4) for row in batch}) == 4  # all parts
    order = np.concatenate(stream)
    neighbours = np.mean(np.abs(np.diff(order)) == 1)
    assert neighbours < 0.01
    place = np.empty(rows)
    place[order] = np.arange(rows)
    spread = place.reshape(documents, length)
    # Each document's rows are far apart: a block is a sixth of the run.
    assert np.median(np.ptp(spread, axis=1)) > rows / 2


def test_memory_holds_so_many_rows_at_most(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = []
    original = blocks.read_blocks

    def counting(*arguments: Any, **others: Any) -> Iterator[blocks.Block]:
        for block in original(*arguments, **others):
            sizes.append(len(block))
            yield block

    monkeypatch.setattr("mi_crow.store.runs.reader.read_blocks", counting)
    write_run(tmp_path, [[100] * 5] * 4)
    reader = RunReader(tmp_path, LAYER, buffer_bytes=300 * ROW_BYTES)
    list(islice(reader.batches(100, 0), 20))
    assert len(sizes) >= 20
    assert max(sizes) <= 102
    # Going on late in the second epoch reads no block that it does not give out.
    before = len(sizes)
    list(islice(reader.batches(100, 0, start=37), 1))
    assert len(sizes) - before <= 4


@given(
    wanted=st.lists(st.integers(1, 8), min_size=1, max_size=40),
    block_rows=st.integers(1, 60),
    seed=st.integers(0, 5),
    epoch=st.integers(0, 3),
)
def test_a_plan_has_every_chunk_once_in_blocks_of_like_size(
    wanted: list[int], block_rows: int, seed: int, epoch: int
) -> None:
    masks = [np.arange(8) < count for count in wanted]
    chunks = blocks.cut_chunks(masks, 8)
    plans = blocks.plan_epoch(chunks, block_rows, seed, epoch)
    assert sorted(np.concatenate([plan.chunks for plan in plans]).tolist()) == list(
        range(len(wanted))
    )
    ends = np.cumsum([plan.rows for plan in plans])
    assert [plan.first for plan in plans] == [0, *ends[:-1].tolist()]
    assert all(plan.rows < block_rows + 8 for plan in plans)
    assert len({plan.seed for plan in plans}) == len(plans)


def test_splits_and_massive_tokens_are_left_out(tmp_path: Path) -> None:
    write_run(tmp_path, [[4, 4], [4]], heldout={1})
    reader = RunReader(tmp_path, LAYER)
    assert sorted(rows_of(next(reader.batches(8, 0)))) == [0, 1, 2, 3, 8, 9, 10, 11]
    assert sorted(rows_of(reader.sample(100, 0, split="heldout"))) == [4, 5, 6, 7]
    # Row 8 is the first of document 2: its norm is that of [8, 2, 1].
    limit = float(torch.tensor([8.0, 2.0, 1.0]).norm()) + 1e-4
    assert rows_of(reader.sample(100, 0, max_norm=limit)) == [0, 1, 2, 3, 8]
    assert (reader.count(), reader.count("heldout"), reader.count("train", limit)) == (8, 4, 5)


@pytest.mark.parametrize("buffer_rows", [10_000, 20])
def test_a_sample_is_decided_by_its_seed(tmp_path: Path, buffer_rows: int) -> None:
    write_run(tmp_path, [[30], [30]], heldout={7})
    bytes_ = buffer_rows * ROW_BYTES
    reader = RunReader(tmp_path, LAYER, buffer_bytes=bytes_)
    drawn = rows_of(reader.sample(10, 0))
    assert drawn == sorted(drawn)
    assert len(set(drawn)) == 10
    assert drawn == rows_of(RunReader(tmp_path, LAYER, buffer_bytes=bytes_).sample(10, 0))
    assert drawn != rows_of(reader.sample(10, 1))
    assert rows_of(reader.sample(1000, 0)) == list(range(60))
    often = Counter(row for seed in range(200) for row in rows_of(reader.sample(6, seed)))
    assert len(often) == 60  # each row is drawn 20 times on average
    assert max(often.values()) < 45


@given(
    norms=st.lists(
        st.floats(0, 2.0**100, width=32, allow_subnormal=False) | st.sampled_from([0.0, 1.0, 1.5]),
        min_size=1,
        max_size=40,
    ),
    cut=st.integers(0, 40),
)
def test_the_median_norm_is_exact_over_all_parts(norms: list[float], cut: int) -> None:
    reader = object.__new__(RunReader)
    pieces = [torch.tensor(piece, dtype=torch.float32) for piece in (norms[:cut], norms[cut:])]
    reader.manifest = manifest_of(Path("run"))
    reader.manifest.parts = [PartSpec(0, i, 1, len(piece)) for i, piece in enumerate(pieces)]
    reader.__dict__["_parts"] = [
        SimpleNamespace(file=SimpleNamespace(read={"norms": piece}.get)) for piece in pieces
    ]
    assert reader.median_norm() == float(torch.tensor(norms, dtype=torch.float32).median())


@pytest.mark.parametrize("buffer_rows", [10_000, 2])
@pytest.mark.parametrize(("dtype", "given_as"), [("bf16", torch.bfloat16), ("int8", torch.float32)])
def test_rows_come_in_the_storage_dtype_int8_ones_in_fp32(
    tmp_path: Path, dtype: str, given_as: torch.dtype, buffer_rows: int
) -> None:
    write_run(tmp_path, [[2, 3], [4]], dtype=dtype)
    reader = RunReader(tmp_path, LAYER, buffer_bytes=buffer_rows * ROW_BYTES)
    stored = torch.cat([part.take(slice(None)) for part in reader.parts()])
    sample, batch = reader.sample(9, 0), next(reader.batches(9, 0))
    assert (sample.dtype, batch.dtype) == (given_as, given_as)
    assert torch.equal(sample, stored)
    assert sorted(batch.tolist()) == sorted(stored.tolist())
    assert (reader.width, reader.n_tokens) == (WIDTH, 9)


def test_unknown_layers_and_splits_without_tokens_are_told(tmp_path: Path) -> None:
    write_run(tmp_path, [[3]])
    with pytest.raises(NotFoundError, match=r"layer 'blocks\.1' is not in run"):
        RunReader(tmp_path, "blocks.1")
    with pytest.raises(UserError, match="has no heldout tokens"):
        next(RunReader(tmp_path, LAYER).batches(2, 0, split="heldout"))
    assert RunReader(tmp_path, LAYER).sample(2, 0, split="heldout").shape == (0, WIDTH)


def sparse_run(folder: Path, parts: int, tokens: int, width: int) -> int:
    """A run of holes: the files say how large they are and hold no data. Gives their bytes."""
    manifest = manifest_of(folder, "bf16", width)
    total = 0
    (folder / LAYER).mkdir(parents=True)
    places, end = {}, 0
    for name, kind, size, shape in (
        ("norms", "F32", 4, [tokens]),
        ("activations", "BF16", 2, [tokens, width]),
        ("heldout", "U8", 1, [tokens]),
    ):
        begin, end = end, end + math.prod(shape) * size
        places[name] = {"dtype": kind, "shape": shape, "data_offsets": [begin, end]}
    header = json.dumps(places).encode()
    header += b" " * (-len(header) % 8)
    for index in range(parts):
        part = PartSpec(0, index, 1, tokens, shard=index)
        with (folder / LAYER / f"{part.stem}.safetensors").open("wb") as file:
            file.write(len(header).to_bytes(8, "little") + header)
            file.truncate(8 + len(header) + end)
        total += end
        manifest.parts.append(part)
    manifest.save(folder)
    return total


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The parts that were opened, by name."""
    stems: list[str] = []
    original = RunPart.__init__

    def counting(self: RunPart, *arguments: Any) -> None:
        stems.append(arguments[-1].stem)
        original(self, *arguments)

    monkeypatch.setattr(RunPart, "__init__", counting)
    return stems


def test_a_run_of_100_gb_opens_without_a_look_at_its_parts(
    tmp_path: Path, opened: list[str]
) -> None:
    assert sparse_run(tmp_path, parts=100, tokens=870_000, width=576) > 100e9
    reader = RunReader(tmp_path, LAYER)
    assert (reader.n_tokens, reader.width) == (87_000_000, 576)
    first = next(reader.parts())
    assert opened == ["part-000-00000"]
    assert first.take(torch.tensor([869_999, 5])).shape == (2, 576)


@pytest.mark.slow
def test_training_on_a_run_larger_than_memory_starts_at_once(tmp_path: Path) -> None:
    assert sparse_run(tmp_path, parts=13, tokens=123_000, width=4096) > 13e9
    reader = RunReader(tmp_path, LAYER, buffer_bytes=24 << 20)
    assert next(reader.batches(512, 0, start=10**7)).shape == (512, 4096)
    assert reader.median_norm() == 0.0
    assert reader.sample(100, 0).shape == (100, 4096)


@pytest.mark.parametrize("buffer_rows", [10_000, 4])
def test_documents_are_never_read_for_training(tmp_path: Path, buffer_rows: int) -> None:
    write_run(tmp_path, [[4, 4], [4]], heldout={1})
    for file in (tmp_path / "tokens").iterdir():
        file.write_bytes(b"not Parquet")
    reader = RunReader(tmp_path, LAYER, buffer_bytes=buffer_rows * ROW_BYTES)
    limit = 10 * reader.median_norm()
    assert len(next(reader.batches(6, 0, "train", limit))) == 6
    assert len(reader.sample(3, 0, "heldout", limit)) == 3


def reading_threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name == "run-reader"]


def test_the_reading_thread_ends_with_its_batches(tmp_path: Path) -> None:
    write_run(tmp_path, [[40], [40]])
    batches = RunReader(tmp_path, LAYER, buffer_bytes=12 * ROW_BYTES).batches(3, 0)
    next(batches)
    assert reading_threads() == ["run-reader"]
    assert isinstance(batches, Iterator)
    batches.close()  # type: ignore[attr-defined]
    assert reading_threads() == []


def test_a_part_that_is_cut_while_training_is_named(tmp_path: Path) -> None:
    write_run(tmp_path, [[40], [40]])
    batches = RunReader(tmp_path, LAYER, buffer_bytes=12 * ROW_BYTES).batches(3, 0)
    next(batches)
    path = tmp_path / LAYER / "part-000-00001.safetensors"
    path.write_bytes(path.read_bytes()[:600])
    with pytest.raises(CorruptDataError) as caught:
        list(islice(batches, 100))
    assert str(path) in caught.value.sentence
    assert reading_threads() == []


def test_a_part_exists_once_the_manifest_names_it(tmp_path: Path) -> None:
    manifest = write_run(tmp_path, [[3], [4]])
    manifest.parts.pop()
    manifest.save(tmp_path)
    assert RunReader(tmp_path, LAYER).n_tokens == 3
    assert len(list(RunReader(tmp_path, LAYER).parts())) == 1
