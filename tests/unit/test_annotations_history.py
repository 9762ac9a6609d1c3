"""Undo, redo and the history: what is taken back, whose it is, and what is said of it."""

import json
from pathlib import Path

import pytest

from mi_crow.cli.entry import run_command_line
from mi_crow.errors import NotFoundError, UserError
from mi_crow.mechanistic.concepts import annotations_database
from mi_crow.mechanistic.concepts.annotations import Annotations
from mi_crow.mechanistic.concepts.annotations_rows import _as_written, _checked, as_text
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


def test_a_large_change_is_undone_at_once(annotations: Annotations) -> None:
    """One row after the other took 8 s of a busy machine for 100,000, and others waited."""
    features = range(200)
    with annotations.one_change():
        for feature in features:
            annotations.set_concept("sae", feature, "a")
    statements: list[str] = []
    connection = annotations._database._connection
    assert connection is not None
    connection.set_trace_callback(statements.append)
    assert annotations.undo() is not None
    assert sum(one.startswith(("SELECT", "INSERT")) for one in statements) < 20
    assert annotations.concepts() == []
    redone = annotations.redo()
    assert redone is not None
    assert redone.undone == 200
    assert "name 200 concepts: “a” of feature 199, “a” of feature 198 and 198 more" in str(redone)
    assert len(annotations.concepts()) == 200


def test_a_row_changed_twice_in_one_change_goes_all_the_way_back(annotations: Annotations) -> None:
    first = annotations.set_concept("sae", 1, "a", 0.1)
    with annotations.one_change():
        annotations.set_concept("sae", 1, "a", 0.2)
        annotations.remove_concept("sae", 1, "a")
        last = annotations.set_concept("sae", 1, "a", 0.3)
        annotations.set_concept("sae", 2, "b")
    for _ in range(2):
        assert str(annotations.undo()).startswith("undone: change 4 concepts")
        assert annotations.concepts() == [first]
        annotations.redo()
        assert annotations.concepts("sae", 1) == [last]
        assert [one.name for one in annotations.concepts("sae", 2)] == ["b"]


@pytest.mark.parametrize("picked", [False, True])
def test_rows_that_changed_since_are_left_and_only_a_picked_undo_asks_again(
    annotations: Annotations, picked: bool
) -> None:
    with annotations.one_change():
        for feature in range(4):
            annotations.set_concept("sae", feature, "a")
    change = annotations.past_changes()[0].id
    Annotations(annotations.path, actor="bob").set_concept("sae", 1, "a", 0.4)
    done = annotations.undo_change(change) if picked else annotations.undo()
    assert done is not None
    assert (done.undone, done.skipped) == (3, 1)
    assert [one.feature for one in annotations.concepts()] == [1]
    lines = [one for one in annotations.history() if one.change == change]
    assert [one.feature for one in lines if not one.undone] == ([1] if picked else [])
    assert [one.feature for one in annotations.history() if one.action == "undo"] == [0, 2, 3]
    assert annotations.redo() is not None
    assert [one.confidence for one in annotations.concepts()] == [1, 0.4, 1, 1]


def test_a_line_of_the_history_is_read_as_it_is_checked(annotations: Annotations) -> None:
    for name, note in (("plain", ""), ("half \ud83d", 'a "quote"\n\x01'), ("שלום", "🦜")):
        annotations.set_concept("sae", 7, name, 0.5, note, ["a", f"{note}\\u"])
    plain = as_text(annotations.set_concept("sae", 7, "plain", 0.5, "", ["a"]))
    assert plain is not None
    assert _as_written(plain) is not None
    for line in annotations.history():
        text = as_text(line.after)
        assert text is not None
        assert _as_written(text) in (None, _checked(text))
        assert line.after == _checked(text)
    for wrong in ("[]", "{", plain.replace("0.5", "7.5"), plain.replace('"a"', "1"), "null"):
        assert _as_written(wrong) is None


def test_a_writer_that_waits_in_vain_says_what_for(
    annotations: Annotations, monkeypatch: pytest.MonkeyPatch
) -> None:
    annotations.set_concept("sae", 1, "a")
    monkeypatch.setattr(annotations_database, "_PATIENCE", 0.05)
    other = Annotations(annotations.path)
    with annotations.one_change():
        annotations.set_concept("sae", 2, "b")
        with pytest.raises(UserError, match="another program is writing to") as error:
            other.set_concept("sae", 3, "c")
    assert error.value.hint == "nothing was written here; try again in a moment"
    assert names(annotations) == ["a", "b"]


def test_of_long_and_many_tags_a_few_are_told(annotations: Annotations) -> None:
    annotations.set_concept("sae", 1, "a")
    annotations.set_concept("sae", 1, "a", tags=["t" * 10_000, *map(str, range(20))])
    what = annotations.past_changes()[0].what
    assert what.startswith(f"change “a” of feature 1: #{'t' * 39}… #0 #1")
    assert what.endswith("#6 and 13 tags more")
