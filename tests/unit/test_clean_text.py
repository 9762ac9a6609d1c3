"""Text that is not Unicode: cleaned at every border where it enters, refused as a file's name."""

import json
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mi_crow.clean_text import clean_text, clean_values
from mi_crow.cli import main
from mi_crow.cli.entry import parse
from mi_crow.datasets import HuggingFaceDataset, TextDataset, TextStream
from mi_crow.errors import UserError
from mi_crow.jobs.spec import JobSpec
from mi_crow.mechanistic.concepts.annotations import Annotations
from mi_crow.mechanistic.concepts.concept_files import read_json_concepts
from mi_crow.mechanistic.features.search import search_words
from mi_crow.session.protocol import Request
from mi_crow.store.atomic import read_json, write_json
from mi_crow.store.notes import read_note, write_note
from mi_crow.store.workspace import Workspace

HALF = "half \ud83d"  # as json.loads reads the six characters \ud83d
CLEAN = "half \ufffd"
RAW_BYTE = "caf\udce9"  # as Python passes on the Latin-1 byte of a command line


@given(st.text(st.characters(exclude_categories=())))
def test_cleaned_text_can_be_encoded_and_whole_text_stays(text: str) -> None:
    cleaned = clean_text(text)
    cleaned.encode()
    assert clean_text(cleaned) == cleaned
    try:
        text.encode()
    except UnicodeEncodeError:
        assert cleaned != text
    else:
        assert cleaned == text


def test_two_halves_of_one_character_are_joined() -> None:
    assert clean_text("\ud83d\ude00 \ude00") == "\U0001f600 \ufffd"
    assert clean_values({HALF: [HALF, 1, {"a": HALF}]}) == {CLEAN: [CLEAN, 1, {"a": CLEAN}]}


@pytest.mark.parametrize("suffix", ["jsonl", "json"])
def test_texts_and_labels_of_files(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"rows.{suffix}"
    rows = [{"text": HALF, "label": HALF}, {"text": "b", "label": [HALF]}]
    path.write_text(
        "\n".join(map(json.dumps, rows)) if suffix == "jsonl" else json.dumps(rows),
    )
    dataset = TextStream.from_local(path)
    texts, labels = zip(*dataset.rows(), strict=True)
    for text in (*texts, *labels):
        text.encode()
    assert (texts[0], labels[0]) == (CLEAN, CLEAN)


def test_texts_and_labels_from_python() -> None:
    dataset = TextDataset([HALF], [HALF])
    assert list(dataset.rows()) == [(CLEAN, CLEAN)]
    records = HuggingFaceDataset([{"text": HALF, "label": HALF}])
    assert list(records.rows()) == [(CLEAN, CLEAN)]


def test_a_file_name_that_labels_its_texts(tmp_path: Path) -> None:
    try:
        (tmp_path / f"{RAW_BYTE}.txt").write_text("Some prose.")
    except (OSError, UnicodeError):
        pytest.skip("this file system accepts only UTF-8 names")
    assert list(TextStream.from_local(tmp_path).rows()) == [("Some prose.", "caf\ufffd")]


def test_words_of_a_command_line(tmp_path: Path) -> None:
    options = parse(["inspect", f"say {RAW_BYTE}"])
    assert options.text == ["say caf\ufffd"]
    options = parse(["steer", "--feature", f"3={RAW_BYTE}", "x"])
    assert options.feature == ["3=caf\ufffd"]


@pytest.mark.parametrize("flag", ["--workspace", "environment"])
def test_a_workspace_whose_name_is_not_text(
    flag: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    name = str(tmp_path / RAW_BYTE)
    if flag == "environment":
        monkeypatch.setitem(os.environ, "MI_CROW_WORKSPACE", name)
        assert main(["saes"]) == 2
    else:
        assert main(["--workspace", name, "saes"]) == 2
    error = capsys.readouterr().err
    assert "not UTF-8" in error
    assert error.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_a_data_set_whose_name_is_not_text_is_not_taken_for_another(tmp_path: Path) -> None:
    path = tmp_path / f"{RAW_BYTE}.txt"
    try:
        path.write_text("Some prose.")
    except (OSError, UnicodeError):
        pytest.skip("this file system accepts only UTF-8 names")
    with pytest.raises(UserError, match="not UTF-8"):
        parse(["capture", "--layer", "l", "--dataset", str(path)])


def test_what_people_write_about_features(tmp_path: Path) -> None:
    annotations = Annotations(tmp_path / "annotations.sqlite")
    concept = annotations.set_concept("s", 1, HALF, note=HALF, tags=(HALF,))
    assert (concept.name, concept.note, concept.tags) == (CLEAN, CLEAN, (CLEAN,))
    annotations.save_preset(HALF, [{"note": HALF}])
    assert annotations.presets()[0].name == CLEAN
    path = tmp_path / "concepts.json"
    path.write_text(json.dumps([{"sae_id": "s", "feature": 2, "name": HALF}]))
    annotations.import_(path)
    assert {one.name for one in annotations.concepts()} == {CLEAN}
    write_note(tmp_path, HALF)
    assert read_note(tmp_path) == CLEAN


def test_a_nul_in_a_name_comes_back_whole(tmp_path: Path) -> None:
    annotations = Annotations(tmp_path / "annotations.sqlite")
    annotations.set_concept("s", 1, "a\0b", note="n\0", tags=("t\0",))
    annotations.rename_sae("s", "r")
    (concept,) = annotations.concepts("r")
    assert (concept.name, concept.note, concept.tags) == ("a\0b", "n\0", ("t\0",))
    assert annotations.undo() is not None
    assert annotations.concepts() == []


def test_names_for_latents_from_a_file(tmp_path: Path) -> None:
    path = tmp_path / "names.json"
    path.write_text(json.dumps({"3": [{"name": HALF}]}))
    assert read_json_concepts(path)[3][0].name == CLEAN


def test_what_is_asked_of_the_model_session() -> None:
    line = Request("r1", "inspect", {"text": HALF, "more": [HALF]}).as_line()
    assert Request.from_line(line).params == {"text": CLEAN, "more": [CLEAN]}


def test_what_is_written_as_json(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {"label": HALF})
    assert read_json(tmp_path / "a.json") == {"label": CLEAN}
    JobSpec("capture", {"dataset": {"source": HALF}}).save(tmp_path)
    assert JobSpec.load(tmp_path).params == {"dataset": {"source": CLEAN}}


def test_words_of_a_search() -> None:
    assert search_words(HALF) == ["half", "\ufffd"]


def test_a_workspace_of_the_library_with_a_nul() -> None:
    with pytest.raises(UserError, match="NUL"):
        Workspace.plan("a\0b")
