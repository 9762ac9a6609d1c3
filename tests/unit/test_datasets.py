"""Texts from lists, files and folders; samples; splits; what is refused."""

import json
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mi_crow.datasets import HuggingFaceDataset, TextDataset, load_texts, split_of
from mi_crow.errors import NotFoundError, UserError
from mi_crow.jobs.checks import check_dataset
from mi_crow.language_model.config import DatasetSpec

ROWS = [{"text": "one", "label": "a"}, {"text": "two", "label": "b"}, {"text": "", "label": "c"}]
FIRST_TWO = (["one", "two"], ["a", "b"])


def write(folder: Path, name: str, rows: list[dict[str, Any]]) -> Path:
    path = folder / name
    frame = pl.DataFrame(rows)
    if path.suffix == ".jsonl":
        path.write_text("\n".join(json.dumps(row) for row in rows) + "\n\n")
    elif path.suffix == ".json":
        path.write_text(json.dumps(rows))
    elif path.suffix == ".parquet":
        frame.write_parquet(path)
    else:
        frame.write_csv(path, separator="\t" if path.suffix == ".tsv" else ",")
    return path


@pytest.mark.parametrize("suffix", ["jsonl", "json", "csv", "tsv", "parquet"])
def test_records_of_every_format(tmp_path: Path, suffix: str) -> None:
    dataset = TextDataset.from_local(write(tmp_path, f"rows.{suffix}", ROWS))
    assert (dataset.texts, dataset.labels) == FIRST_TWO


def test_other_fields_can_be_chosen(tmp_path: Path) -> None:
    path = write(tmp_path, "rows.csv", [{"body": "one", "topic": "x"}])
    dataset = TextDataset.from_local(path, "body", "topic")
    assert (dataset.texts, dataset.labels) == (["one"], ["x"])
    assert TextDataset.from_local(path, "body").labels == [None]


def test_prose_is_cut_at_empty_lines_and_labelled_by_its_file(tmp_path: Path) -> None:
    (tmp_path / "sea.txt").write_text("One\nparagraph.\n\n\nAnother.\n")
    (tmp_path / "land.md").write_text("# Head\n\nBody\n")
    (tmp_path / "ignored.bin").write_bytes(b"\xff")
    dataset = TextDataset.from_local(tmp_path)
    assert dataset.texts == ["# Head", "Body", "One\nparagraph.", "Another."]
    assert dataset.labels == ["land", "land", "sea", "sea"]


def test_json_lines_can_be_plain_texts(tmp_path: Path) -> None:
    path = tmp_path / "texts.jsonl"
    path.write_text('"one"\n"two"\n')
    assert TextDataset.from_local(path).texts == ["one", "two"]


@pytest.mark.parametrize("name", ["a.CSV", "a.tsv", "a.jsonl", "a.json", "a.TXT", "a.md"])
def test_what_windows_writes_is_read(tmp_path: Path, name: str) -> None:
    suffix = name[2:].lower()
    head = "text\r\n" if suffix in ("csv", "tsv") else ""
    body = {"jsonl": '{"text": "one"}', "json": '["one"]'}.get(suffix, "one")
    (tmp_path / name).write_bytes(f"\ufeff{head}{body}\r\n".encode())
    for path in (tmp_path / name, tmp_path):
        check_dataset(DatasetSpec(str(path)))
        assert TextDataset.from_local(path).texts == ["one"]


def test_short_rows_and_quoted_lines_of_a_table(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text('label,text\na,"two\nlines, one text"\n\nb\n,unlabelled\n')
    dataset = TextDataset.from_local(path)
    assert dataset.texts == ["two\nlines, one text", "unlabelled"]
    assert (dataset.labels, dataset.skipped) == (["a", None], 1)


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("empty.txt", b"", "is empty"),
        ("empty.jsonl", b"", "is empty"),
        ("blank.jsonl", b'{"text": "  "}\n', "is empty"),
        (
            "other.jsonl",
            b'{"body": "x", "id": 1}\n',
            "no field 'text'; choose one with --text-field: body",
        ),
        ("torn.jsonl", b'{"text": "x"}\n{"te', "line 2 is not valid JSON"),
        ("number.jsonl", b"3\n", "neither an object nor a text"),
        ("object.json", b"{}", "is not a list"),
        ("torn.json", b"[", "is not valid JSON"),
        ("fake.parquet", b"PAR1 no", "is not a valid Parquet file"),
        ("latin.txt", b"caf\xe9", "is not UTF-8"),
        ("ragged.csv", b"text,label\na,b\nx,y,z\n", "line 3 has 3 fields, its first line 2"),
        ("quote.csv", b'text\nok\n"never closed\n', "is not valid csv (unexpected end of data)"),
        ("quote.tsv", b'text\n"a"b\n', "line 2 is not valid tsv"),
        ("number.jsonl", b'{"text": "x"}\n' + b"1" * 5000, "line 2 is not valid JSON"),
        ("label.csv", b"text,topic\na,b\n", "no field 'label'; choose one with --label-field"),
        ("sheet.xlsx", b"x", "is of an unknown kind"),
    ],
)
def test_files_that_cannot_be_read(tmp_path: Path, name: str, content: bytes, says: str) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(UserError) as caught:
        TextDataset.from_local(path, label_field="label" if name == "label.csv" else None)
    assert says in caught.value.sentence
    assert "\n" not in caught.value.sentence


def test_paths_to_nothing(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="not found"):
        TextDataset.from_local(tmp_path / "none.txt")
    with pytest.raises(UserError, match="has no text files"):
        TextDataset.from_local(tmp_path)
    for source in ("none.jsonl", "/none", "a/b/c"):
        with pytest.raises(NotFoundError, match="not found"):
            load_texts(DatasetSpec(source))


@pytest.mark.parametrize("texts", [[], ["a", ""], ["a", "  "], ["a", 3]])
def test_lists_without_text(texts: list[Any]) -> None:
    with pytest.raises(UserError):
        TextDataset(texts)


def test_labels_must_match() -> None:
    with pytest.raises(UserError, match="2 texts came with 1 labels"):
        TextDataset(["a", "b"], ["x"])


def test_lone_surrogates_become_readable() -> None:
    assert TextDataset(["a\ud800b", "🙂"]).texts == ["a\ufffdb", "🙂"]


def test_the_sample_corpus_has_labels() -> None:
    texts = load_texts(DatasetSpec("sample", limit=50))
    assert (texts.size, texts.source) == (50, "sample")
    assert all(label for _, label in texts.rows())


def test_a_limit_takes_the_first_and_a_seed_draws(tmp_path: Path) -> None:
    path = write(tmp_path, "rows.jsonl", [{"text": str(n), "label": str(n)} for n in range(100)])
    first = load_texts(DatasetSpec(str(path), limit=3))
    assert list(first.rows()) == [("0", "0"), ("1", "1"), ("2", "2")]
    drawn = load_texts(DatasetSpec(str(path), limit=10, sample_seed=1))
    again = load_texts(DatasetSpec(str(path), limit=10, sample_seed=1))
    assert list(drawn.rows()) == list(again.rows())
    assert [text for text, _ in drawn.rows()] != [str(n) for n in range(10)]
    assert all(text == label for text, label in drawn.rows())
    assert isinstance(drawn, TextDataset)
    assert len(set(drawn.random_sample(1000).texts)) == 10


def test_loaded_datasets() -> None:
    from datasets import Dataset

    loaded: Any = Dataset.from_dict({"body": ["one", None, "two"], "topic": [1, 2, 3]})
    dataset = HuggingFaceDataset(loaded, "body", "topic")
    assert (dataset.texts, dataset.labels) == (["one", "two"], ["1", "3"])
    with pytest.raises(UserError, match="no field 'text'"):
        HuggingFaceDataset(loaded)


@given(st.lists(st.text(min_size=1).filter(str.strip), min_size=1, max_size=8))
def test_the_fingerprint_follows_the_content(texts: list[str]) -> None:
    dataset = TextDataset(texts)
    assert dataset.fingerprint() == TextDataset(texts, source="elsewhere").fingerprint()
    assert dataset.fingerprint() != TextDataset([*texts, "more"]).fingerprint()
    assert dataset.fingerprint() != TextDataset(["".join(texts), "x"]).fingerprint()
    assert dataset.fingerprint() != TextDataset(texts, ["label"] * len(texts)).fingerprint()


def test_a_tenth_of_the_texts_is_held_out_and_stays_so() -> None:
    splits = [split_of(f"text {number}") for number in range(3000)]
    assert 0.07 < splits.count("heldout") / 3000 < 0.13
    # Fixed for ever: a run captured before must agree with one captured after.
    assert [n for n in range(60) if splits[n] == "heldout"] == [28, 29, 35, 58]


def test_a_folder_of_mostly_other_files_is_hardly_meant(tmp_path, monkeypatch):
    from mi_crow.datasets import files

    monkeypatch.setattr(files, "_MOST_OTHERS", 3)
    (tmp_path / "a.txt").write_text("one")
    for name in ("x.bin", "y.bin", "z.bin"):
        (tmp_path / name).touch()
    assert files.text_files(tmp_path) == [tmp_path / "a.txt"]
    (tmp_path / "w.bin").touch()
    with pytest.raises(UserError, match="holds more than 3 files that are not texts"):
        files.text_files(tmp_path)
