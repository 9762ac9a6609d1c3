"""Edits of concepts that others edit too, and texts that are too long for any of them."""

import json
import sqlite3
from dataclasses import replace
from pathlib import Path

import pytest

from mi_crow.cli import main
from mi_crow.errors import NotFoundError, UserError
from mi_crow.mechanistic.concepts.annotations import Annotations, Concept
from mi_crow.mechanistic.concepts.annotations_rows import MOST_NAME, MOST_NOTE
from mi_crow.mechanistic.concepts.conflicts import merge_names
from mi_crow.mechanistic.concepts.edits import (
    edit_concepts,
    edit_line,
    joined_notes,
    remove_concepts,
    rename,
    say,
)
from mi_crow.mechanistic.concepts.marked import note_all, tag_all
from mi_crow.mechanistic.sae import TopKSae
from mi_crow.store.workspace import Workspace

SAE = "s"


@pytest.fixture
def annotations(tmp_path: Path) -> Annotations:
    return Annotations(tmp_path / "annotations.sqlite", actor="ada")


@pytest.fixture
def other(annotations: Annotations) -> Annotations:
    """Another program with the same file."""
    return Annotations(annotations.path, actor="bob")


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    workspace = Workspace.open(tmp_path / "w")
    monkeypatch.setenv("MI_CROW_WORKSPACE", str(workspace.root))
    TopKSae(16, 8, 2).save(workspace.saes_dir / SAE)
    return workspace


def said(annotations: Annotations, feature: int) -> list[tuple[str, float, str, tuple[str, ...]]]:
    found = annotations.concepts(SAE, feature)
    return [(one.name, one.confidence, one.note, one.tags) for one in found]


def test_only_the_edited_field_is_written(annotations: Annotations, other: Annotations) -> None:
    opened = annotations.set_concept(SAE, 5, "rain", 0.7, "ann's", ["wet"])
    other.set_concept(SAE, 5, "rain", 0.9, "bob's", ["wet", "checked"])
    edit_concepts(annotations, [opened], lambda one: replace(one, note="new"))
    assert said(annotations, 5) == [("rain", 0.9, "new", ("wet", "checked"))]
    tag_all(annotations, SAE, [5], ["more"], [])
    assert said(annotations, 5) == [("rain", 0.9, "new", ("wet", "checked", "more"))]


def test_tags_bring_the_proposed_names_of_features_without_one(annotations: Annotations) -> None:
    annotations.set_concept(SAE, 5, "rain")
    proposed = {6: ("hail", 0.83), 7: ("sleet", 0.7)}
    told = tag_all(annotations, SAE, [5, 6, 8], ["wet"], [], proposed)
    assert told == "2 features tagged, 1 by the proposed name, 1 without a name left out; u undoes"
    assert said(annotations, 5) == [("rain", 1.0, "", ("wet",))]
    assert said(annotations, 6) == [("hail", 0.83, "", ("wet",))]
    assert annotations.concepts(SAE, 6)[0].source == "auto"
    two = {9: ("Rain", 0.9), 10: ("fog", 0.9)}
    told = tag_all(annotations, SAE, [9, 10], ["wet"], [], two)
    assert told.startswith("2 features tagged, 2 by the proposed name (1 has the name of another)")
    annotations.undo()
    assert said(annotations, 7) == said(annotations, 8) == []
    annotations.undo()
    assert [one.name for one in annotations.concepts(SAE)] == ["rain"]
    assert said(annotations, 5) == [("rain", 1.0, "", ())]
    tag_all(annotations, SAE, [6], [], ["wet"], proposed)  # nothing is named to untag it
    assert said(annotations, 6) == []


def test_a_line_changes_what_differs_from_the_one_it_was_written_from(
    annotations: Annotations, other: Annotations
) -> None:
    opened = annotations.set_concept(SAE, 5, "rain", 0.7, "ann's", ["wet", "old"])
    other.set_concept(SAE, 5, "rain", 0.9, "bob's", ["wet", "old", "bob"])
    assert edit_line(annotations, opened, "hail #wet #cold ~0.7 -- ann's") == "hail"
    assert said(annotations, 5) == [("hail", 0.9, "bob's", ("wet", "bob", "cold"))]
    annotations.undo()
    assert said(annotations, 5) == [("rain", 0.9, "bob's", ("wet", "old", "bob"))]


def test_a_concept_that_was_renamed_meanwhile_does_not_come_back(
    annotations: Annotations, other: Annotations
) -> None:
    opened = [annotations.set_concept(SAE, one, "rain") for one in (5, 6)]
    rename(other, SAE, 5, "rain", "drizzle")

    def less_sure(one: Concept) -> Concept:
        return replace(one, confidence=0.3)

    with pytest.raises(NotFoundError, match=r"rain.*of feature 5 is not there any more"):
        edit_concepts(annotations, opened[:1], less_sure)
    with pytest.raises(NotFoundError, match="not there any more"):
        edit_line(annotations, opened[0], "rain #wet")
    done = edit_concepts(annotations, opened, less_sure)
    assert done.left_out() == ", 1 left out that was renamed or removed meanwhile"
    assert [one[:2] for one in said(annotations, 5)] == [("drizzle", 1.0)]
    assert [one[:2] for one in said(annotations, 6)] == [("rain", 0.3)]
    assert remove_concepts(annotations, opened).found == 1
    assert said(annotations, 6) == []


@pytest.mark.parametrize("by_line", [False, True])
def test_a_name_onto_another_puts_the_two_together(annotations: Annotations, by_line: bool) -> None:
    annotations.set_concept(SAE, 6, "b", 0.9, "precious", ["t1"])
    opened = annotations.set_concept(SAE, 6, "a", 0.5, "mine", ["t2"])
    if by_line:
        edit_line(annotations, opened, "b #t2 ~0.5 -- mine")
    else:
        assert rename(annotations, SAE, 6, "a", "b")
    assert said(annotations, 6) == [("b", 0.9, "precious\nmine", ("t1", "t2"))]
    annotations.undo()
    assert [one[0] for one in said(annotations, 6)] == ["a", "b"]


def test_a_name_said_again_keeps_its_note_and_tags(annotations: Annotations) -> None:
    annotations.set_concept(SAE, 7, "hail", 0.5, "ice", ["wet"])
    say(annotations, SAE, 7, "hail ", confidence=0.9, tags=["#cold"])
    assert said(annotations, 7) == [("hail", 0.9, "ice", ("wet", "cold"))]
    rename(annotations, SAE, 7, "gone meanwhile", "hail")
    assert said(annotations, 7) == [("hail", 0.9, "ice", ("wet", "cold"))]


def test_the_commands_set_and_remove_are_one_change_each(
    workspace: Workspace, capsys: pytest.CaptureFixture[str]
) -> None:
    annotations = Annotations(workspace.annotations_path)
    assert main(["concepts", "set", "7", "hail #wet -- ice"]) == 0
    assert main(["concepts", "set", "7", "hail ~0.9"]) == 0
    assert said(annotations, 7) == [("hail", 0.9, "ice", ("wet",))]
    assert main(["concepts", "set", "7", "hail #cold", "--replace"]) == 0
    assert said(annotations, 7) == [("hail", 1.0, "", ("cold",))]
    assert main(["concepts", "set", "7", "rain"]) == 0
    assert main(["concepts", "remove", "7"]) == 0
    assert said(annotations, 7) == []
    assert main(["concepts", "undo"]) == 0
    assert [one[0] for one in said(annotations, 7)] == ["hail", "rain"]


def test_a_merge_takes_a_name_with_blanks_as_it_is_saved(annotations: Annotations) -> None:
    before = annotations.set_concept(SAE, 5, "rain", 0.7, "my note", ["wet"])
    annotations.set_concept(SAE, 6, "hail", tags=["cold"])
    assert merge_names(annotations, SAE, (5, 6), " rain ") == 2
    done = annotations.undo()
    assert done is not None
    assert not done.skipped
    assert annotations.concepts(SAE, 5) == [before]


def test_a_merge_writes_nothing_that_an_import_would_refuse(annotations: Annotations) -> None:
    half = "x" * (MOST_NOTE // 2)
    annotations.set_concept(SAE, 3, "a", note=half)
    annotations.set_concept(SAE, 3, "b", note=half.replace("x", "y"))
    with pytest.raises(UserError, match=r"feature 3: its note has .* at most 1,048,576"):
        merge_names(annotations, SAE, (3, 4), "a")
    with pytest.raises(UserError, match="its name has"):
        merge_names(annotations, SAE, (3, 4), "n" * (MOST_NAME + 1))
    with pytest.raises(UserError, match=r"feature 3 is not .c. any more"):
        merge_names(annotations, SAE, (3, 4), "c", only_while="c")
    assert len(annotations.history()) == 2


def test_notes_are_put_together_by_their_lines() -> None:
    assert joined_notes(["not a bird of prey", "a bird"]) == "not a bird of prey\na bird"
    assert joined_notes(["one\ntwo\nthree", "two", "", "three"]) == "one\ntwo\nthree"


def test_an_import_of_both_keeps_both_notes(workspace: Workspace, tmp_path: Path) -> None:
    annotations = Annotations(workspace.annotations_path)
    annotations.set_concept(SAE, 3, "owl", note="not a bird of prey")
    path = tmp_path / "c.json"
    path.write_text(json.dumps([{"feature": 3, "name": "owl", "note": "a bird"}]))
    for _ in range(2):
        assert main(["concepts", "import", str(path), "--conflicts", "both"]) == 0
        assert annotations.concepts()[0].note == "not a bird of prey\na bird"


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("tags", ["t" * (MOST_NAME + 1)]),
        ("tags", [f"{one:04}" * 4000 for one in range(70)]),
        ("source", "s" * (MOST_NAME + 1)),
    ],
)
def test_no_text_of_a_concept_is_longer_than_it_may_be(
    workspace: Workspace, tmp_path: Path, field: str, value: object
) -> None:
    annotations = Annotations(workspace.annotations_path)
    path = tmp_path / "c.json"
    path.write_text(json.dumps([{"feature": 3, "name": "owl", field: value}]))
    with pytest.raises(UserError, match=f"row 1 of .*{field.rstrip('s')}.* at most"):
        annotations.import_(path, SAE)
    with pytest.raises(UserError, match="at most"):
        annotations.set_concept(SAE, 3, "owl", **{field: value})  # type: ignore[arg-type]
    annotations.set_concept(SAE, 3, "owl")
    with pytest.raises(UserError, match="feature 3: its longest tag"):
        tag_all(annotations, SAE, [3], ["t" * (MOST_NAME + 1)], [])
    with pytest.raises(UserError, match="feature 3: its note"):
        note_all(annotations, SAE, [3], "n" * (MOST_NOTE + 1))


def test_a_text_that_sqlite_does_not_take_is_not_called_damage(annotations: Annotations) -> None:
    with pytest.raises(UserError, match=r"a text is too long for 'annotations.sqlite'") as error:
        annotations.save_preset("p", [{"target": "x" * (65 << 20)}])
    assert "damaged" not in str(error.value)
    assert annotations.presets() == []


def test_a_preset_and_an_inspection_that_another_program_saved_meanwhile(
    annotations: Annotations, other: Annotations, monkeypatch: pytest.MonkeyPatch
) -> None:
    annotations.save_preset("old", [])
    begin = annotations._database._begin

    def late() -> sqlite3.Connection:
        monkeypatch.setattr(annotations._database, "_begin", begin)
        other.save_preset("new", [])
        other.save_inspection("i", "inspect", "text", {})
        return begin()

    monkeypatch.setattr(annotations._database, "_begin", late)
    with pytest.raises(UserError, match="there is a preset 'new' already"):
        annotations.rename_preset("old", "new")
    other.delete_inspection("i")
    monkeypatch.setattr(annotations._database, "_begin", late)
    with pytest.raises(UserError, match="there is an inspection 'i' already"):
        annotations.save_inspection("i", "inspect", "text", {})


def test_a_dry_run_reads_only(
    workspace: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "c.csv"
    path.write_text("feature,name\n3,owl\n")
    assert main(["concepts", "import", str(path), "--dry-run"]) == 0
    assert not workspace.annotations_path.exists()
    Annotations(workspace.annotations_path).set_concept(SAE, 3, "owl")
    why = "mi_crow.mechanistic.concepts.annotations_database.write_obstacle"
    monkeypatch.setattr(why, lambda _: "the file system is read-only")
    assert main(["concepts", "import", str(path), "--dry-run"]) == 0
