"""Wrong input gets one clear sentence and exit code 2, and leaves the workspace as it was."""

import hashlib
import json
import os
from pathlib import Path

import pytest

from mi_crow.cli import main
from mi_crow.store.workspace import Workspace
from tests.helpers.made_files import add_run, add_sae
from tests.helpers.other_user import as_colleague, give_away, needs_root


@pytest.fixture(autouse=True)
def _offline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


@pytest.fixture
def filled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    """A workspace with one run and one SAE without an index."""
    workspace = Workspace.open(tmp_path / "w")
    monkeypatch.setenv("MI_CROW_WORKSPACE", str(workspace.root))
    add_run(workspace)
    add_sae(workspace)
    return workspace


def snapshot(root: Path) -> dict[str, str]:
    """Every path below `root` with a hash of its content."""
    return {
        str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest()
        if path.is_file()
        else ""
        for path in sorted(root.rglob("*"))
    }


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """The one sentence of a command that must be refused."""
    capsys.readouterr()
    code = main(arguments)
    captured = capsys.readouterr()
    assert (code, captured.out) == (2, ""), captured
    assert captured.err.count("\n") == 1, captured.err
    return captured.err


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("capture --model ./nothing --layer x", "model './nothing' not found"),
        ("capture --model {root} --layer x", "has no config.json"),
        ("capture", "no layer given"),
        ("capture --layer x --dataset nothing.jsonl", "dataset 'nothing.jsonl' not found"),
        ("capture --layer x --dataset {texts}/empty.txt", "is empty"),
        ("capture --layer x --dataset {texts}/empty.jsonl", "is empty"),
        ("capture --layer x --dataset {texts}/other.jsonl", "no field 'text'"),
        ("capture --layer x --dataset {texts}/void", "has no text files"),
        ("capture --layer x --name run", "run 'run' exists already"),
        ("capture --layer x --name {root}/new", "is not a valid name"),
        ("capture --layer x --device tpu", "device 'tpu' is not known"),
        ("capture --layer x --after nothing", "job 'nothing' not found"),
        ("train --run nothing", "run 'nothing' not found"),
        ("train --run {root}/activations/run", "is not a valid name"),
        ("train --run run --layer h.99", "layer 'h.99' is not in run 'run'"),
        ("train --run run --k 65", "k = 65 is more than n_latents = 64"),
        ("train --run run --n-latents 16 --k 17", "k = 17 is more than n_latents = 16"),
        ("train --run run --k 4 --name sae", "SAE 'sae' exists already"),
        ("train --run run --seed -1", "-1 is less than 0"),
        ("train --run run --k 4 --lr nan", "the learning rate must be a number above 0, not nan"),
        ("index --sae nothing", "SAE 'nothing' not found"),
        ("index --sae {root}/saes/sae", "is not a valid name"),
        (
            "index --sae sae --run nothing",
            "run 'nothing', which SAE 'sae' needs, is missing",
        ),
        ("evaluate --sae nothing", "SAE 'nothing' not found"),
        ("runs show nothing", "run 'nothing' not found"),
        ("runs rm {root}/activations/run", "is not a valid name"),
        ("saes rm ../saes/sae", "is not a valid name"),
        ("saes rename sae ..", "is not a valid name"),
        ("jobs watch nothing", "job 'nothing' not found"),
        ("jobs cancel", "there is no job to cancel"),
        ("import {root}/nothing", "no SAE at"),
        ("export --sae nothing {root}/out", "SAE 'nothing' not found"),
    ],
)
def test_wrong_input_leaves_the_workspace_as_it_was(
    filled: Workspace, tmp_path: Path, capsys: pytest.CaptureFixture[str], line: str, says: str
) -> None:
    texts = tmp_path / "texts"
    (texts / "void").mkdir(parents=True)
    (texts / "empty.txt").write_text("\n")
    (texts / "empty.jsonl").write_text("")
    (texts / "other.jsonl").write_text('{"body": "x"}\n')
    before = snapshot(filled.root)
    words = [word.format(root=filled.root, texts=texts) for word in line.split()]
    assert says in refused(capsys, *words)
    assert snapshot(filled.root) == before


@pytest.mark.parametrize("line", ["capture --layer x", "train --run r", "jobs", "demo --no-tui"])
def test_a_workspace_that_is_a_file_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], line: str
) -> None:
    (tmp_path / "file").write_text("precious")
    err = refused(capsys, *line.split(), "--workspace", str(tmp_path / "file"))
    assert "is a file" in err
    assert (tmp_path / "file").read_text() == "precious"


def test_a_workspace_in_a_folder_of_other_things_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "thesis.tex").touch()
    err = refused(capsys, "capture", "--layer", "x", "--workspace", str(tmp_path / "home"))
    assert "holds other files" in err
    assert os.listdir(tmp_path / "home") == ["thesis.tex"]


@pytest.mark.skipif(os.getuid() == 0, reason="root may read every folder")
def test_an_unreadable_workspace_is_refused(
    filled: Workspace, capsys: pytest.CaptureFixture[str]
) -> None:
    filled.root.chmod(0)
    try:
        assert "cannot be used" in refused(capsys, "runs")
    finally:
        filled.root.chmod(0o700)


@needs_root
def test_a_workspace_that_only_its_owner_may_read_is_refused(filled: Workspace) -> None:
    filled.root.chmod(0o700)
    give_away(filled.root)
    done = as_colleague("-m", "mi_crow", "runs", "--workspace", str(filled.root))
    assert done.returncode == 2
    assert "cannot be used" in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.slow
def test_what_only_the_job_can_find_out_leaves_nothing_either(
    tmp_path: Path, tiny_model_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "texts.txt").write_text("The ship leaves the harbour at dawn.\n" * 20)
    err = refused(
        capsys,
        *("capture", "--model", str(tiny_model_dir), "--layer", "h.99"),
        *("--dataset", str(tmp_path / "texts.txt"), "--device", "cpu", "--json"),
        *("--workspace", str(tmp_path / "deep" / "w")),
    )
    assert "h.99" in json.loads(err)["error"]
    assert not (tmp_path / "deep").exists()
