"""`mi-crow concepts` and `explain` on the terminal: coverage, checks, imports, what was removed."""

import json
from pathlib import Path
from typing import Any

import pytest

from mi_crow.cli import main
from mi_crow.cli.commands.meaning import explain
from mi_crow.mechanistic.concepts.annotations import Annotations
from mi_crow.mechanistic.steering.fits import tagged
from mi_crow.store.workspace import Workspace
from tests.helpers.index_fixture import make_index
from tests.helpers.printed import Say, saying
from tests.helpers.session_fixture import add_tiny_sae
from tests.helpers.steering_fixture import TEXT

SAE = "s"


@pytest.fixture
def indexed(workspace: Workspace) -> Workspace:
    make_index(workspace, SAE)
    return workspace


@pytest.fixture
def annotations(workspace: Workspace) -> Annotations:
    return Annotations(workspace.annotations_path)


@pytest.fixture
def say(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Say:
    """What `mi-crow concepts ...` prints, each run of spaces as one."""
    return saying(workspace, monkeypatch, capsys, "concepts")


def test_coverage_is_a_sentence_each_and_a_curve(
    indexed: Workspace, annotations: Annotations, say: Say
) -> None:
    found = json.loads(say("coverage", "--json"))
    shown = say("coverage")
    assert f"named 0 of {found['alive']} firing features" in shown
    assert "names explain could" not in shown
    for feature in (3, 4):
        annotations.set_concept(SAE, feature, f"name {feature}")
    found = json.loads(say("coverage", "--json"))
    shown = say("coverage")
    assert f"named 2 of {found['alive']} firing features" in shown
    lines = shown.splitlines()
    rows = lines[lines.index("names explain could") + 2 :]
    assert [row.split()[0] for row in rows] == ["1", "2"]
    shares = [100 * one["share"] for one in found["curve"]]
    assert [float(row.split()[1].rstrip("%")) for row in rows] == pytest.approx(shares, rel=0.01)


def test_names_are_removed_one_or_all_and_unknown_ones_told(
    indexed: Workspace, annotations: Annotations, say: Say
) -> None:
    for name in ("tide", "flood", "sea"):
        annotations.set_concept(SAE, 3, name)
    told = say("remove", "3", "ebb", code=2)
    assert "feature 3 does not have “ebb”" in told
    assert all(name in told for name in ("tide", "flood", "sea"))
    assert say("remove", "3", "tide") == "removed “tide” from feature 3\n"
    assert {one.name for one in annotations.concepts(SAE)} == {"flood", "sea"}
    assert set(json.loads(say("remove", "3", "--json"))["removed"]) == {"flood", "sea"}
    assert annotations.concepts(SAE) == []
    assert "feature 3 does not have a name; mi-crow concepts lists them all" in say(
        "remove", "3", code=2
    )


def test_what_cannot_be_done_is_told(indexed: Workspace, say: Say, tmp_path: Path) -> None:
    assert "you have no changes to undo" in say("undo", code=2)
    assert "there is nothing to redo" in say("redo", code=2)
    assert "no feature of s matches “label:sailing fires>999999”" in say(
        "tag", "label:sailing fires>999999", "sea #water", code=2
    )
    far = tmp_path / "no" / "c.json"
    assert f"folder {str(far.parent)!r} not found" in say("export", str(far), code=2)
    assert "is neither .json nor .csv; use one of .json" in say("export", "c.txt", code=2)
    assert "file 'none.json' not found" in say("import", "none.json", code=2)
    assert "nosuch" in say("history", "--sae", "nosuch", code=2)
    assert not list(tmp_path.glob("**/c.*"))


def test_the_history_of_one_feature(indexed: Workspace, annotations: Annotations, say: Say) -> None:
    annotations.set_concept(SAE, 3, "tide")
    annotations.set_concept(SAE, 4, "keel")
    changes = [
        json.loads(say("history", *words, "--json"))
        for words in (("--sae", SAE), ("--feature", "3"), ("--sae", SAE, "--feature", "4"))
    ]
    assert [len(some) for some in changes] == [2, 1, 1]
    assert "tide" in changes[1][0]["what"]
    assert "keel" in changes[2][0]["what"]
    say("undo")
    undone = json.loads(say("history", "--feature", "4", "--json"))[-1]
    assert (undone["id"], undone["undone"]) == (changes[2][0]["id"], True)
    rows = [line for line in say("history", "--feature", "4").splitlines() if "keel" in line]
    assert [row.startswith(f"{undone['id']} ") for row in rows if row.endswith(" undone")] == [True]


def test_features_are_merged_under_one_name(
    indexed: Workspace, annotations: Annotations, say: Say
) -> None:
    for feature in (3, 4):
        annotations.set_concept(SAE, feature, f"name {feature}")
    assert say("merge", "3", "4", "--name", "sea") == "2 features of s are now “sea”\n"
    assert {(one.feature, one.name) for one in annotations.concepts(SAE)} == {
        (3, "sea"),
        (4, "sea"),
    }
    assert json.loads(say("merge", "4", "3", "4", "--name", "sea", "--json")) == {
        "sae_id": SAE,
        "features": [3, 4],
        "name": "sea",
        "changed": 0,
    }


def test_a_dry_run_lists_what_an_import_would_change(
    indexed: Workspace, annotations: Annotations, say: Say, tmp_path: Path
) -> None:
    annotations.set_concept(SAE, 1, "rain", 0.5, "old")
    rows: list[dict[str, Any]] = [
        {"sae_id": SAE, "feature": 1, "name": "rain", "confidence": 0.75, "tags": ["wet"]},
        {"sae_id": SAE, "feature": 2, "name": "sun", "note": "bright"},
        {"sae_id": SAE, "feature": "x", "name": "bad"},
    ]
    path = tmp_path / "c.json"
    path.write_text(json.dumps(rows))
    asked = ("import", str(path), "--dry-run", "--skip-bad", "--conflicts", "replace")
    lines = say(*asked).splitlines()
    assert lines[0] == "change SAE feature before after"
    assert "change s 1 rain ~0.5 -- old rain #wet ~0.75 -- old" in lines
    assert "add s 2 sun ~1 -- bright" in lines
    assert any(line.startswith("left out row 3") for line in lines)
    assert lines[-1].startswith("would import 2 concepts: 1 new, 1 changed")
    changes = json.loads(say(*asked, "--json"))["changes"]
    assert [one["change"] for one in changes] == ["change", "add"]
    assert (changes[0]["before"]["note"], changes[1]["before"]) == ("old", None)
    assert changes[0]["after"]["confidence"] == 0.75
    assert [one.note for one in annotations.concepts(SAE)] == ["old"]
    path.write_text(json.dumps([{"sae_id": SAE, "feature": 1, "name": "rain", "confidence": 0.5,
                                 "note": "old"}]))  # fmt: skip
    assert say(*asked).startswith("would import 1 concept: 1 unchanged")


def test_a_long_dry_run_is_cut(indexed: Workspace, say: Say, tmp_path: Path) -> None:
    path = tmp_path / "c.json"
    rows = [{"sae_id": SAE, "feature": n, "name": f"name {n}"} for n in range(43)]
    path.write_text(json.dumps(rows))
    lines = say("import", str(path), "--dry-run").splitlines()
    assert len([line for line in lines if line.startswith("add ")]) == 40
    assert lines[-2:] == [
        ".. and 3 more; --json lists them all",
        "would import 43 concepts: 43 new",
    ]


@pytest.mark.slow
def test_a_feature_is_checked_by_number_or_name(
    workspace: Workspace, tiny_model_dir: Path, annotations: Annotations, say: Say
) -> None:
    add_tiny_sae(workspace, tiny_model_dir, SAE)
    where = ("--device", "cpu")
    read = json.loads(say(TEXT, *where, "--json", command="inspect"))
    one = max(read["features"], key=lambda row: row["max_act"])
    feature = one["feature"]
    annotations.set_concept(SAE, feature, "loud")
    texts = ("--for", TEXT, *where)
    assert "give --for or --against" in say("check", "loud", *where, code=2)
    assert "no feature of s is named “calm”" in say("check", "calm", *texts, code=2)
    lines = say("check", "loud", *texts).splitlines()
    assert lines[:6] == [
        f"feature {feature}",
        "threshold 0",
        "precision -",
        "recall 100%",
        "expected 1, it fires at 1",
        "false alarms there could be none: give --against, or mark [[places]]",
    ]
    fired = [line for line in lines if line.startswith("fires")]
    assert len(fired) == one["count"]
    found = json.loads(say("check", f"#{feature}", *texts, "--json"))
    assert (found["sae_id"], found["feature"], found["hits"]) == (SAE, feature, 1)
    lines = say("check", str(feature), "--against", *(f"{TEXT} {n}" for n in range(60)), *where)
    assert "precision 0%\nrecall -\nexpected 0, it fires at 0\nfalse alarms 60\n" in lines
    annotations.set_concept(SAE, (feature + 1) % 96, "loud")
    told = say("check", "loud", *texts, code=2)
    assert "are named “loud”; give a number" in told


EXPLAINED: dict[str, Any] = {
    "sae_id": SAE,
    "named": 2,
    "features": 64,
    "kinds": {"token": 1, "label": 62},
    "seconds": 3.0,
    "score": None,
    "chance": None,
}


def test_proposed_names_say_what_they_are_worth(
    capsys: pytest.CaptureFixture[str],
) -> None:
    explain.show_result(EXPLAINED)
    shown = " ".join(capsys.readouterr().out.split())
    assert "names 2 of 64 features" in shown
    assert "score no feature fires often enough to score its name" in shown
    assert "kinds label 62, token 1" in shown
    explain.show_result({**EXPLAINED, "score": 0.75, "chance": 0.5})
    shown = " ".join(capsys.readouterr().out.split())
    said = "median AUROC 0.75 on unseen texts, 0.5 with another feature's name"
    assert f"score {said}" in shown
    assert explain.names_fact(None) == {}
    assert explain.names_fact({"named": 1200, "score": None}) == {"names": "1,200 proposed"}
    names = {"named": 2, "score": 0.75, "chance": 0.5}
    assert explain.names_fact(names) == {"names": f"2 proposed, {said}"}


@pytest.mark.parametrize(
    "words", [("--dry-run",), ("--explainer-model", "m"), ("--judge", "embeddings")]
)
def test_only_a_chat_model_takes_its_flags(
    indexed: Workspace, say: Say, words: tuple[str, ...]
) -> None:
    told = say("--sae", SAE, *words, code=2, command="explain")
    assert "only a chat model takes a name, a query, a judge, a price or --dry-run" in told
    assert "give --explainer" in told


def test_rows_that_name_no_sae_are_about_the_only_one(
    indexed: Workspace, annotations: Annotations, say: Say, tiny_model_dir: Path, tmp_path: Path
) -> None:
    path = tmp_path / "theirs.csv"
    path.write_text("feature;name\n3;foam\n", encoding="utf-8-sig")
    assert "imported 1 concept: 1 new" in say("import", str(path))
    assert [(c.sae_id, c.name) for c in annotations.concepts()] == [(SAE, "foam")]
    add_tiny_sae(indexed, tiny_model_dir, "other")
    assert "row 1 (line 2) of" in (told := say("import", str(path), code=2))
    assert "it does not say which SAE it is about" in told


def test_a_name_is_set_by_the_line_of_the_app_or_literally(
    indexed: Workspace, annotations: Annotations, say: Say
) -> None:
    say("set", "3", "high tide #wet #cold ~0.7 -- at noon")
    (one,) = annotations.concepts(SAE, 3)
    assert (one.name, one.tags, one.confidence, one.note) == (
        "high tide",
        ("wet", "cold"),
        0.7,
        "at noon",
    )
    say("set", "4", "C #sharp", "--literal", "--tag", "music")
    (one,) = annotations.concepts(SAE, 4)
    assert (one.name, one.tags) == ("C #sharp", ("music",))
    shown = say("list")
    assert "#wet #cold" in shown
    assert "#music" in shown


def test_a_history_says_what_was_changed(
    indexed: Workspace, annotations: Annotations, say: Say
) -> None:
    with annotations.one_change():
        for feature in (3, 4, 5):
            annotations.set_concept(SAE, feature, f"name {feature}")
    annotations.set_concept(SAE, 3, "name 3", 0.5, "a note", ["wet"])
    lines = [one.what for one in annotations.past_changes()]
    assert lines == [
        "change “name 3” of feature 3: #wet ~0.5 -- a note",
        "name 3 concepts: “name 3” of feature 3, “name 4” of feature 4 and 1 more",
    ]
    assert annotations.actor in say("history")


def test_what_would_name_or_import_nothing_that_was_meant_is_refused(
    indexed: Workspace, annotations: Annotations, say: Say, tmp_path: Path
) -> None:
    options = ["--workspace", str(indexed.root), "concepts"]
    assert main([*options, "tag", " ", "everything"]) == 2
    bad = tmp_path / "bad.csv"
    bad.write_text("Feature,Concept Name\nx,sea\n")
    assert main([*options, "import", str(bad), "--skip-bad"]) == 2
    bad.write_text("Feature, Concept Name\n3,sea\n")
    assert main([*options, "import", str(bad)]) == 0
    assert [one.name for one in annotations.concepts(SAE)] == ["sea"]


def test_a_report_does_not_make_a_folder(indexed: Workspace, tmp_path: Path) -> None:
    where = tmp_path / "nosuch" / "page.html"
    options = ["--workspace", str(indexed.root)]
    assert main([*options, "report", str(where)]) == 2
    assert main([*options, "features", "--report", str(where)]) == 2
    assert not where.parent.exists()


def test_only_names_with_a_tag_are_written(indexed: Workspace, tmp_path: Path) -> None:
    options = ["--workspace", str(indexed.root), "concepts"]
    assert main([*options, "set", "3", "tide #wet"]) == 0
    assert main([*options, "set", "2", "dune #dry"]) == 0
    assert main([*options, "export", str(tmp_path / "wet.csv"), "--tag", "#wet"]) == 0
    assert len((tmp_path / "wet.csv").read_text().splitlines()) == 2
    assert main([*options, "export", str(tmp_path / "none.csv"), "--tag", "nosuch"]) == 2
    assert not (tmp_path / "none.csv").exists()


def test_what_is_written_goes_into_a_folder_that_is_there(
    indexed: Workspace, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    where = tmp_path / "nosuch"
    options = ["--workspace", str(indexed.root)]
    for words in (
        ["export", SAE, str(where / "sae")],
        ["concepts", "export", str(where / "names.csv")],
        ["neuronpedia", "export", str(where / "set")],
    ):
        assert main([*options, *words]) == 2
        assert f"folder '{where}' not found" in capsys.readouterr().err
        assert not where.exists()


def test_features_print_the_score_beside_a_proposed_name_and_what_they_are_sorted_by(
    indexed: Workspace, say: Say, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--workspace", str(indexed.root), "features", "sort:skew", "--limit", "3"]) == 0
    assert "skew" in capsys.readouterr().out


def test_what_can_be_exported_can_be_imported(
    indexed: Workspace, annotations: Annotations, say: Say, tmp_path: Path
) -> None:
    options = ["--workspace", str(indexed.root), "concepts"]
    assert main([*options, "set", "3", "n" * 16_385]) == 2
    assert main([*options, "set", "3", "n" * 16_384]) == 0
    for name in ("all.csv", "all.json"):
        assert main([*options, "export", str(tmp_path / name)]) == 0
        assert main([*options, "import", str(tmp_path / name)]) == 0


def test_what_a_file_says_and_is_not_read_is_told(
    indexed: Workspace, annotations: Annotations, say: Say, tmp_path: Path
) -> None:
    path = tmp_path / "names.csv"
    path.write_text("feature,name,confidnce,tag\n3,sea,0.1,wet\n")
    assert "not read: “confidnce”, “tag”" in say("import", str(path))
    path.write_text("sae,feature,name\nnosuch,4,salt\n")
    assert "'nosuch'" in say("import", str(path), code=2)
    path.write_text('feature,name\n4,"not closed\n5,x\n')
    assert "is not valid CSV" in say("import", str(path), code=2)
    path.write_text("feature,name,confidence\n3,sea,0.9\n")
    assert "without --dry-run this is refused" in say("import", str(path), "--dry-run", code=2)
    assert [(one.feature, one.name) for one in annotations.concepts(SAE)] == [(3, "sea")]


def test_a_merge_says_the_name_that_is_saved(indexed: Workspace, say: Say) -> None:
    say("set", "3", "tide")
    assert "2 features of s are now “sea”" in say("merge", "3", "4", "--name", " sea ")
    assert "they are all “sea” already" in say("merge", "3", "4", "--name", " sea ")


def test_a_tag_is_taken_with_its_sign(
    indexed: Workspace, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--workspace", str(indexed.root)]
    assert main([*options, "concepts", "set", "3", "tide #wet"]) == 0
    for words in (["--tag", "#wet"], ["tag:#wet"]):
        path = tmp_path / f"{len(words)}.json"
        assert main([*options, "report", str(path), *words]) == 0
        assert [one["feature"] for one in json.loads(path.read_text())["features"]] == [3]
    assert tagged(indexed, SAE, "#wet") == [3]
    capsys.readouterr()
    assert main([*options, "features", "--tag", "#"]) == 2
    assert "'#' is not a tag" in capsys.readouterr().err
