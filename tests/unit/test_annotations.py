"""Annotations: what is written can be read, undone, exported, and shared between processes."""

import json
import os
import sqlite3
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mi_crow.errors import CorruptDataError, NotFoundError, UserError
from mi_crow.mechanistic.concepts.annotations import Annotations
from mi_crow.mechanistic.concepts.annotations_disk import (
    file_system,
    parse_mount,
    parse_mountinfo,
)
from mi_crow.mechanistic.concepts.exchange.importing import WouldReplaceError
from mi_crow.mechanistic.concepts.marked import parse_tags


@pytest.fixture
def annotations(tmp_path: Path) -> Annotations:
    return Annotations(tmp_path / "annotations.sqlite", actor="ada")


def names(annotations: Annotations) -> list[tuple[int, str]]:
    return [(concept.feature, concept.name) for concept in annotations.concepts()]


def test_reading_makes_no_file(annotations: Annotations) -> None:
    assert annotations.concepts() == []
    assert annotations.presets() == []
    assert annotations.generations() == []
    assert annotations.history() == []
    assert annotations.undo() is None
    assert annotations.data_version() == 0
    assert not annotations.path.exists()


def test_a_concept_is_kept_whole(annotations: Annotations) -> None:
    name = "\x1b[31mred\x1b[0m [bold]שלום[/] 🦜"
    written = annotations.set_concept("sae", 7, name, 0.5, "why\nnot", ["a", " b ", "a", ""])
    annotations.close()
    assert Annotations(annotations.path).concepts("sae") == [written]
    assert (written.name, written.tags, written.confidence) == (name, ("a", "b"), 0.5)
    assert annotations.concepts("another") == []


def test_tags_are_kept_without_their_sign(annotations: Annotations) -> None:
    annotations.set_concept("sae", 3, "sails", tags=["#sea", " # wet ", "sea", "#"])
    assert annotations.concepts()[0].tags == ("sea", "wet")
    assert parse_tags("#wet #cold, to do, -#dry") == (["wet", "cold", "to do"], ["dry"])
    assert parse_tags("checked, -to do") == (["checked"], ["to do"])
    assert parse_tags("#wet #well-known -dry") == (["wet", "well-known"], ["dry"])


def test_setting_again_changes_and_keeps_the_birthday(annotations: Annotations) -> None:
    first = annotations.set_concept("sae", 7, "sea")
    second = annotations.set_concept("sae", 7, "sea", confidence=0.2, note="calm")
    assert annotations.concepts() == [second]
    assert second.created == first.created
    assert second.updated >= first.updated


@pytest.mark.parametrize(
    ("feature", "name", "confidence"),
    [(1, "  ", 1.0), (-1, "x", 1.0), (2**31, "x", 1.0), (1, "x", 1.5), (1, "x", float("nan"))],
)
def test_nonsense_is_refused(
    annotations: Annotations, feature: int, name: str, confidence: float
) -> None:
    with pytest.raises(UserError):
        annotations.set_concept("sae", feature, name, confidence)
    assert annotations.concepts() == []


def test_bytes_that_are_no_text_are_replaced(annotations: Annotations) -> None:
    assert annotations.set_concept("\udcff", 1, "a\udcff", source="\udcff").name == "a\ufffd"
    assert annotations.remove_concept("\udcff", 1, "a\udcff")
    annotations.save_preset("p\udcff", [{"target": "\udcff"}])
    assert [preset.interventions for preset in annotations.presets()] == [({"target": "\ufffd"},)]
    annotations.delete_preset("p\udcff")
    annotations.save_generation(model_id="m", prompt="\udcff", baseline="b", steered="s")
    assert annotations.generations()[0].prompt == "\ufffd"


def test_undo_takes_back_step_by_step(annotations: Annotations) -> None:
    annotations.set_concept("sae", 1, "one")
    annotations.set_concept("sae", 1, "one", note="first")
    annotations.remove_concept("sae", 1, "one")
    undone = annotations.undo()
    assert undone is not None
    assert "remove “one” of feature 1" in str(undone)
    assert annotations.concepts()[0].note == "first"
    annotations.undo()
    assert annotations.concepts()[0].note == ""
    annotations.undo()
    assert annotations.concepts() == []
    assert annotations.undo() is None


def test_undo_leaves_other_users_alone(annotations: Annotations) -> None:
    annotations.set_concept("sae", 1, "mine")
    bob = Annotations(annotations.path, actor="bob")
    bob.set_concept("sae", 2, "his")
    annotations.undo()
    assert names(annotations) == [(2, "his")]
    assert annotations.undo() is None


def test_undo_of_one_session_alone(annotations: Annotations) -> None:
    annotations.set_concept("sae", 1, "here")
    Annotations(annotations.path, actor="ada", session="other").set_concept("sae", 2, "there")
    annotations.undo(session=annotations.session)
    assert names(annotations) == [(2, "there")]


def test_undo_says_when_the_row_has_changed_since(annotations: Annotations) -> None:
    annotations.set_concept("sae", 1, "before")
    annotations.set_concept("sae", 2, "sea")
    Annotations(annotations.path, actor="bob").set_concept("sae", 2, "sea", note="deeper")
    undone = annotations.undo()
    assert undone is not None
    assert (undone.undone, undone.skipped) == (0, 1)
    assert "changed since" in undone.message
    assert annotations.concepts()[1].note == "deeper"
    annotations.undo()  # the one before it is next
    assert names(annotations) == [(2, "sea")]


def test_one_change_is_written_and_undone_at_once(annotations: Annotations) -> None:
    annotations.set_concept("sae", 1, "old")
    with annotations.one_change():
        annotations.set_concept("sae", 1, "new")
        annotations.remove_concept("sae", 1, "old")
    assert names(annotations) == [(1, "new")]
    annotations.undo()
    assert names(annotations) == [(1, "old")]


def test_one_change_that_fails_writes_nothing(annotations: Annotations) -> None:
    def change() -> None:
        with annotations.one_change():
            annotations.set_concept("sae", 1, "good")
            annotations.set_concept("sae", 2, "")

    with pytest.raises(UserError):
        change()
    assert annotations.concepts() == []
    assert annotations.history() == []


def test_removing_what_is_not_there_is_told(annotations: Annotations) -> None:
    assert annotations.remove_concept("sae", 1, "x") is False
    annotations.set_concept("sae", 1, "x")
    assert annotations.remove_concept("sae", 1, "x") is True


def test_history_is_newest_first_and_knows_what_was_undone(annotations: Annotations) -> None:
    annotations.set_concept("sae", 1, "one")
    annotations.undo()
    undo, first = annotations.history()
    assert (undo.action, first.action, first.actor, first.undone) == ("undo", "set", "ada", True)
    assert first.after is not None
    assert first.after.name == "one"


def test_a_renamed_sae_takes_its_concepts_along(annotations: Annotations) -> None:
    annotations.rename_sae("nobody", "someone")
    assert not annotations.path.exists()
    annotations.set_concept("old", 1, "one")
    annotations.rename_sae("old", "new")
    assert [concept.sae_id for concept in annotations.concepts()] == ["new"]
    annotations.undo()
    assert annotations.concepts() == []


def test_a_renamed_sae_never_takes_the_concepts_of_another(annotations: Annotations) -> None:
    annotations.set_concept("old", 1, "one")
    annotations.set_concept("removed", 1, "one", note="what an SAE of this id left")
    before = annotations.concepts(), annotations.history()
    with pytest.raises(UserError, match="'removed'"):
        annotations.rename_sae("old", "removed")
    assert (annotations.concepts(), annotations.history()) == before


@pytest.mark.parametrize("suffix", [".json", ".csv"])
def test_what_is_exported_comes_back(annotations: Annotations, tmp_path: Path, suffix: str) -> None:
    annotations.set_concept("a", 1, 'say "hi", then\nleave', 0.25, "n,ö", ["x,y", "z"])
    annotations.set_concept("b", 2, "🦜 [bold]", source="demo")
    path = tmp_path / f"concepts{suffix}"
    assert annotations.export(path) == 2
    other = Annotations(tmp_path / "other.sqlite")
    assert other.import_(path) == 2
    left = [{**c.as_dict(), "created": 0, "updated": 0} for c in annotations.concepts()]
    assert [{**c.as_dict(), "created": 0, "updated": 0} for c in other.concepts()] == left


concept_texts = st.text(
    st.characters(exclude_categories=["Cs"], exclude_characters="\x00"), min_size=1
).filter(lambda text: text.strip() == text)


@pytest.mark.slow
@given(rows=st.dictionaries(st.tuples(st.integers(0, 10**6), concept_texts), concept_texts))
def test_any_text_survives_both_formats(
    tmp_path_factory: pytest.TempPathFactory, rows: dict[tuple[int, str], str]
) -> None:
    from mi_crow.mechanistic.concepts.annotations_rows import Concept, clean_tags
    from mi_crow.mechanistic.concepts.concept_files import write_concepts
    from mi_crow.mechanistic.concepts.exchange.dictionary_rows import read_rows

    folder = tmp_path_factory.mktemp("files")
    concepts = [  # a tag is stored without its sign
        Concept("sae", feature, name, 0.5, note, clean_tags((note,)), "user", 0.0, 0.0)
        for (feature, name), note in rows.items()
    ]
    for suffix in (".json", ".csv"):
        path = folder / f"x{suffix}"
        write_concepts(path, concepts)
        found = [
            (row["feature"], row["name"], row["note"], row["tags"])
            for row in (one.values for one in read_rows(path))
        ]
        assert found == [(c.feature, c.name, c.note, c.tags) for c in concepts]


def test_the_published_form_is_read_for_a_given_sae(
    annotations: Annotations, tmp_path: Path
) -> None:
    path = tmp_path / "concepts.json"
    path.write_text(json.dumps({"3": [{"name": "sea", "confidence": 0.5}], "4": "salt"}))
    with pytest.raises(UserError, match=r"row 1 .* which SAE"):
        annotations.import_(path)
    assert annotations.import_(path, sae_id="sae") == 2
    assert names(annotations) == [(3, "sea"), (4, "salt")]
    annotations.undo()
    assert annotations.concepts() == []


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        ("x.json", "{", "not valid JSON"),
        ("x.json", "3", "neither a list"),
        ("x.json", '[{"feature": "x", "name": "y", "sae_id": "s"}]', "row 1"),
        ("x.json", '[{"feature": 1, "sae_id": "s"}]', "row 1"),
        ("x.json", '[{"feature": 1, "name": null, "sae_id": "s"}]', "row 1"),
        ("x.csv", "feature,title\n1,x\n", "no column 'name'"),
        ("x.csv", "sae_id,feature,name\ns,one,x\n", "row 1"),
        ("x.csv", "sae_id,feature,name\ns,1,x\ns,1,\n", "row 2 .* needs a name"),
        ("x.csv", f"sae_id,feature,name\ns,{10**30},x\n", "row 1"),
        ("x.json", '[{"feature": 1.5, "name": "y", "sae_id": "s"}]', "row 1"),
        ("x.json", '[{"feature": 1e400, "name": "y", "sae_id": "s"}]', "row 1"),
        ("x.json", '[{"feature": 1, "name": "y", "sae_id": "s", "confidence": 2}]', "row 1"),
        ("x.json", "[" * 100_000, "not valid JSON"),
        ("x.txt", "", "neither .json nor .csv"),
    ],
)
def test_a_bad_file_imports_nothing(
    annotations: Annotations, tmp_path: Path, name: str, text: str, says: str
) -> None:
    path = tmp_path / name
    path.write_text(text)
    with pytest.raises(UserError, match=says):
        annotations.import_(path)
    assert annotations.concepts() == []


def test_a_missing_or_binary_file_is_a_plain_error(
    annotations: Annotations, tmp_path: Path
) -> None:
    with pytest.raises(NotFoundError):
        annotations.import_(tmp_path / "none.json")
    (tmp_path / "x.json").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UserError, match="is not UTF-8 text"):
        annotations.import_(tmp_path / "x.json")


def test_presets_are_replaced_by_name(annotations: Annotations) -> None:
    new = {"target": "feature:2", "op": "scale", "value": 0.0}
    assert not annotations.save_preset("calm", [{**new, "target": "feature:1"}])
    assert annotations.save_preset("calm", [new])
    assert not annotations.save_preset("calm", [new])
    with pytest.raises(UserError, match="the name has 201 characters, at most 200 fit"):
        annotations.save_preset("c" * 201, [new])
    [preset] = annotations.presets()
    assert preset.interventions[0]["target"] == "feature:2"
    with pytest.raises(NotFoundError, match="'loud'"):
        annotations.delete_preset("loud")
    annotations.delete_preset("calm")
    assert annotations.presets() == []


def test_a_preset_keeps_its_constraints(annotations: Annotations) -> None:
    new = {"target": "feature:2", "op": "scale", "value": 0.0}
    annotations.save_preset("calm", [new], plausible=0.05)
    assert annotations.save_preset("calm", [new], 0.05, 0.3)  # another one of that name
    kept = annotations.preset("calm")
    assert (kept.interventions, kept.plausible, kept.kl_budget) == ((new,), 0.05, 0.3)
    annotations.save_preset("calm", [new])
    kept = annotations.preset("calm")
    assert (kept.plausible, kept.kl_budget) == (None, None)
    with sqlite3.connect(annotations.path) as file:
        for damaged in ('{"interventions": [], "plausible": "x"}', '{"plausible": 1}', "7"):
            file.execute("UPDATE presets SET interventions = ?", (damaged,))
            file.commit()
            kept = annotations.preset("calm")
            assert (kept.interventions, kept.plausible) == (({},), None)


def test_a_generation_is_kept_whole(annotations: Annotations) -> None:
    number = annotations.save_generation(
        model_id="m",
        sae_ids=["s"],
        prompt="p",
        baseline="b",
        steered="\x1b]52;c;x\x07",
        seed=3,
        settings={"temperature": 0.7},
        metrics={"kl": 0.1},
        versions={"torch": "2"},
    )
    [saved] = annotations.generations()
    assert saved.id == number
    assert (saved.steered, saved.sae_ids, saved.metrics) == (
        "\x1b]52;c;x\x07",
        ("s",),
        {"kl": 0.1},
    )


def test_data_version_moves_with_own_and_foreign_commits(annotations: Annotations) -> None:
    annotations.set_concept("sae", 1, "one")
    first = annotations.data_version()
    assert annotations.data_version() == first
    annotations.set_concept("sae", 1, "two")
    second = annotations.data_version()
    assert second != first
    Annotations(annotations.path).set_concept("sae", 1, "three")
    assert annotations.data_version() not in (first, second)


def test_threads_share_one_object(annotations: Annotations) -> None:
    def write(thread: int) -> None:
        for n in range(20):
            with annotations.one_change():
                annotations.set_concept("sae", thread, f"{n}")
                annotations.set_concept("sae", 100 + thread, f"{n}")

    threads = [threading.Thread(target=write, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(annotations.concepts()) == 160
    changes = [line for line in annotations.history(limit=1000) if line.action == "set"]
    assert len(changes) == 160


_WRITER = """
import sys
from mi_crow.mechanistic.concepts.annotations import Annotations
annotations = Annotations(sys.argv[1], actor=sys.argv[2])
sys.stdin.readline()
for n in range(25):
    annotations.set_concept("sae", n, sys.argv[2])
assert not {"torch", "transformers", "duckdb", "numpy"} & set(sys.modules)
"""


@pytest.mark.slow
def test_processes_that_start_at_once_lose_nothing(annotations: Annotations) -> None:
    writers = [
        subprocess.Popen(
            [sys.executable, "-c", _WRITER, str(annotations.path), f"writer-{n}"],
            stdin=subprocess.PIPE,
            text=True,
            env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])},
        )
        for n in range(3)
    ]
    for writer in writers:
        writer.communicate("go\n", timeout=60)
    assert [writer.returncode for writer in writers] == [0, 0, 0]
    assert len(annotations.concepts()) == 75


def test_a_file_of_something_else_is_a_clear_error(tmp_path: Path) -> None:
    path = tmp_path / "annotations.sqlite"
    path.write_bytes(b"not a database at all " * 100)
    with pytest.raises(CorruptDataError, match="damaged"):
        Annotations(path).concepts()


def test_a_newer_schema_is_refused(annotations: Annotations) -> None:
    annotations.set_concept("sae", 1, "one")
    annotations.close()
    with sqlite3.connect(annotations.path) as connection:
        connection.execute("PRAGMA user_version=99")
    with pytest.raises(UserError, match="schema 99"):
        Annotations(annotations.path).concepts()


def test_a_folder_that_cannot_be_written_to_is_a_user_error(tmp_path: Path) -> None:
    (tmp_path / "annotations.sqlite").mkdir()
    with pytest.raises(UserError, match="cannot be used"):
        Annotations(tmp_path / "annotations.sqlite").set_concept("sae", 1, "one")


def test_the_journal_mode_is_chosen_once_and_noted(tmp_path: Path) -> None:
    marker = tmp_path / "workspace.json"
    marker.write_text('{"format_version": 1}')
    annotations = Annotations(tmp_path / "annotations.sqlite")
    annotations.set_concept("sae", 1, "one")
    mode = sqlite3.connect(annotations.path).execute("PRAGMA journal_mode").fetchone()[0]
    assert json.loads(marker.read_text()) == {"format_version": 1, "journal_mode": mode}


def test_file_systems_are_told_apart(tmp_path: Path) -> None:
    line = "36 35 98:0 / /mnt/with\\040blank rw,noatime master:1 - nfs4 server:/x rw"
    assert parse_mountinfo(line) == [("/mnt/with blank", "nfs4")]
    assert parse_mount("/dev/disk1 on /Volumes/a (b (apfs, local)") == [("/Volumes/a (b", "apfs")]
    assert file_system(tmp_path) != "nfs"


def test_presets_and_generations_follow_a_renamed_sae(annotations: Annotations) -> None:
    stack = [
        {"target": "feature:old/3", "op": "add", "value": 1.0, "sae": "old"},
        {"target": "feature:older/4", "op": "ablate", "sae": "older"},
    ]
    annotations.save_preset("boats", stack)
    group = {"target": "group:old/3+7", "rivals": "feature:old/9", "condition": {"sae": "old"}}
    annotations.save_preset("group", [group], 0.05)
    annotations.save_generation(
        model_id="m",
        prompt="p",
        baseline="b",
        steered="s",
        sae_ids=["old"],
        settings={"interventions": stack},
    )
    read = {"readings": {"targets": ["feature:3", "feature:old/3", "feature:older/4"]}}
    annotations.save_generation(
        model_id="m",
        prompt="p",
        baseline="b",
        steered="s",
        sae_ids=["older"],  # that was open
        settings={"interventions": stack},
        metrics={"kl": 0.5, **read},
    )
    annotations.rename_sae("old", "new")
    [preset, other], [beside, kept] = annotations.presets(), annotations.generations()
    (held,) = other.interventions
    assert (held["target"], held["rivals"]) == ("group:new/3+7", "feature:new/9")
    assert (held["condition"], other.plausible) == ({"sae": "new"}, 0.05)
    wanted = [("feature:new/3", "new"), ("feature:older/4", "older")]
    assert [(one["target"], one["sae"]) for one in preset.interventions] == wanted
    assert [(one["target"], one["sae"]) for one in kept.settings["interventions"]] == wanted
    assert kept.sae_ids == ("new",)
    assert [(one["target"], one["sae"]) for one in beside.settings["interventions"]] == wanted
    assert (beside.sae_ids, beside.metrics["kl"]) == (("older",), 0.5)
    assert beside.metrics["readings"]["targets"] == [
        "feature:3",
        "feature:new/3",
        "feature:older/4",
    ]


def test_lists_of_generations_do_without_what_was_read_in_them(
    annotations: Annotations,
) -> None:
    readings = {"readings": {"targets": ["feature:3"], "steered": {"acts": [[0.5] * 4096]}}}
    for figures in ({"kl": 0.5}, {"kl": float("nan")}):  # which SQLite does not take for JSON
        annotations.save_generation(
            model_id="m", prompt="p", baseline="b", steered="s", metrics=figures | readings
        )
    other, first = annotations.generations(readings=False)
    assert first.metrics == {"kl": 0.5}
    assert (first.prompt, first.id) == ("p", 1)
    assert other.metrics["kl"] != other.metrics["kl"]
    assert annotations.generations()[1].metrics == {"kl": 0.5, **readings}
    assert annotations.generation(first.id).metrics == {"kl": 0.5, **readings}


def test_nothing_is_replaced_unasked(annotations: Annotations, tmp_path: Path) -> None:
    annotations.set_concept("sae", 1, "sea", note="mine")
    path = tmp_path / "concepts.json"
    path.write_text(json.dumps([{"sae_id": "sae", "feature": 1, "name": "sea", "note": "theirs"}]))
    with pytest.raises(UserError, match="exists already"):
        annotations.export(path)
    with pytest.raises(WouldReplaceError, match="would change 1 concept of yours"):
        annotations.import_(path)
    assert annotations.concepts()[0].note == "mine"
    assert annotations.import_(path, overwrite=True) == 1
    assert annotations.concepts()[0].note == "theirs"
    annotations.set_concept("sae", 2, "salt")
    assert annotations.export(path, overwrite=True) == 2
    assert annotations.import_(path) == 2  # says nothing else
