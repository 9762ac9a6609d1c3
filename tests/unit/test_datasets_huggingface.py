"""Data sets of the `datasets` library: splits, labels, fields, saved folders, streaming."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from datasets import ClassLabel, Dataset, DatasetDict, Features, Image, IterableDataset, Value
from datasets import load_dataset as load_locally

from mi_crow.datasets import HuggingFaceDataset, TextDataset, TextStream, load_texts
from mi_crow.errors import NotFoundError, UserError
from mi_crow.jobs.checks import check_dataset
from mi_crow.language_model.config import DatasetSpec

FEATURES = Features(
    {
        "text": Value("string"),
        "label": ClassLabel(names=["sea", "land"]),
        "stars": Value("int64"),
        "new": Value("bool"),
    }
)


def numbered(n: int, word: str = "train") -> Dataset:
    columns = {
        "text": [f"{word} {i}" for i in range(n)],
        "label": [i % 2 for i in range(n)],
        "stars": list(range(n)),
        "new": [i % 3 == 0 for i in range(n)],
    }
    return Dataset.from_dict(columns, features=FEATURES)


def texts_of(texts: Any) -> list[str]:
    return [text for text, _ in texts.rows()]


def labels_of(texts: Any) -> list[str | None]:
    return [label for _, label in texts.rows()]


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A data set that `datasets` finds as it finds one on the hub: a folder of Parquet files."""
    folder = tmp_path / "hub"
    folder.mkdir()
    numbered(200).to_parquet(folder / "train-00000.parquet")
    numbered(10, "test").to_parquet(folder / "test-00000.parquet")
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.setattr("mi_crow.datasets.huggingface.hub_answers", lambda: True)
    return str(folder)


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    path = tmp_path / "saved"
    DatasetDict({"train": numbered(200), "test": numbered(10, "test")}).save_to_disk(str(path))
    return path


# --- labels


def test_classes_come_out_by_name_and_other_labels_as_text() -> None:
    dataset = numbered(4)
    assert labels_of(TextStream.from_dataset(dataset)) == ["sea", "land", "sea", "land"]
    assert labels_of(TextStream.from_dataset(dataset, label_field="stars")) == ["0", "1", "2", "3"]
    assert labels_of(TextStream.from_dataset(dataset, label_field="new"))[:2] == ["True", "False"]
    streamed = dataset.to_iterable_dataset()
    assert labels_of(TextStream.from_dataset(streamed)) == ["sea", "land", "sea", "land"]
    assert HuggingFaceDataset(dataset).labels == ["sea", "land", "sea", "land"]


def test_a_document_without_a_class_has_no_label() -> None:
    columns = {"text": ["a", "b", "c"], "label": [-1, None, 1]}
    features = Features({"text": Value("string"), "label": ClassLabel(names=["x", "y"])})
    dataset = Dataset.from_dict(columns, features=features)
    assert labels_of(TextStream.from_dataset(dataset)) == [None, None, "y"]


def test_parquet_files_keep_the_names_of_classes(tmp_path: Path) -> None:
    numbered(3).to_parquet(tmp_path / "a.parquet")
    assert TextDataset.from_local(tmp_path / "a.parquet").labels == ["sea", "land", "sea"]


def test_gaps_in_a_column_of_numbers_are_no_labels() -> None:
    dataset = Dataset.from_dict({"text": ["a", "b"], "label": [float("nan"), 0.5]})
    assert labels_of(TextStream.from_dataset(dataset)) == [None, "0.5"]


def test_other_columns_are_not_read() -> None:
    broken = [{"bytes": b"no image", "path": None}] * 3
    features = Features({"text": Value("string"), "picture": Image()})
    dataset = Dataset.from_dict({"text": ["a", "b", "c"], "picture": broken}, features=features)
    for source in (dataset, dataset.to_iterable_dataset()):
        assert texts_of(TextStream.from_dataset(source)) == ["a", "b", "c"]


def test_the_form_in_which_the_caller_reads_a_data_set_does_not_matter() -> None:
    dataset = numbered(3).with_format("numpy")
    for source in (dataset, dataset.to_iterable_dataset().with_format("numpy")):
        assert labels_of(TextStream.from_dataset(source)) == ["sea", "land", "sea"]


def test_missing_fields_are_told_with_the_ones_there_are() -> None:
    for dataset in (numbered(3), numbered(3).to_iterable_dataset()):
        with pytest.raises(UserError, match="no field 'body'") as caught:
            TextStream.from_dataset(dataset, "body")
        assert caught.value.hint.startswith("choose one with --text-field: ")
        assert "text" in caught.value.hint
        with pytest.raises(UserError, match="no field 'topic'") as caught:
            TextStream.from_dataset(dataset, label_field="topic")
        assert caught.value.hint.startswith("choose one with --label-field: ")


# --- splits


@pytest.mark.slow
@pytest.mark.parametrize(
    ("split", "expected"),
    [
        ("test", [f"test {i}" for i in range(10)]),
        ("train[:3]", ["train 0", "train 1", "train 2"]),
        ("train[198:]", ["train 198", "train 199"]),
        ("test[:20%]", ["test 0", "test 1"]),
        ("test[-2:]", ["test 8", "test 9"]),
        ("train[:2]+test[5:6]", ["train 0", "train 1", "test 5"]),
    ],
)
def test_splits_and_their_slices(saved: Path, hub: str, split: str, expected: list[str]) -> None:
    sources = [
        TextStream.from_local(saved, split=split),
        TextStream.from_huggingface(hub, split),
        TextStream.from_huggingface(hub, split, streaming=True),
    ]
    for source in sources:
        assert texts_of(source) == expected
        assert source.size == len(expected)


def test_all_splits_together(saved: Path) -> None:
    assert TextStream.from_local(saved, split="all").size == 210


@pytest.mark.slow
@pytest.mark.parametrize("split", ["valid", "valid[:3]", "train[x]", ""])
def test_an_unknown_split_is_told_with_the_ones_there_are(
    saved: Path, hub: str, split: str
) -> None:
    for streaming in (False, True):
        with pytest.raises(NotFoundError, match="no split") as caught:
            TextStream.from_huggingface(hub, split, streaming=streaming)
        assert set(caught.value.hint.removeprefix("it has ").split(", ")) == {"train", "test"}
    with pytest.raises(NotFoundError, match="no split") as caught:
        TextStream.from_local(saved, split=split)
    assert caught.value.hint == "it has train, test"


def test_a_stream_of_unknown_length_has_no_percents(hub: str) -> None:
    stream = TextStream.from_huggingface(hub, "train[5:7]", streaming=True)
    assert (texts_of(stream), stream.size) == (["train 5", "train 6"], 2)
    assert TextStream.from_huggingface(hub, "train[5:]", streaming=True).size is None
    with pytest.raises(UserError, match="depends on its length"):
        TextStream.from_huggingface(hub, "train[:10%]", streaming=True)


# --- the hub


def test_a_data_set_of_the_hub_stays_in_its_table(hub: str) -> None:
    texts = TextStream.from_huggingface(hub)
    assert (texts.size, texts_of(texts)[199]) == (200, "train 199")


def test_streamed_or_not_it_is_the_same_data(hub: str) -> None:
    streamed = TextStream.from_huggingface(hub, streaming=True)
    assert streamed.size is None  # nothing has told it yet
    whole = TextStream.from_huggingface(hub)
    assert list(streamed.rows(150)) == list(whole.rows(150))
    assert streamed.fingerprint() == whole.fingerprint()
    assert whole.fingerprint() != TextStream.from_huggingface(hub, "test").fingerprint()
    assert TextStream.from_huggingface(hub, streaming=True).size == 200  # its copy tells it


def hub_spec(**settings: Any) -> DatasetSpec:
    return DatasetSpec("org/name:small", **settings)


@pytest.fixture
def builders(hub: str, monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str | None]]:
    """What is asked of the hub; every name is the one data set there is."""
    from datasets import load_dataset_builder

    asked: list[tuple[str, str | None]] = []

    def load(path: str, config: str | None = None) -> Any:
        asked.append((path, config))
        return load_dataset_builder(hub)

    monkeypatch.setattr("datasets.load_dataset_builder", load)
    return asked


def test_a_config_of_a_hub_data_set_follows_a_colon(builders: list[Any]) -> None:
    texts = load_texts(hub_spec(split="test"))
    assert texts_of(texts)[0] == "test 0"
    assert texts.source == "org/name:small"
    assert builders == [("org/name", "small")]


def test_a_limit_copies_nothing_and_a_sample_needs_a_table(
    builders: list[Any], tmp_path: Path
) -> None:
    first = load_texts(hub_spec(limit=3))
    assert (texts_of(first), first.size) == (["train 0", "train 1", "train 2"], 3)
    assert not list((tmp_path / "cache").rglob("*.arrow"))
    drawn = load_texts(hub_spec(limit=3, sample_seed=1))
    streamed = load_texts(hub_spec(limit=3, sample_seed=1, streaming=True))
    assert list(drawn.rows()) == list(streamed.rows())
    assert list((tmp_path / "cache").rglob("*.arrow"))


def test_a_limit_on_percents_needs_the_table(builders: list[Any], tmp_path: Path) -> None:
    assert texts_of(load_texts(hub_spec(split="test[:50%]", limit=2))) == ["test 0", "test 1"]
    assert list((tmp_path / "cache").rglob("*.arrow"))


def test_drawing_from_a_stream_without_a_limit_is_refused(builders: list[Any]) -> None:
    with pytest.raises(UserError, match="needs a limit"):
        load_texts(hub_spec(sample_seed=1, streaming=True))
    assert load_texts(hub_spec(sample_seed=1)).size == 200


def test_in_memory_from_the_hub(hub: str) -> None:
    assert TextDataset.from_huggingface(hub, limit=2).texts == ["train 0", "train 1"]
    assert len(TextDataset.from_huggingface(hub, "test")) == 10


def test_offline_a_cached_copy_is_read_even_when_streaming(
    hub: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[bool] = []
    monkeypatch.setattr(
        "mi_crow.datasets.huggingface.hub_answers", lambda: asked.append(True) or True
    )
    texts = TextStream.from_huggingface(hub, streaming=True, offline=True)
    assert (asked, texts.size) == ([], 200)


def test_offline_the_cache_alone_tells_what_a_hub_data_set_is(hub: str, tmp_path: Path) -> None:
    from datasets import load_dataset_builder

    builder = load_dataset_builder(hub)
    builder.download_and_prepare()
    # As the cache holds what came from the hub: owner, name, config, version, commit.
    commit = tmp_path / "cache" / "org___hub" / "default" / "0.0.0" / "0123abcd"
    shutil.copytree(builder.cache_dir, commit)
    texts = load_texts(DatasetSpec("org/hub", limit=2), offline=True)
    assert texts_of(texts) == ["train 0", "train 1"]
    first = texts.fingerprint()
    commit.rename(commit.with_name("4567cdef"))
    assert load_texts(DatasetSpec("org/hub", limit=2), offline=True).fingerprint() != first


@pytest.mark.parametrize("streaming", [False, True])
def test_a_hub_data_set_offline_is_told_at_once(streaming: bool) -> None:
    with pytest.raises(NotFoundError, match="is not in the local cache"):
        load_texts(DatasetSpec("some-org/never-cached", streaming=streaming), offline=True)


def test_a_wrong_config_is_told_with_the_ones_there_are(
    hub: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def load(path: str, config: str | None = None) -> Any:
        raise ValueError("BuilderConfig 'x' not found. Available: ['a', 'b']")

    monkeypatch.setattr("datasets.load_dataset_builder", load)
    with pytest.raises(UserError, match=r"Available: \['a', 'b'\]") as caught:
        load_texts(DatasetSpec("org/name:x"))
    assert "org/name:config" in caught.value.hint


def test_nothing_is_printed_while_a_data_set_is_made(
    hub: str, capfd: pytest.CaptureFixture[str]
) -> None:
    TextStream.from_huggingface(hub)
    assert "Generating" not in "".join(capfd.readouterr())


# --- streams


def test_a_json_stream_finds_out_its_fields_as_it_is_read(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps({"body": f"b{i}", "label": i}) + "\n" for i in range(9)))
    stream: Any = load_locally("json", data_files=str(path), split="train", streaming=True)
    texts = TextStream.from_dataset(stream, "body")
    assert list(texts.rows(7)) == [("b7", "7"), ("b8", "8")]
    with pytest.raises(UserError, match="no field 'text'") as caught:
        TextStream.from_dataset(stream)
    assert "body" in caught.value.hint


def test_a_stream_that_breaks_off_says_so_in_one_sentence() -> None:
    def rows() -> Iterator[dict[str, str]]:
        for number in range(2000):
            if number == 1500:
                raise ConnectionError("the line is dead\nand more")
            yield {"text": str(number)}

    broken: Any = IterableDataset.from_generator(rows)
    texts = TextStream.from_dataset(broken, source="org/name")
    with pytest.raises(UserError, match="reading dataset 'org/name' failed") as caught:
        list(texts.rows())
    assert "\n" not in caught.value.sentence


# --- saved folders


def test_a_saved_folder_elsewhere_has_the_same_fingerprint(saved: Path, tmp_path: Path) -> None:
    texts = TextStream.from_local(saved, split="test")
    moved = tmp_path / "moved"
    shutil.copytree(saved, moved)
    assert TextStream.from_local(moved, split="test").fingerprint() == texts.fingerprint()
    assert TextStream.from_local(moved).fingerprint() != texts.fingerprint()


def test_one_saved_data_set_has_no_splits_to_choose(tmp_path: Path) -> None:
    numbered(5).save_to_disk(str(tmp_path / "one"))
    spec = DatasetSpec(str(tmp_path / "one"), split="whatever", limit=2)
    check_dataset(spec)
    assert texts_of(load_texts(spec)) == ["train 0", "train 1"]


def test_a_saved_folder_is_checked_without_loading_it(saved: Path) -> None:
    check_dataset(DatasetSpec(str(saved), split="train[:10]+test"))
    with pytest.raises(NotFoundError, match="no split 'valid'"):
        check_dataset(DatasetSpec(str(saved), split="valid"))
    with pytest.raises(UserError, match="no field 'body'"):
        check_dataset(DatasetSpec(str(saved), text_field="body"))
    with pytest.raises(UserError, match="no field 'topic'"):
        check_dataset(DatasetSpec(str(saved), label_field="topic"))


def test_a_torn_saved_folder_is_named(saved: Path) -> None:
    for file in (saved / "train").glob("*.arrow"):
        file.write_bytes(b"torn")
    with pytest.raises(UserError, match="saved"):
        TextStream.from_local(saved)
    (saved / "train" / "dataset_info.json").write_text("{")
    with pytest.raises(UserError, match=r"cannot be read \(dataset_info\.json"):
        check_dataset(DatasetSpec(str(saved)))
