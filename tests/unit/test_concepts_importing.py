"""Concepts from files: what the workspace does not have is refused, nothing is replaced unasked."""

import json
import os
from pathlib import Path
from typing import Any

import pytest

from mi_crow.cli import main
from mi_crow.mechanistic.concepts.annotations import Annotations
from mi_crow.mechanistic.sae import TopKSae
from mi_crow.store.workspace import Workspace


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    workspace = Workspace.open(tmp_path / "w")
    monkeypatch.setenv("MI_CROW_WORKSPACE", str(workspace.root))
    TopKSae(16, 4, 2).save(workspace.saes_dir / "s")
    return workspace


def written(folder: Path, rows: list[dict[str, Any]]) -> Path:
    path = folder / "c.json"
    path.write_text(
        json.dumps([{"sae_id": "s", "feature": 1, "name": "rain"} | row for row in rows])
    )
    return path


@pytest.mark.parametrize(
    ("cells", "says"),
    [
        (b"x,rain,1,,", "its feature 'x' is not a whole number"),
        (b"1.5,rain,1,,", "its feature '1.5' is not a whole number"),
        (b"1,rain,high,,", "its confidence 'high' is not a number"),
        (b'1,rain,1,,"[1, 2]"', "its tag 1 is not a text"),
        (b"1,caf\xe9,1,,", "its name is not UTF-8 text; save the file as UTF-8"),
        (b"1,rain,1,caf\xe9,", "its note is not UTF-8 text"),
        (b"1", "it has no name"),
    ],
)
def test_a_wrong_cell_is_named_by_line_and_left_out_when_asked(
    workspace: Workspace,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    cells: bytes,
    says: str,
) -> None:
    path = tmp_path / "c.csv"
    path.write_bytes(b"feature,name,confidence,note,tags\n2,sun,1,,\n" + cells + b"\n")
    asked = ["concepts", "import", str(path), "--sae", "s"]
    assert main(asked) == 2
    assert capsys.readouterr().err.startswith(f"row 2 (line 3) of '{path}': {says}")
    assert Annotations(workspace.annotations_path).concepts() == []
    assert main([*asked, "--skip-bad"]) == 0
    assert "imported 1 concept:" in capsys.readouterr().out
    assert [one.name for one in Annotations(workspace.annotations_path).concepts()] == ["sun"]


@pytest.mark.parametrize(
    ("row", "says"),
    [
        ({"feature": 16}, "feature 16 is not in SAE 's'"),
        ({"feature": -1}, "feature -1 is not in SAE 's'"),
        ({"feature": 10**30}, "is not in SAE 's'"),
        ({"sae_id": "other"}, "'other'"),
        ({"sae_id": "../../x"}, "'../../x' is not a valid name"),
        ({"sae_id": "/etc"}, "'/etc' is not a valid name"),
        ({"sae_id": "s" * 9999}, f"'{'s' * 79}…' is not a valid name"),
        ({"name": " "}, "needs a name"),
        ({"confidence": "nan"}, "confidence"),
        ({"confidence": 2}, "confidence"),
    ],
)
def test_a_row_about_what_there_is_not_names_itself(
    workspace: Workspace,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    row: dict[str, Any],
    says: str,
) -> None:
    path = written(tmp_path, [{}, row])
    assert main(["concepts", "import", str(path)]) == 2
    error = capsys.readouterr().err
    assert "row 2" in error
    assert says in error
    assert error.count("\n") == 1
    assert Annotations(workspace.annotations_path).concepts() == []


COUNTS = ("concepts", "added", "replaced", "unchanged")


def imported(path: Path, capsys: pytest.CaptureFixture[str], *more: str) -> dict[str, int]:
    assert main(["concepts", "import", str(path), "--json", *more]) == 0
    found = json.loads(capsys.readouterr().out)
    return {name: count for name, count in found.items() if count or name in COUNTS}


def test_nothing_is_replaced_without_being_asked(
    workspace: Workspace, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    annotations = Annotations(workspace.annotations_path)
    annotations.set_concept("s", 1, "rain", 0.5, "mine", ("checked",))
    path = written(tmp_path, [{"feature": 2}, {"note": "theirs"}])
    assert main(["concepts", "import", str(path)]) == 2
    error = capsys.readouterr().err
    assert "note of “rain”" in error
    assert "'mine' to 'theirs'" in error
    assert [one.note for one in annotations.concepts()] == ["mine"]  # and feature 2 was not added
    done = imported(path, capsys, "--force")
    assert done == {"concepts": 2, "added": 1, "replaced": 1, "unchanged": 0}
    rain = annotations.concepts()[0]
    assert (rain.note, rain.confidence, rain.tags) == ("theirs", 0.5, ("checked",))
    annotations.undo()
    assert [one.note for one in annotations.concepts()] == ["mine"]


def test_what_stands_there_already_is_left(
    workspace: Workspace, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    annotations = Annotations(workspace.annotations_path)
    annotations.set_concept("s", 1, "rain", 0.5, "mine")
    for suffix in (".csv", ".json"):
        path = tmp_path / f"out{suffix}"
        assert main(["concepts", "export", str(path)]) == 0
        capsys.readouterr()
        done = imported(path, capsys)
        assert done == {"concepts": 1, "added": 0, "replaced": 0, "unchanged": 1}
    done = imported(written(tmp_path, [{}]), capsys)  # says nothing about note or confidence
    assert done["unchanged"] == 1


def test_an_export_never_overwrites_a_file_unasked(
    workspace: Workspace, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "mine.csv"
    path.write_text("precious")
    assert main(["concepts", "export", str(path)]) == 2
    assert "exists already; --force replaces it" in capsys.readouterr().err
    assert path.read_text() == "precious"
    assert main(["concepts", "export", str(path), "--force"]) == 0
    assert path.read_text().startswith("sae_id,feature")
    (tmp_path / "folder.csv").mkdir()
    assert main(["concepts", "export", str(tmp_path / "folder.csv"), "--force"]) == 2
    assert "is a folder" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        ("c.json", '{"3": "a", "3": "b"}', "'3' occurs twice in one object"),
        ("c.json", '[{"feature": 3, "name": "a", "name": "b"}]', "'name' occurs twice"),
        ("c.csv", "feature,name,name\n3,a,b\n", "has two columns 'name'"),
        ("c.csv", "feature,name\n1_0,a\n", "its feature '1_0' is not a whole number"),
        ("c.csv", "feature,name\n１,a\n", "its feature '１' is not a whole number"),
        ("c.csv", "feature,name,confidence\n1,a,0_1\n", "its confidence '0_1' is not a number"),
        ("c.json", '[{"feature": 1, "name": "a", "confidence": true}]', "its confidence 'True'"),
        ("c.csv", 'feature,name\n3,a\n5,"c"d\n', "row 2 (line 3) of '{path}': it is not valid CSV"),
        (
            "c.jsonl",
            '{"layer": "l", "index": "1", "index": "2", "description": "a"}',
            "'index' occurs twice",
        ),
    ],
)
def test_nothing_is_lost_or_read_as_another_in_silence(
    workspace: Workspace,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    name: str,
    text: str,
    says: str,
) -> None:
    path = tmp_path / name
    path.write_text(text)
    assert main(["concepts", "import", str(path)]) == 2
    assert says.format(path=path) in capsys.readouterr().err
    assert Annotations(workspace.annotations_path).concepts() == []


def test_a_row_that_is_not_csv_is_left_out_when_asked(
    workspace: Workspace, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "c.csv"
    path.write_text('feature,name,description\n3,a,longer\n5,"c"d\n6,e\n')
    assert main(["concepts", "import", str(path), "--skip-bad"]) == 0
    said = capsys.readouterr().out
    assert "left out row 2 (line 3): it is not valid CSV" in said
    assert "not read: “description”" in said  # a second word for the name
    names = [one.name for one in Annotations(workspace.annotations_path).concepts()]
    assert names == ["a", "e"]


@pytest.mark.parametrize(("name", "text"), [("c.csv", "feature,name\n"), ("c.jsonl", "")])
def test_a_file_without_rows_says_so(
    workspace: Workspace, tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, text: str
) -> None:
    path = tmp_path / name
    path.write_text(text)
    assert main(["concepts", "import", str(path)]) == 0
    assert capsys.readouterr().out == "imported 0 concepts: the file has no rows\n"


@pytest.mark.parametrize("name", ["c.csv", "c.json", "c.jsonl"])
def test_a_pipe_is_no_file(
    workspace: Workspace, tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    os.mkfifo(tmp_path / name)
    assert main(["concepts", "import", str(tmp_path / name)]) == 2
    assert "is a pipe or a device, not a file" in capsys.readouterr().err
