"""Parts of a run: written whole and without a copy, opened lazily, checked against the manifest."""

import io
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from torch import Tensor

from mi_crow.errors import CorruptDataError
from mi_crow.store.runs.layer_file import LayerFile, write_tensors
from mi_crow.store.runs.manifest import PartSpec
from mi_crow.store.runs.parts import (
    DOCUMENT_SCHEMA,
    DTYPES,
    RunPart,
    dequantised,
    quantise,
    row_norms,
    stored_rows,
    write_part,
)
from mi_crow.store.runs.reader import RunReader
from tests.helpers.stored_runs import LAYER, documents_table, manifest_of, write_run

PARTS = st.lists(st.lists(st.integers(0, 6), min_size=1, max_size=4), min_size=1, max_size=4)
FLOATS = st.floats(-(2.0**100), 2.0**100, width=32, allow_subnormal=False)
STEM = "part-000-00000"


def gaussian(n: int, width: int, seed: int = 0) -> Tensor:
    return torch.randn(n, width, generator=torch.Generator().manual_seed(seed))


def whole_part(folder: Path, x: Tensor, dtype: str) -> RunPart:
    """The only part of a run of one document that holds `x`."""
    manifest = manifest_of(folder, dtype, x.shape[1])
    part = PartSpec(0, 0, 1, len(x))
    write_part(folder, part, documents_table([len(x)]), {LAYER: stored_rows(x, dtype)})
    return RunPart(folder, manifest.layers[0], dtype, part)


@pytest.mark.slow
@given(parts=PARTS, data=st.data())
@settings(max_examples=40, deadline=None)
def test_every_row_knows_its_document_and_position(
    parts: list[list[int]], data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    if not sum(map(sum, parts)):
        return
    documents = sum(map(len, parts))
    heldout = data.draw(st.sets(st.integers(0, documents - 1)))
    folder = tmp_path_factory.mktemp("run")
    write_run(folder, parts, heldout)
    row = first = 0
    for part in RunReader(folder, "resid_post.0").parts():
        values = part.take(slice(None))
        for local in range(len(part)):
            document = int(part.row_document[local])
            assert values[local].tolist() == [row, document, part.row_position[local]]
            assert bool(part.row_split[local]) == (document in heldout)
            assert part.table_row[local] == document - first
            row += 1
        first += part.table.num_rows
    assert row == sum(map(sum, parts))


@pytest.mark.parametrize("dtype", ["fp32", "bf16", "fp16"])
def test_rows_come_back_as_they_were_rounded(tmp_path: Path, dtype: str) -> None:
    x = gaussian(50, 7) * 30
    part = whole_part(tmp_path, x, dtype)
    assert torch.equal(part.take(slice(None)), x.to(DTYPES[dtype]))
    index = torch.tensor([3, 49, 3, 0])
    assert torch.equal(part.take(index), x[index].to(DTYPES[dtype]))
    assert torch.equal(part.take(slice(5, 9)), x[5:9].to(DTYPES[dtype]))
    # Norms are those of the rows before rounding.
    torch.testing.assert_close(part.norms, x.double().norm(dim=1).float())


def test_int8_rows_come_back_in_fp32_and_near(tmp_path: Path) -> None:
    x = gaussian(50, 7) * torch.logspace(-3, 3, 50)[:, None]
    part = whole_part(tmp_path, x, "int8")
    taken = part.take(slice(None))
    assert taken.dtype == torch.float32
    assert torch.equal(part.take(torch.tensor([7, 2])), taken[[7, 2]])
    half_a_step = x.abs().amax(1, keepdim=True) / 127 / 2
    assert bool(((taken - x).abs() <= half_a_step * 1.001).all())
    stored = part.stored(slice(3, 5))
    assert stored.values.dtype == torch.int8
    assert stored.scales is not None
    assert torch.equal(dequantised(stored.values, stored.scales), taken[3:5])


def test_int8_costs_little_even_beside_massive_tokens() -> None:
    x = gaussian(2000, 576)
    x[::100] *= 300
    values, scales = quantise(x)
    error = (dequantised(values, scales) - x).square().sum(1)
    usual = torch.arange(len(x)) % 100 != 0
    for rows in (usual, ~usual):  # a scale a token: the massive ones take nothing from the others
        variance = (x[rows] - x[rows].mean(0)).square().sum()
        assert float(error[rows].sum() / variance) < 1e-4


def test_rows_that_have_no_scale_are_zeros() -> None:
    x = torch.stack([torch.zeros(4), torch.full((4,), 1e-44), torch.full((4,), -1e-38)])
    values, scales = quantise(x)
    assert scales[0] == 0
    assert values[0].tolist() == [0] * 4
    assert bool(dequantised(values, scales).isfinite().all())


@given(rows=st.lists(st.lists(FLOATS, min_size=3, max_size=3)))
def test_quantising_is_off_by_half_a_step_at_most(rows: list[list[float]]) -> None:
    x = torch.tensor(rows, dtype=torch.float32).reshape(-1, 3)
    values, scales = quantise(x)
    assert values.dtype == torch.int8
    assert bool((values.abs() <= 127).all())
    normal = scales[:, None] > 1e-36  # below, fp32 itself has no such steps
    off = (dequantised(values, scales) - x).abs()
    assert bool((off <= scales[:, None] * 0.5001)[normal.expand_as(off)].all())


def test_norms_are_taken_in_fp32() -> None:
    rows = (gaussian(5000, 64) * 30).bfloat16()
    expected = rows.double().square().sum(1).sqrt().float()
    torch.testing.assert_close(row_norms(rows), expected)
    assert row_norms(rows[:0]).shape == (0,)


@pytest.mark.parametrize("dtype", ["fp32", "bf16", "int8"])
def test_files_are_what_other_tools_read(tmp_path: Path, dtype: str) -> None:
    x = gaussian(11, 5)
    part = whole_part(tmp_path, x, dtype)
    tensors = load_file(part.file.path)
    names = {"activations", "norms", "heldout"} | ({"scales"} if dtype == "int8" else set())
    assert tensors.keys() == names
    assert tensors["heldout"].dtype == torch.uint8
    for name, tensor in tensors.items():
        assert torch.equal(tensor, part.file.tensor(name))
    documents = pq.read_table(tmp_path / "tokens" / f"{STEM}.parquet")
    assert documents.column_names[:2] == ["document", "window"]


def test_writing_takes_the_bytes_from_where_they_are() -> None:
    class Sink(io.BytesIO):
        places: list[int] = []

        def write(self, data: Any) -> int:
            self.places.append(np.frombuffer(data, np.uint8).ctypes.data)
            return super().write(data)

    sink, x = Sink(), gaussian(1000, 16).bfloat16()
    write_tensors(sink, {"activations": x})
    assert x.data_ptr() in sink.places


def test_windows_share_a_document_and_keep_their_places(tmp_path: Path) -> None:
    manifest = manifest_of(tmp_path)
    table = documents_table([2, 3], first=4, windows=[0, 1])
    part = PartSpec(0, 0, 1, 5)
    write_part(tmp_path, part, table, {LAYER: stored_rows(gaussian(5, 3), "fp32")})
    opened = RunPart(tmp_path, manifest.layers[0], "fp32", part)
    assert opened.row_document.tolist() == [4] * 5
    assert opened.row_window.tolist() == [0, 0, 1, 1, 1]
    assert opened.table_row.tolist() == [0, 0, 1, 1, 1]
    assert opened.row_position.tolist() == [1, 3, 1, 3, 5]


def test_runs_of_the_first_format_still_read(tmp_path: Path) -> None:
    write_run(tmp_path, [[2, 3], [4]], heldout={1})
    for file in (tmp_path / LAYER).iterdir():
        tensors = load_file(file)
        save_file({name: tensors[name] for name in ("activations", "norms")}, file)
    for file in (tmp_path / "tokens").iterdir():
        pq.write_table(pq.read_table(file).drop_columns(["window"]), file)
    content = json.loads((tmp_path / "manifest.json").read_text()) | {"format_version": 1}
    for part in content["parts"]:
        for name in ("shard", "piece", "closes"):
            del part[name]
    (tmp_path / "manifest.json").write_text(json.dumps(content))
    reader = RunReader(tmp_path, LAYER)
    first, second = reader.parts()
    assert first.row_split.tolist() == [False, False, True, True, True]
    assert first.row_window.tolist() == [0] * 5
    assert first.table.schema == DOCUMENT_SCHEMA
    assert second.take(slice(0, 1)).tolist() == [[5, 2, 1]]
    assert reader.count("heldout") == 3


def replaced_header(change: Callable[[dict[str, Any]], Any]) -> Callable[[Path], None]:
    """Damage that rewrites a file's header and leaves its bytes alone."""

    def damage(path: Path) -> None:
        content = path.read_bytes()
        length = int.from_bytes(content[:8], "little")
        header = json.loads(content[8 : 8 + length])
        changed = change(header)
        text = json.dumps(header if changed is None else changed).encode()
        text += b" " * (-len(text) % 8)
        path.write_bytes(len(text).to_bytes(8, "little") + text + content[8 + length :])

    return damage


def set_entry(tensor: str, field: str, value: Any) -> Callable[[dict[str, Any]], None]:
    def change(header: dict[str, Any]) -> None:
        header[tensor][field] = value

    return change


def exchange(path: Path) -> None:
    other = path.parents[2] / "other"
    write_run(other, [[5]])
    shutil.copy(other / LAYER / path.name, path)


LAYER_DAMAGE: dict[str, Callable[[Path], Any]] = {
    "missing": Path.unlink,
    "cut": lambda path: path.write_bytes(path.read_bytes()[:-4]),
    "cut in its header": lambda path: path.write_bytes(path.read_bytes()[:40]),
    "cut in its length": lambda path: path.write_bytes(b"\x01\x02"),
    "empty": lambda path: path.write_bytes(b""),
    "something else": lambda path: path.write_bytes(b"\xff" * 200),
    "no JSON": lambda path: path.write_bytes((8).to_bytes(8, "little") + b"not json" * 9),
    "JSON of another kind": replaced_header(lambda header: [1, 2]),
    "a longer tensor": replaced_header(set_entry("activations", "shape", [4, 3])),
    "another width": replaced_header(set_entry("activations", "shape", [9, 1])),
    "a negative shape": replaced_header(set_entry("activations", "shape", [-3, -3])),
    "bytes beyond the end": replaced_header(
        set_entry("activations", "data_offsets", [10**6, 10**6 + 36])
    ),
    "bytes before the start": replaced_header(set_entry("activations", "data_offsets", [-36, 0])),
    "another dtype": replaced_header(set_entry("norms", "dtype", "I8")),
    "an unknown dtype": replaced_header(set_entry("norms", "dtype", "X9")),
    "endless offsets": replaced_header(set_entry("activations", "data_offsets", [0, float("inf")])),
    "brackets alone": lambda path: path.write_bytes((10**5).to_bytes(8, "little") + b"[" * 10**5),
    "no offsets": replaced_header(lambda header: header["norms"].pop("data_offsets") and None),
    "no norms": replaced_header(lambda header: header.pop("norms") and None),
    "rows of another run": exchange,
}


@pytest.mark.parametrize("what", LAYER_DAMAGE)
def test_a_damaged_layer_file_is_named(tmp_path: Path, what: str) -> None:
    folder = tmp_path / "run"
    write_run(folder, [[3]])
    path = folder / LAYER / f"{STEM}.safetensors"
    LAYER_DAMAGE[what](path)
    with pytest.raises(CorruptDataError) as caught:
        list(RunReader(folder, LAYER).parts())
    assert str(path) in caught.value.sentence
    assert "\n" not in caught.value.sentence
    assert caught.value.hint


@given(
    flips=st.lists(st.tuples(st.integers(0, 700), st.integers(0, 255)), min_size=1, max_size=4),
    length=st.integers(0, 700),
)
def test_a_file_of_other_bytes_opens_or_is_called_damaged(
    flips: list[tuple[int, int]], length: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.getbasetemp() / "flipped.safetensors"
    with path.open("wb") as file:
        write_tensors(file, {"activations": gaussian(9, 3), "norms": torch.ones(9)})
    content = bytearray(path.read_bytes())
    for place, value in flips:
        content[place % len(content)] = value
    path.write_bytes(content[:length] if length < len(content) // 2 else content)
    try:
        opened = LayerFile(path)
        for name in opened.places:
            assert opened.tensor(name).shape == opened.read(name).shape
    except CorruptDataError as error:
        assert str(path) in error.sentence  # noqa: PT017 - it may open as well


@pytest.mark.parametrize("what", ["missing", "cut", "something else", "of another run"])
def test_a_damaged_documents_file_is_named_once_it_is_asked_for(tmp_path: Path, what: str) -> None:
    folder = tmp_path / "run"
    write_run(folder, [[3]])
    path = folder / "tokens" / f"{STEM}.parquet"
    if what == "missing":
        path.unlink()
    elif what == "of another run":
        write_run(tmp_path / "other", [[5]])
        shutil.copy(tmp_path / "other" / "tokens" / path.name, path)
    else:
        path.write_bytes(path.read_bytes()[:40] if what == "cut" else b"x" * 200)
    [part] = RunReader(folder, LAYER).parts()
    assert part.row_split.tolist() == [False] * 3
    with pytest.raises(CorruptDataError) as caught:
        _ = part.row_document
    assert str(path) in caught.value.sentence
    assert "\n" not in caught.value.sentence


def test_int8_runs_need_their_scales(tmp_path: Path) -> None:
    part = whole_part(tmp_path, gaussian(4, 3), "int8")
    tensors = load_file(part.file.path)
    del tensors["scales"]
    save_file(tensors, part.file.path)
    with pytest.raises(CorruptDataError, match="has no scales"):
        RunPart(tmp_path, manifest_of(tmp_path).layers[0], "int8", part.spec)


def test_a_file_that_shrinks_or_goes_while_it_is_open_is_named(tmp_path: Path) -> None:
    part = whole_part(tmp_path, gaussian(4, 3), "fp32")
    path = part.file.path
    with part.file.reading("activations") as read:
        assert len(read(slice(1, 3))) == 2
        path.write_bytes(path.read_bytes()[:-30])
        with pytest.raises(CorruptDataError, match=rf"{STEM}.*shorter"):
            read(slice(0, 4))
    path.unlink()
    with pytest.raises(CorruptDataError, match=f"{STEM}.safetensors is missing"):
        part.file.read("norms")
    with pytest.raises(CorruptDataError, match=f"{STEM}.*cannot be mapped"):
        part.take(slice(0, 1))


def test_rows_and_documents_belong_together(tmp_path: Path) -> None:
    rows = {LAYER: stored_rows(gaussian(4, 3), "fp32")}
    with pytest.raises(ValueError, match="4 rows for 5 kept tokens"):
        write_part(tmp_path, PartSpec(0, 0, 1, 5), documents_table([5]), rows)
    assert not list(tmp_path.rglob("*.safetensors"))


def test_a_part_without_rows_is_whole(tmp_path: Path) -> None:
    part = whole_part(tmp_path, gaussian(0, 3), "int8")
    assert part.take(slice(None)).shape == (0, 3)
    assert part.norms.shape == (0,)
    assert part.row_document.shape == (0,)


def test_parts_come_in_the_order_of_the_manifest(tmp_path: Path) -> None:
    manifest = write_run(tmp_path, [[3], [4], [2]])
    manifest.parts = [manifest.parts[2], manifest.parts[0]]
    manifest.save(tmp_path)
    reader = RunReader(tmp_path, LAYER)
    assert [part.take(slice(None))[:, 0].tolist() for part in reader.parts()] == [[7, 8], [0, 1, 2]]
    assert reader.n_tokens == 5
    assert sorted(next(reader.batches(5, 0))[:, 0].tolist()) == [0, 1, 2, 7, 8]


def test_a_failed_write_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("mi_crow.store.runs.parts.write_tensors", full)
    with pytest.raises(OSError, match="No space left"):
        write_run(tmp_path, [[3]])
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []
