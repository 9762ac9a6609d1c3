"""Undo, redo and the history: what is taken back, whose it is, and what is said of it."""

import json
from pathlib import Path

import pytest

from mi_crow.cli.entry import run_command_line
from mi_crow.errors import NotFoundError, UserError
from mi_crow.mechanistic.concepts.annotations import Annotations
from mi_crow.store.workspace import Workspace

SAE = "sae"


@pytest.fixture
def annotations(tmp_path: Path) -> Annotations:
    return Annotations(tmp_path / "annotations.sqlite", actor="ada", session="first")


def names(annotations: Annotations) -> list[str]:
    return [concept.name for concept in annotations.concepts()]


def test_redo_goes_the_way_of_undo_back(annotations: Annotations) -> None:
    for name in ("a", "b", "c"):
        annotations.set_concept(SAE, 1, name)
    states = [annotations.concepts()]
    for _ in range(3):
        annotations.undo("first")
        states.append(annotations.concepts())
    for state in states[-2::-1]:
        redone = annotations.redo("first")
        assert redone is not None
        assert redone.message.startswith("redone: name ")
        assert annotations.concepts() == state
    assert annotations.redo("first") is None
    annotations.undo("first")
    assert annotations.concepts() == states[1]


def test_a_new_change_ends_what_can_be_redone(annotations: Annotations) -> None:
    annotations.set_concept(SAE, 1, "a")
    annotations.undo("first")
    annotations.set_concept(SAE, 2, "b")
    assert annotations.redo("first") is None
    assert names(annotations) == ["b"]


def test_a_session_undoes_and_redoes_its_own_changes(annotations: Annotations) -> None:
    earlier = Annotations(annotations.path, actor="ada", session="earlier")
    earlier.set_concept(SAE, 1, "a")
    earlier.set_concept(SAE, 2, "b")
    earlier.undo("earlier")
    assert annotations.undo(annotations.session) is None
    assert annotations.redo(annotations.session) is None
    assert names(annotations) == ["a"]


def test_a_redo_leaves_what_somebody_changed_since(annotations: Annotations) -> None:
    annotations.set_concept(SAE, 1, "a")
    annotations.undo()
    Annotations(annotations.path, actor="eve").set_concept(SAE, 1, "a", note="mine")
    redone = annotations.redo()
    assert redone is not None
    assert redone.message == "not redone, it has changed since: name “a” of feature 1"
    assert annotations.concepts()[0].note == "mine"


def test_any_change_can_be_picked_and_says_what_it_was(annotations: Annotations) -> None:
    eve = Annotations(annotations.path, actor="eve")
    eve.set_concept(SAE, 1, "a")
    with eve.one_change():
        eve.set_concept(SAE, 2, "b")
        eve.set_concept(SAE, 3, "c")
    with annotations.one_change():
        annotations.set_concept(SAE, 1, "d")
        annotations.remove_concept(SAE, 1, "a")
    rename, both, first = annotations.past_changes()
    assert [one.what for one in (rename, both, first)] == [
        "rename “a” to “d” of feature 1",
        "name 2 concepts: “b” of feature 2, “c” of feature 3",
        "name “a” of feature 1",
    ]
    assert [one.actor for one in (rename, both, first)] == ["ada", "eve", "eve"]
    with pytest.raises(UserError, match="changed since") as refused:
        annotations.undo_change(first.id)
    assert refused.value.hint == f"undo change {rename.id} first ({rename.what})"
    assert annotations.undo_change(both.id).message == (
        "undone: name 2 concepts: “b” of feature 2, “c” of feature 3"
    )
    assert names(annotations) == ["d"]
    with pytest.raises(UserError, match="undone already"):
        annotations.undo_change(both.id)
    annotations.undo_change(rename.id)
    assert annotations.undo_change(first.id).undone == 1  # now it is as it was made
    assert names(annotations) == []
    with pytest.raises(NotFoundError, match="no change 99"):
        annotations.undo_change(99)


def test_history_undo_and_redo_as_commands(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    workspace = Workspace.open(tmp_path / "w")
    annotations = Annotations(workspace.annotations_path)
    annotations.set_concept(SAE, 1, "a")
    annotations.set_concept(SAE, 2, "b")

    def command(*words: str) -> object:
        root = ["--workspace", str(workspace.root), "--json", "concepts"]
        assert run_command_line([*root, *words]) == 0
        return json.loads(capsys.readouterr().out)

    listed = command("history")
    assert isinstance(listed, list)
    assert [one["what"] for one in listed] == ["name “b” of feature 2", "name “a” of feature 1"]
    command("undo", str(listed[1]["id"]))
    assert names(annotations) == ["b"]
    command("redo")
    assert names(annotations) == ["a", "b"]
    assert run_command_line(["--workspace", str(workspace.root), "concepts", "undo", "77"]) == 2
    assert "there is no change 77" in capsys.readouterr().err


def test_a_name_is_told_as_it_is_also_with_quotes_and_joiners(annotations: Annotations) -> None:
    """Python's own quotes would show `it\\'s` and the parts of an emoji."""
    for name in ('it\'s "so"', "\N{MAN}\u200d\N{WOMAN} pair", "a\x1b[1mb", "n" * 10_000):
        annotations.set_concept(SAE, 1, name)
    told = [change.what for change in annotations.past_changes()]
    assert told == [
        f"name “{'n' * 79}…” of feature 1",
        "name “a␛[1mb” of feature 1",
        "name “\N{MAN}\u200d\N{WOMAN} pair” of feature 1",
        'name “it\'s "so"” of feature 1',
    ]
