"""Parts of a run: written whole, read back, shuffled by seed."""

from collections.abc import Collection
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from mi_crow.errors import CorruptDataError, NotFoundError, UserError
from mi_crow.store import LocalStore
from mi_crow.store.manifest import LayerSpec, PartSpec, RunManifest
from mi_crow.store.parts import DOCUMENT_SCHEMA, row_norms, stored_rows, write_part
from mi_crow.store.reader import RunReader

WIDTH = 3


def write_run(
    folder: Path, parts: list[list[int]], heldout: Collection[int] = (), dtype: str = "fp32"
) -> RunManifest:
    """A run whose parts hold documents of the given numbers of kept tokens.

    Row r of the run is [r, document, position].
    """
    manifest = RunManifest(
        run_id=folder.name,
        model_id="m",
        revision=None,
        tokenizer_hash="",
        layers=[LayerSpec("blocks.0", "resid_post.0", WIDTH)],
        dtype=dtype,
        dataset={},
        fingerprint="",
        settings={},
        created=0.0,
        status="complete",
    )
    document = row = 0
    for index, lengths in enumerate(parts):
        rows, documents = [], []
        for length in lengths:
            kept = [position * 2 + 1 for position in range(length)]
            rows += [[row + i, document, position] for i, position in enumerate(kept)]
            documents.append(
                {
                    "document": document,
                    "window": 0,
                    "text": f"text {document}",
                    "label": None,
                    "split": "heldout" if document in heldout else "train",
                    "token_ids": list(range(2 * length + 1)),
                    "kept": kept,
                }
            )
            document, row = document + 1, row + length
        part = PartSpec(0, index, len(documents), len(rows))
        activations = torch.tensor(rows, dtype=torch.float32).reshape(-1, WIDTH)
        table = pa.Table.from_pylist(documents, schema=DOCUMENT_SCHEMA)
        write_part(folder, part, table, {"blocks.0": stored_rows(activations, dtype)})
        manifest.parts.append(part)
    manifest.save(folder)
    return manifest


def rows_of(batch: Tensor) -> list[int]:
    """The run's row numbers in a batch."""
    return batch[:, 0].long().tolist()


PARTS = st.lists(st.lists(st.integers(0, 6), min_size=1, max_size=4), min_size=1, max_size=4)


@given(parts=PARTS, data=st.data())
@settings(max_examples=60, deadline=None)
def test_every_row_knows_its_document_and_position(
    parts: list[list[int]], data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    if not sum(map(sum, parts)):
        return
    documents = sum(map(len, parts))
    heldout = data.draw(st.sets(st.integers(0, documents - 1)))
    folder = tmp_path_factory.mktemp("run")
    write_run(folder, parts, heldout)
    row = 0
    for part in RunReader(folder, "resid_post.0").parts():
        for local in range(len(part)):
            assert part.take(slice(local, local + 1))[0].tolist() == [
                row,
                part.row_document[local],
                part.row_position[local],
            ]
            assert bool(part.row_split[local]) == (int(part.row_document[local]) in heldout)
            row += 1
    assert row == sum(map(sum, parts))


@given(
    parts=PARTS,
    batch_size=st.integers(1, 9),
    start=st.integers(0, 12),
    seed=st.integers(0, 3),
)
@settings(max_examples=60, deadline=None)
def test_batches_shuffle_whole_epochs_and_go_on_anywhere(
    parts: list[list[int]],
    batch_size: int,
    start: int,
    seed: int,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    total = sum(map(sum, parts))
    if not total:
        return
    folder = tmp_path_factory.mktemp("run")
    write_run(folder, parts)
    count = start + total // batch_size + 3
    reader = RunReader(folder, "blocks.0")
    batches = [rows_of(b) for b in islice(reader.batches(batch_size, seed), count)]
    again = [
        rows_of(b)
        for b in islice(
            RunReader(folder, "blocks.0").batches(batch_size, seed, start=start), count - start
        )
    ]
    assert batches[start:] == again
    assert all(len(batch) == batch_size for batch in batches)
    stream = [row for batch in batches for row in batch]
    for epoch in range(len(stream) // total):
        assert sorted(stream[epoch * total : (epoch + 1) * total]) == list(range(total))


def test_epochs_and_seeds_differ_in_order(tmp_path: Path) -> None:
    write_run(tmp_path, [[20, 20], [10]])
    reader = RunReader(tmp_path, "blocks.0")
    first, second = (rows_of(batch) for batch in islice(reader.batches(50, 0), 2))
    assert first != second
    assert rows_of(next(reader.batches(50, 1))) != first
    assert first != sorted(first)


def test_splits_and_massive_tokens_are_left_out(tmp_path: Path) -> None:
    write_run(tmp_path, [[4, 4], [4]], heldout={1})
    reader = RunReader(tmp_path, "blocks.0")
    assert sorted(rows_of(next(reader.batches(8, 0)))) == [0, 1, 2, 3, 8, 9, 10, 11]
    assert sorted(rows_of(reader.sample(100, 0, split="heldout"))) == [4, 5, 6, 7]
    # Row 8 is the first of document 2: its norm is that of [8, 2, 1].
    limit = float(torch.tensor([8.0, 2.0, 1.0]).norm()) + 1e-4
    assert rows_of(reader.sample(100, 0, max_norm=limit)) == [0, 1, 2, 3, 8]


def test_a_sample_is_decided_by_its_seed(tmp_path: Path) -> None:
    write_run(tmp_path, [[30], [30]])
    reader = RunReader(tmp_path, "blocks.0")
    drawn = rows_of(reader.sample(10, 0))
    assert drawn == sorted(drawn)
    assert len(set(drawn)) == 10
    assert drawn == rows_of(RunReader(tmp_path, "blocks.0").sample(10, 0))
    assert drawn != rows_of(reader.sample(10, 1))


def test_norms_are_taken_in_fp32(tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(0)
    rows = (torch.randn(5000, 64, generator=generator) * 30).bfloat16()
    expected = rows.double().square().sum(1).sqrt().float()
    torch.testing.assert_close(row_norms(rows), expected)
    assert row_norms(rows[:0]).shape == (0,)


def test_the_median_norm_is_over_all_parts(tmp_path: Path) -> None:
    write_run(tmp_path, [[3], [4]])
    reader = RunReader(tmp_path, "blocks.0")
    norms = torch.cat([row_norms(part.take(slice(None))) for part in reader.parts()])
    assert reader.median_norm() == float(norms.median())


def test_storage_dtype_is_kept(tmp_path: Path) -> None:
    write_run(tmp_path, [[3]], dtype="bf16")
    reader = RunReader(tmp_path, "blocks.0")
    assert reader.sample(3, 0).dtype == torch.bfloat16
    assert (reader.width, reader.n_tokens) == (WIDTH, 3)


def test_unknown_layers_and_splits_are_told(tmp_path: Path) -> None:
    write_run(tmp_path, [[3]])
    with pytest.raises(NotFoundError, match=r"layer 'blocks\.1' is not in run"):
        RunReader(tmp_path, "blocks.1")
    with pytest.raises(UserError, match="holds no heldout tokens"):
        next(RunReader(tmp_path, "blocks.0").batches(2, 0, split="heldout"))


def damage(folder: Path, what: str) -> None:
    activations = folder / "blocks.0" / "part-000-00000.safetensors"
    tokens = folder / "tokens" / "part-000-00000.parquet"
    if what == "missing":
        activations.unlink()
    elif what == "cut":
        activations.write_bytes(activations.read_bytes()[:-4])
    elif what == "no tokens":
        tokens.unlink()
    elif what == "cut tokens":
        tokens.write_bytes(tokens.read_bytes()[:40])
    else:
        write_run(folder.parent / "other", [[5]])
        other = folder.parent / "other" / "blocks.0" / activations.name
        other.replace(activations)


@pytest.mark.parametrize("what", ["missing", "cut", "no tokens", "cut tokens", "exchanged"])
def test_damaged_files_are_named(tmp_path: Path, what: str) -> None:
    folder = tmp_path / "run"
    write_run(folder, [[3]])
    damage(folder, what)
    with pytest.raises(CorruptDataError, match="part-000-00000"):
        read_all(folder)


def read_all(folder: Path) -> list[list[int]]:
    """The positions of every part's rows."""
    return [part.row_position.tolist() for part in RunReader(folder, "blocks.0").parts()]


def test_a_part_exists_once_the_manifest_names_it(tmp_path: Path) -> None:
    manifest = write_run(tmp_path, [[3], [4]])
    manifest.parts.pop()
    manifest.save(tmp_path)
    assert RunReader(tmp_path, "blocks.0").n_tokens == 3
    assert len(list(RunReader(tmp_path, "blocks.0").parts())) == 1


def test_a_failed_write_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("mi_crow.store.parts.write_tensors", full)
    with pytest.raises(OSError, match="No space left"):
        write_run(tmp_path, [[3]])
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_a_local_store_is_a_workspace(tmp_path: Path) -> None:
    store = LocalStore(tmp_path / "w")
    write_run(store.workspace.make_run_dir("first", ""), [[2]])
    assert store.list_runs() == ["first"]
    assert store.get_run_metadata("first").n_tokens == 2
    assert store.base_path == tmp_path / "w"
    with pytest.raises(NotFoundError, match="run 'none' not found"):
        store.get_run_metadata("none")
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="is a file"):
        LocalStore(tmp_path / "file")
