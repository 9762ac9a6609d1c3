"""SAEs on disk: the SAELens layout, read and written."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from mi_crow.errors import CorruptDataError, NotFoundError
from mi_crow.mechanistic.sae import SaeMetadata, TopKSae, load_sae
from mi_crow.store.workspace import read_sae_summary
from tests.helpers.sae_reference import MAKERS, noisy


def small_sae() -> TopKSae:
    sae = TopKSae(n_latents=40, n_inputs=12, k=4, seed=3)
    with torch.no_grad():
        for parameter in sae.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    sae.metadata = SaeMetadata(
        model_name="sample",
        hook_name="blocks.2.hook_resid_post",
        layer="model.layers.2",
        point="resid_post.2",
        revision="abc",
        tokenizer_hash="123",
        run_id="run-1",
        outlier_norm=17.5,
        context_size=64,
        other={"prepend_bos_note": "kept"},
    )
    return sae


def change_config(folder: Path, **changes: object) -> None:
    path = folder / "cfg.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_a_saved_sae_loads_back_bit_for_bit(tmp_path: Path) -> None:
    sae = small_sae()
    sae.save(tmp_path / "sae")
    for path in (tmp_path / "sae", tmp_path / "sae" / "sae_weights.safetensors"):
        back = load_sae(path)
        assert isinstance(back, TopKSae)
        assert back.k == sae.k
        assert back.metadata == sae.metadata
        for name, tensor in sae.state_dict().items():
            assert torch.equal(back.state_dict()[name], tensor)


def test_what_is_written_is_what_saelens_reads(tmp_path: Path) -> None:
    sae = small_sae()
    sae.save(tmp_path)
    cfg = json.loads((tmp_path / "cfg.json").read_text())
    assert (cfg["d_in"], cfg["d_sae"], cfg["k"], cfg["architecture"]) == (12, 40, 4, "topk")
    assert cfg["normalize_activations"] == "none"
    assert cfg["rescale_acts_by_decoder_norm"] is False
    assert cfg["metadata"]["hook_name"] == "blocks.2.hook_resid_post"
    assert cfg["metadata"]["mi_crow"]["outlier_norm"] == 17.5
    tensors = load_file(tmp_path / "sae_weights.safetensors")
    x = torch.randn(5, 12)
    pre = (x - tensors["b_dec"]) @ tensors["W_enc"] + tensors["b_enc"]
    top = pre.topk(4, dim=1)
    z = torch.zeros(5, 40).scatter(1, top.indices, top.values.relu())
    with torch.no_grad():
        torch.testing.assert_close(sae.encode(x), z)
        torch.testing.assert_close(sae.decode(z), z @ tensors["W_dec"] + tensors["b_dec"])


def test_the_workspace_can_list_a_saved_sae(tmp_path: Path) -> None:
    summary = read_sae_summary(small_sae().save(tmp_path / "sae"))
    assert (summary.architecture, summary.n_inputs, summary.n_latents) == ("topk", 12, 40)
    assert (summary.k, summary.layer, summary.run_id) == (4, "model.layers.2", "run-1")


@pytest.mark.parametrize("name", MAKERS)
def test_every_architecture_is_written_and_read(tmp_path: Path, name: str) -> None:
    sae = noisy(name).float()
    sae.save(tmp_path)
    back = load_sae(tmp_path)
    assert type(back) is type(sae)
    assert back.config() == sae.config()
    assert back.state_dict().keys() == sae.state_dict().keys()
    for key, tensor in sae.state_dict().items():
        assert torch.equal(back.state_dict()[key], tensor)
    summary = read_sae_summary(tmp_path)
    assert summary.k == getattr(sae, "k", None)


@pytest.mark.parametrize("name", ["batchtopk", "matryoshka"])
def test_what_infers_by_a_threshold_is_stored_as_jumprelu(tmp_path: Path, name: str) -> None:
    sae = noisy(name).float()
    sae.save(tmp_path)
    cfg = json.loads((tmp_path / "cfg.json").read_text())
    assert cfg["architecture"] == "jumprelu"
    assert "k" not in cfg
    assert read_sae_summary(tmp_path).architecture == name
    del cfg["metadata"]["mi_crow"]  # as a tool sees it that knows nothing of us
    (tmp_path / "cfg.json").write_text(json.dumps(cfg))
    as_others = load_sae(tmp_path)
    assert as_others.architecture == "jumprelu"
    x = torch.randn(9, sae.n_inputs)
    torch.testing.assert_close(as_others.encode(x), sae.encode(x))


def test_an_sae_is_loaded_in_the_dtype_that_is_asked_for(tmp_path: Path) -> None:
    small_sae().save(tmp_path)
    assert load_sae(tmp_path).dtype == torch.float32
    assert load_sae(tmp_path, dtype=torch.bfloat16).dtype == torch.bfloat16
    small_sae().to(torch.bfloat16).save(tmp_path)
    assert load_sae(tmp_path).dtype == torch.bfloat16


def test_a_missing_folder_says_what_is_needed(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="no SAE") as caught:
        load_sae(tmp_path / "nothing")
    assert "cfg.json" in caught.value.hint


def test_damaged_files_are_named(tmp_path: Path) -> None:
    small_sae().save(tmp_path)
    weights = tmp_path / "sae_weights.safetensors"
    tensors = load_file(weights)
    save_file({**tensors, "W_dec": tensors["W_dec"][:5].contiguous()}, weights)
    with pytest.raises(CorruptDataError, match="W_dec"):
        load_sae(tmp_path)
    weights.write_bytes(b"not tensors")
    with pytest.raises(CorruptDataError, match="safetensors"):
        load_sae(tmp_path)
    weights.unlink()
    with pytest.raises(NotFoundError, match="sae_weights"):
        load_sae(tmp_path)


def test_a_damaged_configuration_is_named(tmp_path: Path) -> None:
    small_sae().save(tmp_path)
    change_config(tmp_path, d_in="wide")
    with pytest.raises(CorruptDataError, match=r"cfg\.json"):
        load_sae(tmp_path)
    change_config(tmp_path, d_in=13)
    with pytest.raises(CorruptDataError, match=r"W_enc.*13"):
        load_sae(tmp_path)


def test_an_sae_of_a_blocks_input_is_not_taken_for_one_of_its_output() -> None:
    metadata = SaeMetadata(layer="model.layers.1", point="resid_pre.1")
    assert metadata.layer_signature == "resid_pre.1"
    assert SaeMetadata(layer="model.norm").layer_signature == "model.norm"
