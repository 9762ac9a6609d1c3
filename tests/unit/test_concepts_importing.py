"""Concepts from files: what the workspace does not have is refused, nothing is replaced unasked."""

import json
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
