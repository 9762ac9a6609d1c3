"""The capture command's own arguments, and that its checks know the files its reader reads."""

from argparse import ArgumentParser
from pathlib import Path

import pytest

from mi_crow.cli.commands.capture import add_arguments
from mi_crow.datasets import TextDataset
from mi_crow.errors import UserError
from mi_crow.jobs.checks import check_dataset
from mi_crow.language_model.config import DatasetSpec


def parsed(*words: str):
    parser = ArgumentParser()
    add_arguments(parser, "capture")
    return parser.parse_args(words)


def test_auto_is_the_default_batch_size_and_a_number_is_itself() -> None:
    assert parsed("--batch-size", "auto").batch_size is parsed().batch_size is None
    assert parsed("--batch-size", "7").batch_size == 7


@pytest.mark.parametrize("word", ["0", "-3", "some"])
def test_another_batch_size_is_refused(word: str) -> None:
    with pytest.raises(SystemExit):
        parsed("--batch-size", word)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.json", '[{"text": "rain over the hills"}]'),
        ("a.jsonl", '{"text": "rain over the hills"}\n'),
        ("a.csv", "text\nrain over the hills\n"),
        ("a.tsv", "label\ttext\nx\train over the hills\n"),
        ("a.txt", "rain over the hills\n"),
        ("a.md", "rain over the hills\n"),
    ],
)
def test_what_the_check_lets_through_the_reader_reads(
    tmp_path: Path, name: str, content: str
) -> None:
    path = tmp_path / name
    path.write_text(content)
    check_dataset(DatasetSpec(str(path)))
    assert TextDataset.from_local(path).texts == ["rain over the hills"]


def test_a_tsv_without_the_field_is_refused_with_the_fields_it_has(tmp_path: Path) -> None:
    path = tmp_path / "a.tsv"
    path.write_text("label\tbody\nx\train\n")
    with pytest.raises(UserError, match="no field 'text'") as caught:
        check_dataset(DatasetSpec(str(path)))
    assert "body" in caught.value.hint
