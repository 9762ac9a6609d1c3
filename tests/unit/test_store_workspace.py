"""The workspace: found, checked, made, listed, and never deleting outside itself."""

import json
import os
from pathlib import Path
from typing import Any

import pytest

from mi_crow.errors import CorruptDataError, NotFoundError, UserError
from mi_crow.store.runs.manifest import LayerSpec, PartSpec, RunManifest
from mi_crow.store.workspace import Workspace, folder_bytes, read_sae_summary
from tests.helpers.made_files import a_manifest

not_root = pytest.mark.skipif(os.getuid() == 0, reason="root may read and write everything")


def manifest(run_id: str, **changes: Any) -> RunManifest:
    changes = {"status": "running", "parts": [], "dataset": {"source": "sample"}} | changes
    return a_manifest(run_id, [LayerSpec("model.layers.15", "resid_post.15", 576)], **changes)


def make_sae(workspace: Workspace, name: str, cfg: Any) -> Path:
    folder = workspace.make_sae_dir(name, "")
    (folder / "cfg.json").write_text(json.dumps(cfg))
    return folder


CFG = {"architecture": "topk", "d_in": 8, "d_sae": 64, "k": 4, "metadata": {"model_name": "m"}}


def test_the_place_is_the_argument_else_the_environment_else_the_default(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("MI_CROW_WORKSPACE", "/from/environment")
    assert Workspace.locate("/given") == Path("/given")
    assert Workspace.locate() == Path("/from/environment")
    monkeypatch.delenv("MI_CROW_WORKSPACE")
    assert Workspace.locate() == Path("mi-crow-workspace")


def test_opening_makes_a_workspace_once(tmp_path: Path) -> None:
    first = Workspace.open(tmp_path / "deep" / "w")
    created = json.loads((first.root / "workspace.json").read_text())["created"]
    Workspace.open(tmp_path / "deep" / "w")
    assert json.loads((first.root / "workspace.json").read_text())["created"] == created


def test_planning_writes_nothing(tmp_path: Path) -> None:
    workspace = Workspace.plan(tmp_path / "deep" / "w")
    assert not workspace.exists()
    assert not (tmp_path / "deep").exists()
    workspace.ensure()
    assert workspace.exists()


def test_a_missing_workspace_is_not_made_for_reading(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="no workspace at"):
        Workspace.open(tmp_path / "w", create=False)
    assert not (tmp_path / "w").exists()


def test_a_file_is_no_workspace_nor_is_anything_below_it(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(UserError, match="is a file"):
        Workspace.open(tmp_path / "file")
    with pytest.raises(UserError, match=r"is a file|cannot be used"):
        Workspace.open(tmp_path / "file" / "below")


def test_a_folder_of_other_things_is_not_adopted(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("x")
    with pytest.raises(UserError, match="holds other files"):
        Workspace.open(tmp_path)
    assert os.listdir(tmp_path) == ["thesis.tex"]


@not_root
def test_a_folder_without_permission_is_refused(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(UserError, match="cannot be"):
        Workspace.open(tmp_path / "w")
    tmp_path.chmod(0o700)


def test_a_folder_that_the_system_refuses_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: Path) -> list[str]:
        raise PermissionError(13, "Permission denied", str(path))

    Workspace.open(tmp_path / "w")
    monkeypatch.setattr("mi_crow.store.workspace.os.listdir", refuse)
    with pytest.raises(UserError, match="cannot be used \\(Permission denied\\)"):
        Workspace.open(tmp_path / "w")


@pytest.mark.parametrize(
    ("content", "error", "says"),
    [
        ("{", CorruptDataError, "not valid JSON"),
        ("[]", CorruptDataError, "not a workspace file"),
        ('{"format_version": "x"}', CorruptDataError, "not a workspace file"),
        ('{"format_version": 99}', UserError, "has format 99"),
    ],
)
def test_a_strange_marker_is_said_to_be_strange(
    workspace: Workspace, content: str, error: type[Exception], says: str
) -> None:
    (workspace.root / "workspace.json").write_text(content)
    with pytest.raises(error, match=says):
        Workspace.open(workspace.root)


def test_runs_are_listed_oldest_first_without_the_broken_and_the_unfinished(
    workspace: Workspace,
) -> None:
    for run_id, created in (("new", 2.0), ("old", 1.0)):
        manifest(run_id, created=created).save(workspace.make_run_dir(run_id, ""))
    workspace.make_run_dir("reserved", "")
    (workspace.make_run_dir("broken", "") / "manifest.json").write_text("{")
    (workspace.activations_dir / ".tmp-x").mkdir()
    assert [run.run_id for run in workspace.list_runs()] == ["old", "new"]


def test_saes_are_listed_with_what_their_files_say(workspace: Workspace) -> None:
    own = {"layer": "model.layers.15", "run_id": "r"}
    folder = make_sae(workspace, "s", CFG | {"metadata": {"model_name": "m", "mi_crow": own}})
    (folder / "features.duckdb").touch()
    (folder / "evaluation.json").write_text('{"fvu": 0.1}')
    workspace.make_sae_dir("half", "")
    make_sae(workspace, "foreign", {"d_in": 8})
    [sae] = workspace.list_saes()
    assert (sae.sae_id, sae.n_inputs, sae.n_latents, sae.k) == ("s", 8, 64, 4)
    assert (sae.layer, sae.run_id, sae.has_index) == ("model.layers.15", "r", True)
    assert sae.evaluation == {"fvu": 0.1}
    assert sae.bytes == folder_bytes(folder) > 0


@pytest.mark.parametrize("content", ["{", "[]"])
def test_a_broken_evaluation_hides_no_sae(workspace: Workspace, content: str) -> None:
    folder = make_sae(workspace, "s", CFG)
    (folder / "evaluation.json").write_text(content)
    assert read_sae_summary(folder).evaluation is None


@pytest.mark.parametrize("cfg", [[], {}, CFG | {"d_in": "x"}, CFG | {"metadata": 3}])
def test_a_foreign_cfg_is_said_to_be_foreign(workspace: Workspace, cfg: Any) -> None:
    with pytest.raises(CorruptDataError, match="not an SAE's"):
        read_sae_summary(make_sae(workspace, "s", cfg))


def test_what_does_not_exist_is_said_with_what_does(workspace: Workspace) -> None:
    with pytest.raises(NotFoundError, match="run 'x' not found") as caught:
        workspace.run_dir("x")
    assert "no runs" in caught.value.hint
    make_sae(workspace, "first-sae", CFG)
    with pytest.raises(NotFoundError) as caught:
        workspace.sae_dir("first_sae")
    assert "first-sae" in caught.value.hint


@pytest.mark.parametrize("name", ["/etc", "../x", "a/b", "", ".hidden", "x" * 65, "a b", "ä"])
def test_paths_and_odd_names_are_no_ids(workspace: Workspace, name: str) -> None:
    for look in (workspace.run_dir, workspace.sae_dir, workspace.job_dir):
        with pytest.raises(UserError, match="is not a valid name"):
            look(name)


def test_deleting_takes_the_folder_and_nothing_else(workspace: Workspace) -> None:
    folder, other = make_sae(workspace, "a", CFG), make_sae(workspace, "b", CFG)
    workspace.delete(folder)
    assert os.listdir(workspace.saes_dir) == [other.name]


def test_nothing_outside_is_deleted_and_no_link_is_followed(
    workspace: Workspace, tmp_path: Path
) -> None:
    outside = tmp_path / "outside"
    (outside / "deep").mkdir(parents=True)
    link = workspace.root / "link"
    link.symlink_to(outside)
    for folder in (outside, link, link / "deep", workspace.root, workspace.root / "..", tmp_path):
        with pytest.raises(UserError, match="nothing was deleted"):
            workspace.delete(folder)
    assert (outside / "deep").is_dir()
    assert workspace.exists()


def test_links_inside_a_deleted_folder_are_removed_not_followed(
    workspace: Workspace, tmp_path: Path
) -> None:
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious" / "file").touch()
    folder = make_sae(workspace, "a", CFG)
    (folder / "link").symlink_to(tmp_path / "precious")
    workspace.delete(folder)
    assert (tmp_path / "precious" / "file").exists()


def test_a_manifest_comes_back_and_counts_its_parts(tmp_path: Path) -> None:
    written = manifest("r", parts=[PartSpec(0, 0, 3, 30), PartSpec(0, 1, 2, 20)])
    written.save(tmp_path)
    assert RunManifest.load(tmp_path) == written
    data = json.loads((tmp_path / "manifest.json").read_text())
    assert (data["n_documents"], data["n_tokens"]) == (5, 50)
    assert written.parts[1].stem == "part-000-00001"


def test_a_layer_is_found_by_either_name(tmp_path: Path) -> None:
    run = manifest("r")
    assert run.layer("model.layers.15") is run.layer("resid_post.15")
    with pytest.raises(NotFoundError, match=r"layer 'h\.99' is not in run 'r'") as caught:
        run.layer("h.99")
    assert "resid_post.15" in caught.value.hint


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"format_version": 99}, UserError),
        ({"layers": [{"nom": 1}]}, CorruptDataError),
        ({"parts": 3}, CorruptDataError),
    ],
)
def test_a_manifest_that_cannot_be_understood_is_refused(
    tmp_path: Path, change: dict[str, Any], error: type[Exception]
) -> None:
    manifest("r").save(tmp_path)
    path = tmp_path / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(error):
        RunManifest.load(tmp_path)
    path.write_text("[]")
    with pytest.raises(CorruptDataError):
        RunManifest.load(tmp_path)
