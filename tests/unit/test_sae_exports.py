"""Exports for dictionary_learning and circuit-tracer: read back, they compute the same."""

import json
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file

from mi_crow.cli import main
from mi_crow.errors import UserError
from mi_crow.mechanistic.sae import CrossLayerSae, SaeMetadata, SparseAutoencoder, load_sae
from mi_crow.mechanistic.sae.formats.config import ExportConfig, ImportConfig
from mi_crow.mechanistic.sae.formats.exchange import import_sae
from mi_crow.mechanistic.sae.formats.exporting import export_from, export_sae
from mi_crow.store import Workspace
from tests.helpers.cross_layer_fixture import small
from tests.helpers.sae_reference import D, noisy
from tests.unit.test_sae_families import FIXTURES


def draw() -> torch.Tensor:
    return torch.randn(32, D, generator=torch.Generator().manual_seed(1)) * 2


def made(name: str, point: str = "resid_post.3", **other: str) -> SparseAutoencoder:
    sae = noisy(name).float()
    sae.metadata = SaeMetadata(point=point, model_name="org/model", other=dict(other))
    return sae


def same(one: SparseAutoencoder, other: SparseAutoencoder) -> None:
    x = draw()
    assert bool((one.encode(x) > 0).any())
    torch.testing.assert_close(other.encode(x), one.encode(x), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(other(x).reconstruction, one(x).reconstruction, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("subtracts", [True, False])
@pytest.mark.parametrize("name", ["topk", "batchtopk", "matryoshka", "jumprelu", "l1", "gated"])
def test_dictionary_learning(name: str, subtracts: bool, tmp_path: Path) -> None:
    sae = made(name)
    sae.apply_b_dec_to_input = subtracts
    folder = export_sae(sae.save(tmp_path / "own"), tmp_path / "out", "dictionary_learning")
    assert {path.name for path in folder.iterdir()} == {"ae.safetensors", "config.json"}
    back = load_sae(folder)
    same(sae, back)
    assert back.architecture == sae.architecture
    assert (back.metadata.point, back.metadata.model_name) == ("resid_post.3", "org/model")
    # What the note says: the pickle that its own loader wants.
    torch.save(load_file(folder / "ae.safetensors"), folder / "ae.pt")
    same(sae, load_sae(folder))
    assert load_sae(folder / "ae.pt").architecture == sae.architecture


def test_the_command_says_how_dictionary_learning_loads_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    workspace = Workspace.open(tmp_path / "w")
    made("topk").save(workspace.saes_dir / "s")
    words = ["--workspace", str(workspace.root), "export", "s", str(tmp_path / "out")]
    assert main([*words, "--format", "dictionary_learning"]) == 0
    assert 'torch.save(safetensors.torch.load_file("ae.safetensors"), "ae.pt")' in (
        " ".join(capsys.readouterr().out.split())
    )


def transcoder(name: str, number: int, **metadata: str) -> SparseAutoencoder:
    return made(name, f"mlp_in.{number}", target_layer=f"mlp_out.{number}", **metadata)


@pytest.mark.parametrize("name", ["transcoder-l1", "transcoder-jumprelu"])
def test_a_set_of_circuit_tracer(name: str, tmp_path: Path) -> None:
    workspace = Workspace.open(tmp_path / "w")
    saes = [transcoder(name, number) for number in (0, 1)]
    saes[1].apply_b_dec_to_input = False
    for number, sae in enumerate(saes):
        sae.save(workspace.saes_dir / f"layer{number}")
    config = ExportConfig("layer0", str(tmp_path / "set"), "circuit-tracer", ("layer1",))
    value = export_from(workspace, config)
    assert value["also"] == ["layer1"]
    folder = Path(value["folder"])
    described = yaml.safe_load((folder / "config.yaml").read_text())
    assert described == {
        "model_name": "org/model",
        "model_kind": "transcoder_set",
        "feature_input_hook": "mlp.hook_in",
        "feature_output_hook": "hook_mlp_out",
    }
    for number, sae in enumerate(saes):
        back = load_sae(folder, layer=str(number))
        same(sae, back)
        assert back.metadata.other["target_layer"] == f"mlp_out.{number}"


def test_a_clt_comes_out_as_it_came_in(tmp_path: Path) -> None:
    name = "mntss_clt_jumprelu"
    workspace = Workspace.open(tmp_path / "w")
    import_sae(workspace, ImportConfig(str(FIXTURES / name), name="clt"))
    folder = export_sae(workspace.sae_dir("clt"), tmp_path / "out", "circuit-tracer")
    files = [path.name for path in (FIXTURES / name).glob("W_*.safetensors")]
    assert files
    for file in files:
        before, after = load_file(FIXTURES / name / file), load_file(folder / file)
        assert before.keys() == after.keys()
        assert all(torch.equal(after[key].to(before[key].dtype), before[key]) for key in before)
    sae = load_sae(folder)
    assert isinstance(sae, CrossLayerSae)
    assert sae.layers == ("resid_mid.0", "resid_mid.1", "resid_mid.2")


def refused(sae: SparseAutoencoder, format_name: str, tmp_path: Path) -> str:
    with pytest.raises(UserError) as caught:
        export_sae(sae.save(tmp_path / "own"), tmp_path / "out", format_name)
    assert not (tmp_path / "out").exists()
    return caught.value.sentence


def test_what_a_tool_does_not_have_is_said(tmp_path: Path) -> None:
    def said(sae: SparseAutoencoder, format_name: str) -> str:
        return refused(sae, format_name, tmp_path / sae.architecture / format_name)

    assert "has no SAEs of architecture 'topk_transcoder'" in said(
        transcoder("transcoder", 1), "dictionary_learning"
    )
    assert "circuit-tracer has no SAEs of architecture 'topk'" in said(
        made("topk"), "circuit-tracer"
    )
    uneven = made("batchtopk")
    uneven.threshold[0] += 1  # type: ignore[operator]
    assert "one threshold for all latents" in said(uneven, "dictionary_learning")
    scaled = made("l1")
    scaled.input_norm = "layer_norm"
    assert "input normalisation 'layer_norm'" in said(scaled, "dictionary_learning")
    nowhere = made("transcoder-l1", "attn_in.1", target_layer="attn_raw.1")
    assert "no name for the hook point 'attn_raw.1'" in said(nowhere, "circuit-tracer")
    assert "has no crosscoders" in said(small("crosscoder"), "circuit-tracer")
    assert "skip connections" in said(small("clt"), "circuit-tracer")
    assert "--format circuit-tracer" in said(small("clt"), "saelens")
    assert "to none of these formats" in said(small("crosscoder"), "saelens")


def test_a_set_is_of_one_model_and_kind(tmp_path: Path) -> None:
    workspace = Workspace.open(tmp_path / "w")
    transcoder("transcoder-l1", 0).save(workspace.saes_dir / "a")
    made("transcoder-l1", "resid_mid.1", target_layer="mlp_out.1").save(workspace.saes_dir / "b")
    transcoder("transcoder-l1", 0).save(workspace.saes_dir / "c")
    for other, wrong in (("b", "different hook points"), ("c", "are both of layer 0")):
        config = ExportConfig("a", str(tmp_path / "set"), "circuit-tracer", (other,))
        with pytest.raises(UserError, match=wrong):
            export_from(workspace, config)
    with pytest.raises(UserError, match="saelens has no sets of SAEs"):
        ExportConfig("a", "x", "saelens", ("b",))
    with pytest.raises(UserError, match="named twice"):
        ExportConfig("a", "x", "circuit-tracer", ("a",))
    assert json.loads((workspace.sae_dir("a") / "cfg.json").read_text())["d_in"] == D
