"""Kinds of files that data sets come in: JSON lines by any name, compressed files, token ids."""

import gzip
import json
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pytest

from mi_crow.datasets import TextDataset, load_texts
from mi_crow.datasets.texts import TokenText
from mi_crow.errors import UserError
from mi_crow.jobs.checks import check_dataset
from mi_crow.language_model import LanguageModel
from mi_crow.language_model.capture.job import capture_run
from mi_crow.language_model.config import CaptureConfig, DatasetSpec, ModelSpec
from mi_crow.language_model.token_ids import ids_decoder
from mi_crow.store.workspace import Workspace
from tests.helpers.progress import Watched

TEXTS = [f"The ferry number {n} leaves the harbour." for n in range(6)]
LINES = "".join(json.dumps({"text": text, "label": "a"}) + "\n" for text in TEXTS)
FILES = {
    ".jsonl": LINES,
    ".ndjson": LINES,
    ".json": json.dumps([{"text": text, "label": "a"} for text in TEXTS]),
    ".csv": "text,label\n" + "".join(f"{text},a\n" for text in TEXTS),
    ".tsv": "text\tlabel\n" + "".join(f"{text}\ta\n" for text in TEXTS),
    ".txt": "\n\n".join(TEXTS),
    ".md": "\n\n".join(TEXTS),
}


def written(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    data = text.encode()
    if path.suffix == ".gz":
        path.write_bytes(gzip.compress(data))
    elif path.suffix == ".zst":
        with pa.output_stream(str(path), compression="zstd") as file:
            file.write(data)
    else:
        path.write_bytes(data)
    return path


@pytest.mark.parametrize("packing", ["", ".gz", ".zst"])
@pytest.mark.parametrize("suffix", FILES)
def test_every_kind_is_read_packed_or_not(tmp_path: Path, suffix: str, packing: str) -> None:
    path = written(tmp_path, f"a{suffix}{packing}", FILES[suffix])
    check_dataset(DatasetSpec(str(path)))
    dataset = TextDataset.from_local(path)
    assert dataset.texts == TEXTS
    assert set(dataset.labels) == {"a"}
    spec = DatasetSpec(str(path), streaming=True)
    assert load_texts(spec).size == len(TEXTS)
    assert TextDataset.from_local(tmp_path).texts == TEXTS  # found in a folder as well


@pytest.mark.parametrize("start", ["", "\ufeff", "\n\n"])
def test_one_object_a_line_in_a_json_file(tmp_path: Path, start: str) -> None:
    path = written(tmp_path, "train.json", start + LINES)
    check_dataset(DatasetSpec(str(path)))
    assert TextDataset.from_local(path).texts == TEXTS


def test_a_list_over_several_lines_is_still_a_list(tmp_path: Path) -> None:
    path = written(tmp_path, "a.json", json.dumps([{"text": t} for t in TEXTS], indent=1))
    assert TextDataset.from_local(path).texts == TEXTS
    path = written(tmp_path, "b.json", json.dumps({"text": "alone"}, indent=1))
    with pytest.raises(UserError, match="is not a list"):
        TextDataset.from_local(path)


@pytest.mark.parametrize("packing", [".gz", ".zst"])
@pytest.mark.parametrize("fault", ["torn", "other", "empty"])
def test_packed_files_that_are_not_whole(tmp_path: Path, packing: str, fault: str) -> None:
    path = written(tmp_path, f"a.jsonl{packing}", LINES * 50)
    data = path.read_bytes()
    path.write_bytes({"torn": data[: len(data) // 2], "other": b"{}" * 40, "empty": b""}[fault])
    with pytest.raises(UserError, match=r"is not a complete|is empty"):
        TextDataset.from_local(path)


def test_a_packed_file_that_does_not_say_what_is_in_it(tmp_path: Path) -> None:
    path = written(tmp_path, "dump.gz", LINES)
    with pytest.raises(UserError, match="an unknown kind"):
        check_dataset(DatasetSpec(str(path)))


# Hints.


@pytest.mark.parametrize("suffix", [".jsonl", ".json", ".parquet"])
def test_a_proposed_field_can_be_read(tmp_path: Path, suffix: str) -> None:
    rows = [{"id": n, "score": 0.5, "ok": True, "body": text} for n, text in enumerate(TEXTS)]
    path = tmp_path / f"a{suffix}"
    if suffix == ".parquet":
        pl.DataFrame(rows).write_parquet(path)
    else:
        path.write_text(json.dumps(rows) if suffix == ".json" else "\n".join(map(json.dumps, rows)))
    with pytest.raises(UserError) as caught:
        load_texts(DatasetSpec(str(path)))
    proposed = caught.value.hint.partition("--text-field: ")[2].split(", ")
    assert proposed == ["body"]
    found = load_texts(DatasetSpec(str(path), text_field="body"))
    assert [text for text, _ in found.rows()] == TEXTS


def test_where_no_field_holds_texts_none_is_proposed(tmp_path: Path) -> None:
    path = written(tmp_path, "a.jsonl", '{"id": 1, "score": 0.5}\n')
    with pytest.raises(UserError) as caught:
        load_texts(DatasetSpec(str(path)))
    assert "--text-field" not in caught.value.sentence
    assert "none of its fields has text" in caught.value.sentence


# Token ids.


def ids_file(folder: Path, rows: list[Any], field: str = "input_ids") -> Path:
    return written(
        folder, "ids.jsonl", "".join(json.dumps({field: ids, "n": 1}) + "\n" for ids in rows)
    )


def captured(
    folder: Path, tiny_model_dir: Path, path: Path, **dataset: Any
) -> tuple[list[Any], list[str]]:
    """Token ids of the run's documents, and what the capture said."""
    workspace = Workspace.open(folder / "w")
    said = Watched()
    config = CaptureConfig(
        ModelSpec(str(tiny_model_dir), device="cpu"),
        DatasetSpec(str(path), **dataset),
        ("resid_post.0",),
        name="r",
        keep_special=True,
    )
    check_dataset(config.dataset)
    capture_run(workspace, config, said)
    parts = sorted((workspace.run_dir("r") / "tokens").glob("*.parquet"))
    rows = [row for part in parts for row in pl.read_parquet(part).to_dicts()]
    return rows, said.lines


@pytest.mark.parametrize("field", ["input_ids", "token_ids", "tokens"])
@pytest.mark.parametrize("named", [True, False])
def test_token_ids_go_through_the_model_as_they_are(
    tmp_path: Path, tiny_model_dir: Path, field: str, named: bool
) -> None:
    ids = [[5, 6, 7, 8 + n] for n in range(20)]  # nothing that a tokenizer would make of a text
    path = ids_file(tmp_path, ids, field)
    dataset = {"text_field": field} if named else {}
    rows, said = captured(tmp_path, tiny_model_dir, path, **dataset)
    assert [row["token_ids"] for row in rows] == ids
    assert all(row["text"] for row in rows)
    assert any("assumed to be of this model's tokenizer" in line for line in said)


def test_ids_beyond_the_vocabulary_are_of_another_tokenizer(
    tmp_path: Path, tiny_model_dir: Path
) -> None:
    path = ids_file(tmp_path, [[5, 6], [5, 10**6]])
    with pytest.raises(UserError, match="of another tokenizer"):
        captured(tmp_path, tiny_model_dir, path)
    assert not list((tmp_path / "w" / "activations").glob("*"))


def test_ids_of_the_models_own_tokenizer_are_recognised(
    tmp_path: Path, tiny_model_dir: Path
) -> None:
    tokenizer = LanguageModel.from_huggingface(str(tiny_model_dir), device="cpu").tokenizer
    path = ids_file(tmp_path, [tokenizer(text)["input_ids"] for text in TEXTS])
    _, said = captured(tmp_path, tiny_model_dir, path)
    assert any(f"{len(TEXTS)} of the first {len(TEXTS)} documents" in line for line in said)


def test_samples_and_heads_keep_the_ids(tmp_path: Path, tiny_lm: LanguageModel) -> None:
    path = ids_file(tmp_path, [[5, 6, 7, 8 + n] for n in range(20)])
    for spec in (
        DatasetSpec(str(path), limit=3),
        DatasetSpec(str(path), limit=3, sample_seed=1),
        DatasetSpec(str(path), streaming=True),
    ):
        texts = load_texts(spec, decode=ids_decoder(tiny_lm.tokenizer))
        assert all(isinstance(text, TokenText) for text, _ in texts.rows())


def test_ids_without_a_tokenizer_are_refused_in_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="contains token ids"):
        TextDataset.from_local(ids_file(tmp_path, [[1, 2]]))


def test_words_in_a_field_named_tokens_are_not_ids(tmp_path: Path) -> None:
    path = ids_file(tmp_path, [["The", "cat"]], "tokens")
    with pytest.raises(UserError, match="is empty"):
        load_texts(DatasetSpec(str(path)))
