"""SAEs of other tools come in whole or not at all, and go out as other tools read them."""

import json
import os
import shutil
from collections import namedtuple
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from mi_crow.cli import main
from mi_crow.mechanistic.sae import load_sae
from mi_crow.store import free_space as room
from mi_crow.store.workspace import Workspace
from tests.helpers.sae_files import (
    MAKERS,
    D,
    M,
    keep_group_max,
    keep_top,
    saelens_cfg,
    write_saelens,
    write_sparsify,
)

FORMATS = Path(__file__).parent.parent / "fixtures" / "sae_formats"


@pytest.fixture(autouse=True)
def _own_workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MI_CROW_WORKSPACE", str(tmp_path / "w"))


def result(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, Any]:
    """What a command prints with --json."""
    assert main([*arguments, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def refused(tmp_path: Path, capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """The one sentence of a command that fails; nothing was written."""
    assert main(list(arguments)) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert not (tmp_path / "w").exists()
    return said


@pytest.mark.parametrize(
    ("fixture", "format_name", "architecture"),
    [
        ("saelens_topk", "SAELens", "topk"),
        pytest.param("saelens_standard", "SAELens", "standard", marks=pytest.mark.slow),
        pytest.param("saelens_jumprelu", "SAELens", "jumprelu", marks=pytest.mark.slow),
        pytest.param(
            "saelens_standard_constant_norm_rescale", "SAELens", "standard", marks=pytest.mark.slow
        ),
        ("sparsify_topk", "sparsify", "topk"),
        ("gemma_scope", "Gemma Scope", "jumprelu"),
        pytest.param(
            "dictionary_learning_standard",
            "dictionary_learning",
            "standard",
            marks=pytest.mark.slow,
        ),
        ("dictionary_learning_batchtopk", "dictionary_learning", "batchtopk"),
    ],
)
def test_every_format_goes_into_the_workspace(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    fixture: str,
    format_name: str,
    architecture: str,
) -> None:
    found = result(capsys, "import", str(FORMATS / fixture), "--model", "sample")
    assert found["sae_id"] == fixture
    assert (found["format"], found["architecture"]) == (format_name, architecture)
    assert (found["n_latents"], found["n_inputs"]) == (96, 24)
    assert (found["layer"], found["model"]) == ("resid_post.1", "sample")
    folder = Workspace(tmp_path / "w").sae_dir(fixture)
    assert sorted(os.listdir(folder)) == ["cfg.json", "sae_weights.safetensors"]
    own = json.loads((folder / "cfg.json").read_text())["metadata"]["mi_crow"]
    assert (own["format"], own["point"]) == (format_name, "resid_post.1")
    assert own["source"].startswith(str(FORMATS / fixture))
    expected = load_file(FORMATS / fixture / "expected.safetensors")
    latents = load_sae(folder).encode(expected["x"])
    torch.testing.assert_close(latents, expected["latents"], atol=1e-5, rtol=1e-5)


def test_what_the_file_leaves_open_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = result(capsys, "import", str(FORMATS / "gemma_scope"))
    assert any("layer_1 is assumed to be resid_post.1" in line for line in found["warnings"])
    assert any("--model" in line for line in found["warnings"])
    options = ("--name", "b", "--layer", "mlp_out.1", "--model", "org/model")
    found = result(capsys, "import", str(FORMATS / "gemma_scope"), *options)
    assert found["layer"] == "mlp_out.1"
    assert found["warnings"] == [
        "the file says resid_post.1, and --layer says mlp_out.1",
        "'mlp_out.1' was not checked: its model 'org/model' is not on this machine",
    ]
    assert main(["import", str(FORMATS / "gemma_scope"), "--name", "c"]) == 0
    assert "warning: layer_1 is assumed" in capsys.readouterr().out


@pytest.mark.parametrize(
    "layer", ["model.layers.1.post_attention_layernorm", "model.layers.1.mlp", "resid_pre.2"]
)
def test_the_layer_that_the_user_names_wins_over_the_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], layer: str
) -> None:
    write_saelens(tmp_path / "in", *sae_of_the_sample())
    arguments = ("import", str(tmp_path / "in"), "--model", "sample", "--layer", layer)
    found = result(capsys, *arguments, "--name", "a")
    assert found["layer"] == layer
    (warning,) = found["warnings"]
    assert warning.startswith("the file says resid_post.1, and --layer says")


@pytest.mark.parametrize(
    "layer",
    [
        "resid_post.6",
        "no.such.layer",
        *(
            pytest.param(layer, marks=pytest.mark.slow)
            for layer in ("h.99", "model.layers.1.mlpp", "transformer.h.1")
        ),
    ],
)
def test_a_layer_that_the_model_does_not_have_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], layer: str
) -> None:
    write_saelens(tmp_path / "in", *sae_of_the_sample())
    write_sparsify(tmp_path / "run" / "layers.1")
    for place in ("in", "run"):  # the file says a point, the run holds one SAE
        for flag in ("--layer", "--target-layer"):
            arguments = ("import", str(tmp_path / place), "--model", "sample", flag, layer)
            assert f"layer {layer!r} not found" in refused(tmp_path, capsys, *arguments)


def test_a_layer_of_another_width_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = (str(FORMATS / "gemma_scope"), "--model", "sample", "--layer", "mlp_out.1")
    said = refused(tmp_path, capsys, "import", *arguments)
    assert "reads 24 inputs, layer 'mlp_out.1' of the model has width 192" in said


def test_what_a_run_decides_is_not_dropped_in_training(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for flag in (
        *("--model sample", "--dataset sample", "--split train", "--context-length 128", "--pack"),
        *("--text-field text", "--bos auto", "--streaming", "--keep-special", "--model-dtype fp32"),
    ):
        said = refused(tmp_path, capsys, "train", "--run", "r", *flag.split())
        assert f"{flag.split()[0]} is for --stream: run 'r' already has its model and texts" in said


def sae_of_the_sample() -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    """One as wide as the sample model, whose file names its hook point."""
    width = 192
    tensors = {
        "W_enc": torch.ones(width, 3),
        "b_enc": torch.zeros(3),
        "W_dec": torch.ones(3, width),
        "b_dec": torch.zeros(width),
    }
    return saelens_cfg("standard", d_in=width, d_sae=3), tensors


def test_an_unknown_layer_is_asked_for(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    MAKERS["openai_topk"](tmp_path / "in")
    file = str(tmp_path / "in" / "8.pt")
    assert "--layer" in refused(tmp_path, capsys, "import", file)
    found = result(capsys, "import", file, "--layer", "resid_post.8", "--name", "a")
    assert (found["format"], found["layer"]) == ("OpenAI sparse_autoencoder", "resid_post.8")
    cfg = saelens_cfg("standard")
    cfg["metadata"]["hook_name"] = "blocks.5.attn.hook_rot_q"
    MAKERS["saelens_gated"](tmp_path / "z")
    weights = tmp_path / "z" / "cfg.json"
    weights.write_text(json.dumps(json.loads(weights.read_text()) | {"metadata": cfg["metadata"]}))
    assert main(["import", str(tmp_path / "z")]) == 2
    assert "blocks.5.attn.hook_rot_q" in capsys.readouterr().err


def test_what_was_folded_is_kept(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    MAKERS["llama_scope"](tmp_path / "in")
    found = result(capsys, "import", str(tmp_path / "in"), "--name", "llama")
    assert found["folded"] == ["input_scale"]
    assert load_sae(tmp_path / "w/saes/llama").metadata.folded == ("input_scale",)


def test_a_run_of_several_is_listed_and_one_of_them_chosen(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("layers.0", "layers.1"):
        write_sparsify(tmp_path / "run" / name)
    said = refused(tmp_path, capsys, "import", str(tmp_path / "run"))
    assert "holds 2 SAEs" in said
    assert "layers.0, layers.1" in said
    found = result(capsys, "import", str(tmp_path / "run"), "--layer", "layers.1")
    assert (found["sae_id"], found["layer"]) == ("run-layers.1", "resid_post.1")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["nothing/here"], "not in the local cache"),
        (["./nothing"], "no SAE at"),
        ([str(FORMATS / "saelens_topk"), "--name", "../a"], "not a valid name"),
        ([str(FORMATS / "saelens_topk"), "--dtype", "int4"], "int4"),
        ([str(FORMATS / "saelens_topk"), "--scale", "-1"], "is less than"),
        ([str(FORMATS / "saelens_topk"), "--model", "./no-model"], "not found"),
        ([str(FORMATS / "saelens_topk"), "--check", "--dataset", "no.txt"], "not found"),
    ],
)
def test_wrong_input_is_refused_before_anything_is_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], says: str
) -> None:
    assert says in refused(tmp_path, capsys, "import", *arguments)


def test_code_in_a_file_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.save({"pre_bias": Path}, tmp_path / "x.pt")
    said = refused(tmp_path, capsys, "import", str(tmp_path / "x.pt"), "--layer", "1")
    assert "could run code" in said


def make_huge(folder: Path, n_latents: int = 4_000_000, d: int = 640) -> int:
    """A SAELens SAE of 20 GB that takes no room, since nothing stands in it; gives its size."""
    folder.mkdir()
    shapes = {"W_enc": [d, n_latents], "W_dec": [n_latents, d], "b_enc": [n_latents], "b_dec": [d]}
    header, end = {}, 0
    for name, shape in shapes.items():
        begin, end = end, end + 4 * torch.Size(shape).numel()
        header[name] = {"dtype": "F32", "shape": shape, "data_offsets": [begin, end]}
    text = json.dumps(header).encode()
    with (folder / "sae_weights.safetensors").open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        file.truncate(8 + len(text) + end)
    cfg = saelens_cfg("standard", d_in=d, d_sae=n_latents)
    (folder / "cfg.json").write_text(json.dumps(cfg))
    return end


Usage = namedtuple("Usage", "total used free")


def test_20_gb_do_not_go_onto_a_small_disk(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert make_huge(tmp_path / "in") > 20e9
    monkeypatch.setattr(room.shutil, "disk_usage", lambda _: Usage(9**10, 0, 3_000_000_000))
    said = refused(tmp_path, capsys, "import", str(tmp_path / "in"))
    assert "20.5 GB" in said
    assert "3.0 GB available" in said
    monkeypatch.setattr(room.shutil, "disk_usage", lambda _: Usage(9**15, 0, 10**14))
    monkeypatch.setattr(room, "available_memory", lambda: 8_000_000_000)
    said = refused(tmp_path, capsys, "import", str(tmp_path / "in"))
    assert "30.7 GB of memory" in said
    assert "8.0 GB" in said


def test_a_write_that_fails_leaves_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    from mi_crow.mechanistic.sae import saving

    monkeypatch.setattr(saving, "save_file", fails)
    assert main(["import", str(FORMATS / "saelens_topk")]) == 2
    assert "No space left on device" in capsys.readouterr().err
    assert os.listdir(tmp_path / "w" / "saes") == []


def test_nothing_is_overwritten(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = str(FORMATS / "saelens_topk")
    assert main(["import", source, "--name", "a"]) == 0
    assert main(["import", source, "--name", "a"]) == 2
    (tmp_path / "out").mkdir()
    assert main(["export", str(tmp_path / "out")]) == 2
    assert os.listdir(tmp_path / "out") == []
    assert "exists already" in capsys.readouterr().err


def test_an_sae_goes_in_and_comes_out_the_same(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    result(capsys, "import", str(FORMATS / "saelens_topk"))
    found = result(capsys, "export", str(tmp_path / "out"))
    between = ("export", found["sae_id"], "--format", "saelens", str(tmp_path / "between"))
    assert result(capsys, *between)["folder"] == str(tmp_path / "between")
    assert (found["sae_id"], found["path"]) == ("saelens_topk", str(tmp_path / "out"))
    source = load_file(FORMATS / "saelens_topk" / "sae_weights.safetensors")
    target = load_file(tmp_path / "out" / "sae_weights.safetensors")
    assert source.keys() == target.keys()
    for name, tensor in target.items():
        assert torch.equal(tensor, source[name])
    assert sorted(os.listdir(tmp_path / "out")) == ["cfg.json", "sae_weights.safetensors"]
    again = result(capsys, "import", str(tmp_path / "out"), "--name", "again")
    assert again["layer"] == "resid_post.1"


@pytest.mark.parametrize(
    "name", ["saelens_rescaled", "sparsify_groupmax", "sparsify_skip_transcoder", "dictionary_topk"]
)
def test_sparsify_files_follow_its_rule(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    MAKERS[name](tmp_path / "in")
    result(capsys, "import", str(tmp_path / "in"), "--name", "a", "--layer", "resid_post.2")
    sae = load_sae(tmp_path / "w/saes/a")
    sae.apply_b_dec_to_input = name != "dictionary_topk" and not sae.transcodes
    sae.save(tmp_path / "w/saes/a")
    out = tmp_path / "out"
    folder = Path(result(capsys, "export", "a", str(out), "--format", "sparsify")["folder"])
    assert folder == (out if sae.transcodes else out / "layers.2")
    cfg = json.loads((folder / "cfg.json").read_text())
    w = load_file(folder / "sae.safetensors")
    assert (cfg["num_latents"], cfg["d_in"], cfg["transcode"]) == (M, D, sae.transcodes)
    x = torch.randn(20, D)
    taken = x if cfg["transcode"] else x - w["b_dec"]
    pre = torch.relu(taken @ w["encoder.weight"].T + w["encoder.bias"])
    z = (keep_top if cfg["activation"] == "topk" else keep_group_max)(pre, cfg["k"])
    rebuilt = z @ w["W_dec"] + w["b_dec"]
    if cfg["skip_connection"]:
        rebuilt = rebuilt + x @ w["W_skip"].T
    torch.testing.assert_close(sae.encode(x), z, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(sae(x).reconstruction, rebuilt, atol=1e-5, rtol=1e-5)
    back = load_sae(folder, layer="resid_post.2")
    torch.testing.assert_close(back.encode(x), z, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("name", "format_name", "says"),
    [
        ("saelens_gated", "sparsify", "'gated'"),
        ("saelens_layer_norm", "sparsify", "layer_norm"),
        ("sparsify_groupmax", "saelens", "'groupmax'"),
        ("sparsify_skip_transcoder", "saelens", "'topk_transcoder'"),
    ],
)
def test_what_a_format_does_not_have_is_not_exported_to_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, format_name: str, says: str
) -> None:
    MAKERS[name](tmp_path / "in")
    assert main(["import", str(tmp_path / "in"), "--name", "a", "--layer", "1"]) == 0
    assert main(["export", str(tmp_path / "out"), "--format", format_name]) == 2
    said = capsys.readouterr().err
    assert says in said
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_a_damaged_import_leaves_no_workspace(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(FORMATS / "saelens_topk", tmp_path / "in")
    (tmp_path / "in" / "sae_weights.safetensors").write_bytes(b"0" * 100)
    assert main(["import", str(tmp_path / "in")]) == 1
    assert "not a complete safetensors file" in capsys.readouterr().err
    assert not (tmp_path / "w").exists()
