"""`mi-crow doctor` as people read it, and what it finds beyond a machine that is well."""

import json
import os
import platform
import shutil
from pathlib import Path

import pytest
import torch

from mi_crow.cli import doctor_checks
from mi_crow.cli.commands import doctor
from mi_crow.cli.doctor_checks import CheckResult, examine
from mi_crow.jobs.device_lock import QueueLook
from mi_crow.mechanistic.sae import TopKSae
from mi_crow.store.runs.manifest import PartSpec
from mi_crow.store.runs.parts import StoredRows, stored_rows, write_part
from mi_crow.store.workspace import Workspace
from tests.helpers.index_fixture import copy_index
from tests.helpers.printed import Say, saying
from tests.helpers.stored_runs import LAYER, documents_table, manifest_of, write_run


@pytest.fixture
def say(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Say:
    """What `mi-crow doctor ...` prints, each run of spaces as one."""
    monkeypatch.setattr(doctor_checks, "ask", lambda *command, timeout=10.0: None)
    return saying(workspace, monkeypatch, capsys, "doctor")


def about(topic: str, found: list[CheckResult]) -> list[CheckResult]:
    return [finding for finding in found if finding.topic == topic]


def test_each_finding_has_a_mark_and_its_advice(
    say: Say, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    found = [
        CheckResult("disk", "ok", "there is room"),
        CheckResult("config", "warning", "it is \x1b[31mtorn", "write it again"),
        CheckResult("device", "note", "no GPU"),
    ]
    seen: list[Path] = []

    def pretend(root: Path) -> list[CheckResult]:
        seen.append(root)
        return found

    monkeypatch.setattr(doctor, "examine", pretend)
    assert say() == (
        "ok disk there is room\nWARN config it is ␛[31mtorn\nwrite it again\nnote device no GPU\n"
    )
    assert json.loads(say("--json"))["warnings"] == 1
    monkeypatch.delenv("MI_CROW_WORKSPACE")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    (tmp_path / "mi-crow").mkdir()
    (tmp_path / "mi-crow" / "config.toml").write_text("= torn")
    assert "there is room" in say()  # with a config file that cannot be read
    assert len(seen) == 3


def test_what_killed_processes_left_is_counted_and_removed(say: Say, workspace: Workspace) -> None:
    workspace.ensure()
    (workspace.root / ".tmp-0123-x").write_bytes(bytes(2000))
    (workspace.root / ".tmp-0123-y").write_bytes(bytes(1000))
    [found] = about("leftovers", examine(workspace.root))
    assert found.found.startswith("2 temporary files and folders left by killed processes in")
    assert found.found.endswith("3.0 kB")
    assert say("--clean") == "ok leftovers removed 2 leftovers of killed processes, 3.0 kB\n"
    assert about("leftovers", examine(workspace.root)) == []
    assert say("--clean") == "ok leftovers nothing to remove\n"
    (workspace.root / ".tmp-0123-x").write_bytes(bytes(2000))
    assert say("--clean") == "ok leftovers removed 1 leftover of killed processes, 2.0 kB\n"


def test_a_damaged_config_is_a_finding(
    say: Say, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    path = tmp_path / "mi-crow" / "config.toml"
    path.parent.mkdir()
    path.write_text("= torn")
    [found] = about("config", examine(tmp_path))
    assert found.level == "warning"
    assert str(path) in found.found
    path.write_text("[llm]\nurl = 3\n")
    [found] = about("config", examine(tmp_path))
    assert (found.level, found.advice) == ("warning", "mi-crow config edit")
    assert "llm.url" in found.found


def test_other_machines_have_other_findings(
    say: Say, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    [found] = about("logout", examine(tmp_path))
    assert found.level == "ok"
    monkeypatch.setattr(doctor_checks, "kill_user_processes", lambda files: True)
    [found] = about("logout", examine(tmp_path))
    assert (found.level, "enable-linger" in found.advice) == ("warning", True)
    monkeypatch.setattr(platform, "system", lambda: "Darwin")
    assert about("logout", examine(tmp_path)) == []
    assert len(about("memory", examine(tmp_path))) == 1

    def unknown(name: str) -> int:
        raise ValueError("unrecognized configuration name")

    monkeypatch.setattr(os, "sysconf", unknown)
    assert about("memory", examine(tmp_path)) == []
    monkeypatch.setattr(os, "access", lambda place, mode: False)
    [found] = about("disk", examine(tmp_path))
    assert (found.found, found.level) == (f"{tmp_path} is not writable", "warning")


def test_who_has_a_device_and_a_torch_that_does_not_see_the_gpu(
    say: Say, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    look = QueueLook("cuda:0", "train-1", "/w", ("index-1", "index-2"))
    monkeypatch.setattr(doctor_checks, "look_at_queues", lambda: [look])
    [found] = about("queue", examine(tmp_path))
    assert found.found == "cuda:0 has job train-1 of workspace /w; 2 jobs waiting"

    def ask(*command: str, timeout: float = 10) -> str | None:
        cpu = '[{"device": "cpu", "name": "2", "memory": null}]'
        return "GPU 0: H100" if command[0] == "nvidia-smi" else cpu if "-c" in command else None

    monkeypatch.setattr(doctor_checks, "ask", ask)
    for there, level in ((None, "note"), ("/bin/nvidia-smi", "warning")):
        monkeypatch.setattr(shutil, "which", lambda name, there=there: there)
        found = about("device", examine(tmp_path))[-1]
        assert (found.found, found.level) == ("no GPU", level)
        assert ("CUDA build of torch" in found.advice) == (level == "warning")


@pytest.mark.slow
def test_an_sae_is_read_to_the_last_byte(say: Say, workspace: Workspace) -> None:
    folder = workspace.saes_dir / "s"
    TopKSae(64, 8, 2).save(folder)
    copy_index(workspace, "s", n_features=64, n_documents=48)
    shown = say("--deep", "s")
    assert "ok files SAE 's': " in shown
    assert "ok index features.duckdb: all " in shown
    assert shown.endswith(" rows can be read\n")
    (folder / "features.duckdb").write_bytes(b"torn" * 4096)
    assert "WARN index " in say("--deep", "s")
    config = json.loads((folder / "cfg.json").read_text())
    del config["metadata"]["mi_crow"]["weights"]
    (folder / "cfg.json").write_text(json.dumps(config))
    assert "note checksums SAE 's': written without checksums" in say("--deep", "s")


@pytest.mark.parametrize("trained", [True, False])
def test_missing_weights_are_made_again(say: Say, workspace: Workspace, trained: bool) -> None:
    folder = workspace.saes_dir / "s"
    TopKSae(16, 4, 2).save(folder)
    (folder / "sae_weights.safetensors").unlink()
    if trained:
        (folder / "training.json").write_text("{}")
    shown = say("--deep", "s")
    assert "sae_weights.safetensors is missing" in shown
    assert f"{'train' if trained else 'import'} it again, or restore the file" in shown


def test_wrong_norms_of_an_unfinished_run_are_captured_again(
    say: Say, workspace: Workspace
) -> None:
    folder = workspace.activations_dir / "run"
    write_run(folder, [[3, 2]])
    assert "ok contents run 'run': 1 part, 5 tokens; norms, splits" in say("--deep", "run")
    manifest = manifest_of(folder)
    manifest.status = "running"
    rows = stored_rows(torch.ones(5, 3), "fp32")
    wrong = StoredRows(rows.values, rows.norms * 2, rows.scales)
    part = PartSpec(0, 0, 2, 5, shard=0)
    write_part(folder, part, documents_table([3, 2]), {LAYER: wrong})
    manifest.parts.append(part)
    manifest.save(folder)
    shown = say("--deep", "run")
    assert "the norm of row 0 is not the length of the row" in shown
    assert "resume its capture, which rewrites these parts: mi-crow jobs" in shown
