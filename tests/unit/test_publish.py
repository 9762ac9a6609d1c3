"""What is published of an SAE, and its card; reports of a filter, a tag, a feature."""

import json
from pathlib import Path

import pytest

from mi_crow.cli import main
from mi_crow.cli.commands.meaning.contrast import tag_found
from mi_crow.mechanistic.concepts.annotations import Annotations
from mi_crow.mechanistic.concepts.marked import tag_named
from mi_crow.mechanistic.sae import TopKSae
from mi_crow.store.workspace import Workspace
from tests.helpers.index_fixture import copy_index


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    workspace = Workspace.open(tmp_path / "w")
    monkeypatch.setenv("MI_CROW_WORKSPACE", str(workspace.root))
    TopKSae(160, 4, 2).save(workspace.saes_dir / "s")
    copy_index(workspace, "s", n_features=160, n_documents=24)
    annotations = Annotations(workspace.annotations_path)
    annotations.set_concept("s", 3, "sails | <b>masts</b>", tags=("sea",))
    annotations.set_concept("s", 4, "keel", tags=("sea",))
    return workspace


def test_a_dry_run_lists_the_files_and_shows_the_card(
    workspace: Workspace, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = workspace.sae_dir("s")
    (folder / "evaluation.json").write_text(json.dumps({"fvu": 0.125, "l0": 2.0}))
    assert main(["publish", "org/name", "--dry-run", "--index", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["pushed"] is False
    names = [one["name"] for one in found["files"]]
    assert names[:3] == ["README.md", "cfg.json", "sae_weights.safetensors"]
    assert {"features.duckdb", "evaluation.json", "concepts.json"} <= set(names)
    sizes = {one["name"]: one["bytes"] for one in found["files"]}
    assert sizes["cfg.json"] == (folder / "cfg.json").stat().st_size
    assert main(["publish", "org/name", "--dry-run"]) == 0
    card = capsys.readouterr().out
    assert "| FVU | 0.1250 |" in card
    assert r"sails \| &lt;b>masts&lt;/b>" in card
    assert "2 of 160 features are named" in card


@pytest.mark.parametrize("name", ["name", "a/b/c", "../x/y", "org/"])
def test_what_is_no_repository_is_refused(
    workspace: Workspace, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    assert main(["publish", name, "--dry-run"]) == 2
    assert "write owner/name" in capsys.readouterr().err


def test_an_index_that_is_not_there_is_said(
    workspace: Workspace, capsys: pytest.CaptureFixture[str]
) -> None:
    workspace.index_path("s").unlink()
    assert main(["publish", "org/name", "--dry-run", "--index"]) == 2
    assert "has no feature index" in capsys.readouterr().err


def test_a_tag_of_a_contrast_is_for_the_features_of_the_first_set(workspace: Workspace) -> None:
    rows = [{"feature": one, "auroc": auroc} for one, auroc in ((3, 0.9), (4, 0.1))]
    assert tag_found(workspace, {"sae_id": "s", "features": rows}, "first") == 1
    found = Annotations(workspace.annotations_path).concepts("s")
    assert {one.feature for one in found if "first" in one.tags} == {3}


def test_a_tag_gives_a_proposed_name_with_the_score_of_that(tmp_path: Path) -> None:
    annotations = Annotations(tmp_path / "a.sqlite")
    tag_named(annotations, "s", {1: "rain", 2: "label"}, "wet", {1: ("rain", 0.83)})
    assert [(c.name, c.confidence, c.source) for c in annotations.concepts("s")] == [
        ("rain", 0.83, "auto"),
        ("label", 0.5, "auto"),
    ]


def test_a_report_is_of_a_tag_a_filter_or_a_feature(
    workspace: Workspace, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def features(*asked: str) -> list[int]:
        path = tmp_path / "r.json"
        assert main(["report", str(path), *asked, "--force"]) == 0
        return [one["feature"] for one in json.loads(path.read_text())["features"]]

    assert sorted(features("--tag", "sea")) == [3, 4]
    assert features("--feature", "7", "--feature", "5") == [7, 5]
    assert len(features("label:weather", "--limit", "2")) == 2
    page = tmp_path / "r.html"
    assert main(["report", str(page), "--tag", "sea"]) == 0
    assert "<b>masts" not in page.read_text()
    assert "<script" not in page.read_text()
    capsys.readouterr()
    assert main(["report", str(tmp_path / "x.html"), "--tag", "none"]) == 2
    assert "no feature of s with the tag “none”" in capsys.readouterr().err
