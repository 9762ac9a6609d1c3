"""Imports and exports as jobs: refused early, stopped cleanly, whole or not there at all."""

import json
import os
import shutil
from collections import namedtuple
from dataclasses import replace
from pathlib import Path

import pytest

from mi_crow.errors import CancelledError, MiCrowError, UserError
from mi_crow.jobs.checks import check_export, check_import
from mi_crow.jobs.kinds import KINDS, Work, device_of, with_device
from mi_crow.jobs.output import reserve_output, withdraw_output
from mi_crow.jobs.spec import config_as_json, config_from_json
from mi_crow.language_model.config import DatasetSpec, ModelSpec
from mi_crow.mechanistic.sae.formats.config import CheckConfig, ExportConfig, ImportConfig
from mi_crow.mechanistic.sae.formats.exchange import import_sae
from mi_crow.store import free_space
from mi_crow.store.workspace import Workspace
from tests.helpers.progress import Watched

SAE = Path(__file__).parent.parent / "fixtures" / "sae_formats" / "saelens_topk"
Usage = namedtuple("Usage", "total used free")


def run_import(
    workspace: Workspace, tmp_path: Path, progress: Watched, name: str | None = "taken-in"
) -> Path:
    """Does what the runner does for an import, in this process; gives the SAE's folder."""
    config, kind = ImportConfig(str(SAE), name=name), KINDS["import"]
    job = tmp_path / "job"
    job.mkdir(exist_ok=True)
    folder = reserve_output(workspace, job, kind, config)
    assert folder is not None
    try:
        result = kind.work(Work(workspace, config, progress, folder))
    except BaseException:
        withdraw_output(workspace, job, folder)
        raise
    assert result["sae_id"] == folder.name
    return folder


def test_an_import_as_a_job_makes_what_the_command_makes(
    workspace: Workspace, tmp_path: Path
) -> None:
    progress = Watched()
    folder = run_import(workspace, tmp_path, progress)
    direct = import_sae(workspace, ImportConfig(str(SAE), name="direct"))
    for file in ("cfg.json", "sae_weights.safetensors"):
        assert (folder / file).read_bytes() == (workspace.sae_dir("direct") / file).read_bytes()
    assert direct.as_json().keys() == {"fit"} ^ vars(direct).keys()
    assert progress.updates[-1][0] == progress.updates[-1][1]
    assert "writing taken-in" in progress.lines


def test_an_import_without_a_name_is_named_after_its_files(
    workspace: Workspace, tmp_path: Path
) -> None:
    assert run_import(workspace, tmp_path, Watched(), None).name.endswith("-saelens_topk")


@pytest.mark.parametrize("after", range(3))
def test_an_import_that_is_stopped_leaves_nothing(
    workspace: Workspace, tmp_path: Path, after: int
) -> None:
    with pytest.raises(CancelledError) as stopped:
        run_import(workspace, tmp_path, Watched(looks=after))
    assert stopped.value.resumable
    assert os.listdir(workspace.saes_dir) == []
    assert run_import(workspace, tmp_path, Watched()).is_dir()  # resumed


def test_an_import_resumed_after_its_last_write_ends_well(
    workspace: Workspace, tmp_path: Path
) -> None:
    first = run_import(workspace, tmp_path, Watched())
    before = {file.name: file.read_bytes() for file in first.iterdir()}
    again = run_import(workspace, tmp_path, Watched())
    assert {file.name: file.read_bytes() for file in again.iterdir()} == before


@pytest.mark.parametrize("after", range(3))
def test_an_export_that_is_stopped_leaves_nothing(
    workspace: Workspace, tmp_path: Path, after: int
) -> None:
    import_sae(workspace, ImportConfig(str(SAE), name="a"))
    config, out = ExportConfig("a", str(tmp_path / "out")), tmp_path / "out"
    work = KINDS["export"].work
    with pytest.raises(CancelledError):
        work(Work(workspace, config, Watched(looks=after), None))
    assert not [name for name in os.listdir(tmp_path) if "out" in name]
    found = work(Work(workspace, config, Watched(), None))
    assert found == {"sae_id": "a", "path": str(out), "format": "saelens", "folder": str(out)}


def test_only_a_check_waits_for_a_device() -> None:
    check = CheckConfig(DatasetSpec("sample"))
    plain = ImportConfig("x/y")
    checked = replace(plain, check=check, device="cuda:1", model=ModelSpec("sample"))
    assert not KINDS["import"].queues(plain)
    assert KINDS["import"].queues(checked)
    assert device_of(checked) == "cuda:1"
    model = with_device(checked, "cuda:0").model
    assert model is not None
    assert model.device == "cuda:0"
    export = ExportConfig("a", "/x")
    assert not KINDS["export"].queues(export)
    assert with_device(export, device_of(export)) == export
    params = json.loads(json.dumps(config_as_json(checked)))
    assert config_from_json(ImportConfig, params) == checked


@pytest.mark.parametrize(
    ("path", "says"),
    [
        ("./nothing", "no SAE at './nothing'"),
        ("~nobody-at-all/x", "no SAE at '~nobody-at-all/x'"),
        ("", "there is no path to import from"),
        ("EMPTY", "no SAE at "),
        ("WEIGHTLESS", "holds cfg.json but no sae_weights.safetensors"),
        ("OTHER", "without the config.yaml that names their hook points"),
    ],
)
def test_what_is_no_sae_is_refused_before_a_job_starts(
    workspace: Workspace, tmp_path: Path, path: str, says: str
) -> None:
    for name, file in (
        ("EMPTY", "notes.md"),
        ("WEIGHTLESS", "cfg.json"),
        ("OTHER", "layer_0.safetensors"),
    ):
        (tmp_path / name / file).parent.mkdir(parents=True)
        (tmp_path / name / file).write_text("{}")
    given = str(tmp_path / path) if path.isupper() else path
    with pytest.raises(UserError) as refused:
        check_import(workspace, ImportConfig(given))
    assert says in refused.value.sentence
    assert "\n" not in refused.value.sentence


def test_what_the_hub_may_have_is_left_to_the_job(workspace: Workspace) -> None:
    check_import(workspace, ImportConfig("org/name/layers.3"))


def test_a_taken_name_and_a_full_disk_are_refused(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    import_sae(workspace, ImportConfig(str(SAE), name="a"))
    with pytest.raises(UserError, match="SAE 'a' exists already"):
        check_import(workspace, ImportConfig(str(SAE), name="a"))
    monkeypatch.setattr(free_space.shutil, "disk_usage", lambda _: Usage(9**9, 0, 1000))
    with pytest.raises(UserError, match="available"):
        check_import(workspace, ImportConfig(str(SAE), name="b"))
    with pytest.raises(UserError, match="available"):
        check_export(workspace, ExportConfig("a", "/new"))


def test_a_target_that_cannot_be_written_is_refused(
    workspace: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import_sae(workspace, ImportConfig(str(SAE), name="a"))
    (tmp_path / "file").touch()
    (tmp_path / "there").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    for path, says in (
        ("there", "exists already"),
        ("link", "exists already"),
        ("file/inside", "is a file, not a folder"),
        ("nosuch/new", "nosuch' not found"),
    ):
        with pytest.raises(UserError, match=says):
            check_export(workspace, ExportConfig("a", str(tmp_path / path)))
    with pytest.raises(UserError, match="is not a whole path"):
        check_export(workspace, ExportConfig("a", "somewhere"))
    with pytest.raises(UserError, match="SAE 'b' not found"):
        check_export(workspace, ExportConfig("b", str(tmp_path / "out")))
    with pytest.raises(UserError, match=r"format 'onnx' is not known"):
        ExportConfig("a", str(tmp_path / "out"), "onnx")
    monkeypatch.setattr(os, "access", lambda *_: False)
    with pytest.raises(UserError, match="no permission in"):
        check_export(workspace, ExportConfig("a", str(tmp_path / "out")))


def test_a_disk_that_fills_up_leaves_nothing(
    workspace: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mi_crow.mechanistic.sae import saving

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(saving, "save_file", full)
    with pytest.raises(MiCrowError, match="No space left"):
        run_import(workspace, tmp_path, Watched())
    assert os.listdir(workspace.saes_dir) == []


def test_a_folder_that_went_away_is_said(workspace: Workspace, tmp_path: Path) -> None:
    shutil.copytree(SAE, tmp_path / "in")
    config = ImportConfig(str(tmp_path / "in"), name="x")
    check_import(workspace, config)
    shutil.rmtree(tmp_path / "in")
    with pytest.raises(UserError, match="no SAE at"):
        import_sae(workspace, config)
