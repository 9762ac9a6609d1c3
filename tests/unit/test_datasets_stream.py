"""Texts that are not held in memory: order, starting points, limits, samples, fingerprints."""

import json
import shutil
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from datasets import Dataset
from hypothesis import given, settings
from hypothesis import strategies as st

from mi_crow.datasets import TextDataset, Texts, TextStream, load_texts
from mi_crow.datasets import files as files_module
from mi_crow.datasets.sampling import hashes, least_positions, least_rows
from mi_crow.errors import NotFoundError, UserError
from mi_crow.language_model.config import DatasetSpec

# Every seventh record has no text; labels are numbers, as they stand in many files.
RECORDS = [{"text": f"text {n}" if n % 7 else " ", "label": n % 3} for n in range(100)]
KEPT: list[tuple[str, str | None]] = [(f"text {n}", str(n % 3)) for n in range(100) if n % 7]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The records over three files, one of each kind."""
    path = tmp_path / "corpus"
    path.mkdir()
    (path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in RECORDS[:40]))
    Dataset.from_list(RECORDS[40:70]).to_parquet(path / "b.parquet")
    rows = "".join(f'"{row["text"]}",{row["label"]}\n' for row in RECORDS[70:])
    (path / "c.csv").write_text("text,label\n" + rows)
    return path


@pytest.fixture(params=["files", "arrow", "stream", "memory"])
def texts(request: pytest.FixtureRequest, folder: Path) -> Texts:
    dataset = Dataset.from_list(RECORDS)
    made: dict[str, Any] = {
        "files": lambda: TextStream.from_local(folder),
        "arrow": lambda: TextStream.from_dataset(dataset),
        "stream": lambda: TextStream.from_dataset(dataset.to_iterable_dataset(num_shards=3)),
        "memory": lambda: TextDataset.from_local(folder),
    }
    return made[request.param]()


def test_every_source_gives_the_same_documents(texts: Texts) -> None:
    assert list(texts.rows()) == KEPT
    assert list(texts.rows()) == KEPT
    assert texts.skipped == 15
    assert not texts.chat


def test_what_is_passed_over_is_counted_as_it_is_read(folder: Path) -> None:
    texts = TextStream.from_local(folder)
    assert texts.skipped == 3  # before the sixteenth document, which opening it looks at
    rows = texts.rows()
    list(islice(rows, 30))
    assert texts.skipped == 5
    list(texts.rows())
    list(rows)
    assert texts.skipped == 15


def test_any_document_can_be_the_first(texts: Texts) -> None:
    for start in (0, 1, 33, len(KEPT) - 1, len(KEPT), len(KEPT) + 5):
        assert list(texts.rows(start)) == KEPT[start:]


def test_the_size_is_known_where_something_tells_it(texts: Texts) -> None:
    if isinstance(texts, TextStream):
        assert texts.size in (None, len(RECORDS))
    else:
        assert texts.size == len(KEPT)


def test_files_and_tables_know_at_most_how_many_they_are(folder: Path) -> None:
    dataset = Dataset.from_list(RECORDS)
    assert TextStream.from_local(folder).size == len(RECORDS)
    assert TextStream.from_dataset(dataset).size == len(RECORDS)
    assert TextStream.from_dataset(dataset.to_iterable_dataset()).size is None


def test_the_size_never_falls_short(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("one\n\n\n\ntwo\r\n\r\nthree\n \nstill three\n\n")
    (tmp_path / "b.csv").write_text('text\n5" pipe\n"two\n\nlines"\n\nlast')
    (tmp_path / "c.jsonl").write_text('{"text": "a"}\r\n\n  \n{"text": "b"}')
    (tmp_path / "d.json").write_text('["x", "y"]')
    texts = TextStream.from_local(tmp_path)
    assert len(list(texts.rows())) == 10
    assert texts.size == 10


def test_a_limit_reads_no_further(folder: Path) -> None:
    (folder / "b.parquet").write_bytes(b"torn")
    texts = TextStream.from_local(folder).head(30)
    assert list(texts.rows()) == KEPT[:30]
    assert list(texts.rows(28)) == KEPT[28:30]
    assert texts.size == 30
    assert texts.fingerprint() == TextDataset.from_rows(KEPT[:30], "x").fingerprint()
    assert texts.head(2).size == 2
    assert texts.head(2).skipped == 0  # nothing of it has been read
    assert texts.skipped == 5  # of 35 records
    assert texts.head(500).size == 30
    with pytest.raises(UserError, match="at least 1"):
        texts.head(0)


def test_a_limit_above_all_there_is(texts: Texts) -> None:
    assert isinstance(texts, TextDataset | TextStream)
    assert list(texts.head(10_000).rows()) == KEPT


# --- samples


def test_every_way_of_reading_draws_the_same_sample(folder: Path) -> None:
    dataset = Dataset.from_list(RECORDS)
    sources = [
        TextStream.from_local(folder),
        TextStream.from_dataset(dataset),
        TextStream.from_dataset(dataset.to_iterable_dataset(num_shards=4)),
    ]
    drawn = [list(source.random_sample(20, seed=5).rows()) for source in sources]
    assert drawn[0] == drawn[1] == drawn[2]
    assert len(set(drawn[0])) == 20
    assert set(drawn[0]) < set(KEPT)
    assert drawn[0] != list(sources[0].random_sample(20, seed=6).rows())
    assert drawn[0] != sorted(drawn[0], key=KEPT.index)


def test_a_sample_of_more_than_there_is_has_all_of_it(texts: Texts) -> None:
    assert isinstance(texts, TextDataset | TextStream)
    sample = texts.random_sample(1000, seed=1)
    assert sorted(sample.rows()) == sorted(KEPT)
    with pytest.raises(UserError, match="at least 1"):
        texts.random_sample(0)


def test_records_without_text_make_room_in_a_sample() -> None:
    rows = [{"text": "x" if n in (11, 500, 999) else ""} for n in range(1000)]
    sample = TextStream.from_dataset(Dataset.from_list(rows)).random_sample(2, seed=0)
    assert (sample.size, len(list(sample.rows()))) == (2, 2)


def test_a_sample_of_a_table_stays_on_the_disk_and_can_start_anywhere() -> None:
    stream = TextStream.from_dataset(Dataset.from_list(RECORDS))
    sample = stream.random_sample(20, seed=5)
    assert isinstance(sample, TextStream)
    assert list(sample.rows(7)) == list(sample.rows())[7:]
    assert sample.size == 20
    prints = [stream.random_sample(n, seed).fingerprint() for n, seed in ((20, 5), (20, 6), (9, 5))]
    assert len({stream.fingerprint(), *prints}) == 4
    assert prints[0] == stream.random_sample(20, seed=5).fingerprint()


def test_a_sample_of_the_first_documents_is_of_those_alone(folder: Path) -> None:
    sample = TextStream.from_local(folder).head(10).random_sample(5, seed=0)
    assert set(sample.rows()) < set(KEPT[:10])


@settings(deadline=None)
@given(
    total=st.integers(0, 300),
    n=st.integers(1, 320),
    seed=st.integers(-(2**70), 2**70),
    refused=st.sets(st.integers(0, 299)),
)
def test_a_sample_is_the_positions_of_least_hash(
    total: int, n: int, seed: int, refused: set[int]
) -> None:
    rows = least_rows(
        ((i, None) for i in range(total)), n, seed, lambda row: None if row[0] in refused else row
    )
    order = [i for i in np.argsort(hashes(0, total, seed)).tolist() if i not in refused]
    assert [i for i, _ in rows] == order[:n]
    assert (
        least_positions(total, n, seed).tolist() == np.argsort(hashes(0, total, seed))[:n].tolist()
    )


def test_positions_are_chosen_alike_in_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = least_positions(1000, 50, seed=9).tolist()
    monkeypatch.setattr("mi_crow.datasets.sampling._BLOCK", 64)
    assert least_positions(1000, 50, seed=9).tolist() == whole


def test_hashes_spread_over_all_positions() -> None:
    chosen = least_positions(100_000, 10_000, seed=2)
    tenths = np.bincount(chosen // 10_000, minlength=10)
    assert tenths.min() > 850
    assert tenths.max() < 1150


# --- fingerprints


def test_the_same_files_elsewhere_have_the_same_fingerprint(folder: Path, tmp_path: Path) -> None:
    fingerprint = TextStream.from_local(folder).fingerprint()
    moved = tmp_path / "elsewhere" / "copy"
    shutil.copytree(folder, moved)
    assert TextStream.from_local(moved).fingerprint() == fingerprint
    assert str(tmp_path) not in json.dumps(dict(TextStream.from_local(folder)._records.identity))

    data = (moved / "c.csv").read_text()
    (moved / "c.csv").write_text(data.replace("text 99", "text 9X"))  # far from the first rows
    assert TextStream.from_local(moved).fingerprint() != fingerprint
    (moved / "c.csv").rename(moved / "0.csv")  # another order
    (moved / "0.csv").write_text(data)
    assert TextStream.from_local(moved).fingerprint() != fingerprint


def test_fields_and_limits_are_in_the_fingerprint() -> None:
    dataset = Dataset.from_dict({"text": ["a", "b"], "other": ["a", "b"], "label": ["x", "y"]})
    rows = TextStream.from_dataset(Dataset.from_list(RECORDS))
    streams = [
        rows,
        rows.head(60),
        rows.head(61),
        TextStream.from_dataset(dataset),
        TextStream.from_dataset(dataset).head(1),
        TextStream.from_dataset(dataset, "other"),
        TextStream.from_dataset(dataset, label_field="other"),
        TextStream.from_dataset([{"text": "a"}, {"text": "b"}]),
        TextStream.from_dataset([{"text": "a"}, {"text": "c"}]),
    ]
    assert len({stream.fingerprint() for stream in streams}) == len(streams)


# --- load_texts


def test_small_files_are_held_and_large_ones_are_not(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = DatasetSpec(str(folder))
    assert isinstance(load_texts(spec), TextDataset)
    assert isinstance(load_texts(DatasetSpec(str(folder), streaming=True)), TextStream)
    monkeypatch.setattr("mi_crow.datasets.loading.IN_MEMORY_BYTES", 100)
    texts = load_texts(spec)
    assert isinstance(texts, TextStream)
    assert list(texts.rows()) == KEPT
    assert texts.source == str(folder)
    limited = load_texts(DatasetSpec(str(folder), limit=5))
    assert list(limited.rows()) == KEPT[:5]
    drawn = load_texts(DatasetSpec(str(folder), limit=5, sample_seed=1))
    assert list(drawn.rows()) == list(texts.random_sample(5, 1).rows())


def test_a_limit_in_memory_reads_no_further_either(folder: Path) -> None:
    (folder / "c.csv").write_text("text\n\xe9", encoding="latin-1")
    assert load_texts(DatasetSpec(str(folder), limit=5)).size == 5
    with pytest.raises(UserError, match=r"c\.csv' is not UTF-8"):
        load_texts(DatasetSpec(str(folder)))


def test_a_seed_without_a_limit_puts_all_into_drawn_order(folder: Path) -> None:
    texts = load_texts(DatasetSpec(str(folder), sample_seed=3))
    assert list(texts.rows()) != KEPT
    assert sorted(texts.rows()) == sorted(KEPT)


# --- bad input


def test_files_that_go_away_while_they_are_read(folder: Path) -> None:
    rows = TextStream.from_local(folder).rows()
    assert list(islice(rows, 3)) == KEPT[:3]
    (folder / "b.parquet").unlink()
    with pytest.raises(NotFoundError, match=r"b\.parquet' is gone") as caught:
        list(rows)
    assert "\n" not in caught.value.sentence


def test_a_file_of_another_kind_than_the_rest_is_named(folder: Path) -> None:
    (folder / "b2.jsonl").write_text('{"body": "x"}\n')
    with pytest.raises(UserError, match=r"b2\.jsonl' has no field 'text'"):
        list(TextStream.from_local(folder).rows())


def test_a_torn_line_far_into_the_data_is_named(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    lines = [json.dumps({"text": str(n)}) for n in range(500)]
    path.write_text("\n".join([*lines, '{"text": "torn']))
    texts = TextStream.from_local(path)
    with pytest.raises(UserError, match="line 501 is not valid JSON"):
        list(texts.rows())


def test_only_line_feeds_part_records(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes('{"text":\r"a\u2028b"}\r\n{"text": "c"}\n'.encode())
    texts = TextStream.from_local(path)
    assert [text for text, _ in texts.rows()] == ["a\u2028b", "c"]
    assert texts.size == 2


def test_values_that_are_no_text_are_left_out_and_counted(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    values = [None, "", "  \n", "one", 3, ["x"], {"a": 1}, True, "two", [{"role": "user"}]]
    path.write_text("".join(json.dumps({"text": value}) + "\n" for value in values))
    texts = TextStream.from_local(path)
    assert [text for text, _ in texts.rows()] == ["one", "two"]
    assert texts.skipped == 8
    assert TextDataset.from_local(path).skipped == 8


def test_data_without_any_text_says_why(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"text": 3}\n{"text": 4}\n')
    with pytest.raises(UserError, match="is empty") as caught:
        TextStream.from_local(path)
    assert caught.value.hint == "2 records were skipped: no text in field 'text'"
    path.write_text('{"text": null}\n{"text": " "}\n{"text": ""}\n')
    with pytest.raises(UserError) as caught:
        TextStream.from_local(path)
    assert caught.value.hint == "3 records were skipped: no text in field 'text'"


@pytest.mark.parametrize("suffix", ["txt", "jsonl", "json", "csv", "tsv", "parquet"])
def test_a_long_document_without_spaces_passes_through(tmp_path: Path, suffix: str) -> None:
    long = "x" * 1_000_000
    path = tmp_path / f"long.{suffix}"
    if suffix == "parquet":
        Dataset.from_dict({"text": [long]}).to_parquet(path)
    else:
        head = "text\n" if suffix in ("csv", "tsv") else ""
        text = {"json": json.dumps([long]), "jsonl": json.dumps(long)}.get(suffix, long)
        path.write_text(head + text)
    texts = TextStream.from_local(path)
    assert [text for text, _ in texts.rows()] == [long]


def test_surrogates_become_readable_and_nul_stays(tmp_path: Path) -> None:
    path = tmp_path / "odd.jsonl"
    path.write_text('{"text": "a\\ud800b"}\n{"text": "a\\u0000b"}\n')
    assert [text for text, _ in TextStream.from_local(path).rows()] == ["a\ufffdb", "a\0b"]


def test_closing_a_stream_closes_its_file(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    closed: list[Path] = []

    def rows(path: Path, fields: Any) -> Iterator[Any]:
        try:
            yield from [("one", None)] * 50
        finally:
            closed.append(path)

    monkeypatch.setitem(files_module._READERS, ".jsonl", rows)
    stream = TextStream.from_local(folder / "a.jsonl")
    opened = len(closed)
    rows_read = stream.rows()
    next(rows_read)
    del rows_read
    assert len(closed) == opened + 1
