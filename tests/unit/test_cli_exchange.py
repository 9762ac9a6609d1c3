"""SAEs come in and go out in the SAELens layout; other formats are refused by their names."""

import json
import os
import shutil
from pathlib import Path

import pytest

from mi_crow.cli import main
from mi_crow.store.workspace import Workspace
from tests.jobs_fixture import own_queues

FORMATS = Path(__file__).parent.parent / "fixtures" / "sae_formats"


@pytest.fixture(autouse=True)
def _own_queues(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own_queues(tmp_path, monkeypatch)
    monkeypatch.setenv("MI_CROW_WORKSPACE", str(tmp_path / "w"))


def test_an_sae_goes_in_and_comes_out_the_same(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import torch
    from safetensors.torch import load_file

    assert main(["import", str(FORMATS / "saelens_topk"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["sae_id"] == "saelens_topk"
    assert main(["export", str(tmp_path / "out"), "--json"]) == 0
    source = load_file(FORMATS / "saelens_topk" / "sae_weights.safetensors")
    target = load_file(tmp_path / "out" / "sae_weights.safetensors")
    for name, tensor in target.items():
        assert torch.equal(tensor, source[name].to(tensor.dtype))
    assert sorted(os.listdir(tmp_path / "out")) == ["cfg.json", "sae_weights.safetensors"]
    assert main(["import", str(tmp_path / "out"), "--name", "again"]) == 0
    assert {sae.sae_id for sae in Workspace(tmp_path / "w").list_saes()} == {
        "saelens_topk",
        "again",
    }


@pytest.mark.parametrize(
    ("given", "file", "says"),
    [
        ("x", "x/layers.1/sae.safetensors", "sparsify format"),
        ("x", "x/sae.safetensors", "sparsify format"),
        ("x", "x/layer_1/width_96/average_l0_8/params.npz", "Gemma Scope format"),
        ("params.npz", "params.npz", "Gemma Scope format"),
        ("x", "x/trainer_0/ae.pt", "dictionary_learning format"),
        ("x", "x/hyperparams.json", "Llama Scope format"),
        ("v5.pt", "v5.pt", "PyTorch format"),
        ("x", "x/other", "holds no cfg.json and no sae_weights.safetensors"),
        ("x", "x/cfg.json", "holds no sae_weights.safetensors"),
        ("y", "x/cfg.json", "not found"),
    ],
)
def test_foreign_formats_are_named_and_make_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], given: str, file: str, says: str
) -> None:
    path = tmp_path / "in" / file
    path.parent.mkdir(parents=True)
    path.touch()
    refused(tmp_path, capsys, tmp_path / "in" / given, says)


@pytest.mark.parametrize("name", ["jumprelu", "standard"])
def test_other_architectures_are_named_and_make_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    folder = tmp_path / "in"
    shutil.copytree(FORMATS / "saelens_topk", folder)
    cfg = json.loads((folder / "cfg.json").read_text())
    (folder / "cfg.json").write_text(json.dumps(cfg | {"architecture": name}))
    refused(tmp_path, capsys, folder, name)


def refused(tmp_path: Path, capsys: pytest.CaptureFixture[str], source: Path, says: str) -> None:
    assert main(["import", str(source)]) == 2
    err = capsys.readouterr().err
    assert says in err
    assert err.count("\n") == 1
    assert not (tmp_path / "w").exists()


def test_nothing_is_overwritten(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = str(FORMATS / "saelens_topk")
    assert main(["import", source, "--name", "a"]) == 0
    assert main(["import", source, "--name", "a"]) == 2
    assert main(["import", source, "--name", "../a"]) == 2
    (tmp_path / "out").mkdir()
    assert main(["export", str(tmp_path / "out")]) == 2
    assert os.listdir(tmp_path / "out") == []
    assert "exists already" in capsys.readouterr().err
