"""SAEs of other tools: the tools' own figures, and every other variant against its plain rule."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from mi_crow.mechanistic.sae import SparseAutoencoder, load_sae
from mi_crow.mechanistic.sae.formats.config import ImportConfig
from mi_crow.mechanistic.sae.formats.exchange import import_sae
from mi_crow.store.workspace import Workspace
from tests.helpers.sae_files import MAKERS, D, Draw, old_cfg, saelens_cfg, write_saelens

FIXTURES = Path(__file__).parents[1] / "fixtures" / "sae_formats"


def assert_gives(
    sae: SparseAutoencoder, x: torch.Tensor, z: torch.Tensor, rebuilt: torch.Tensor
) -> None:
    torch.testing.assert_close(sae.encode(x), z, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(sae(x).reconstruction, rebuilt, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", sorted(path.name for path in FIXTURES.iterdir()))
def test_a_file_of_the_real_tool_gives_its_latents_and_reconstruction(name: str) -> None:
    expected = load_file(FIXTURES / name / "expected.safetensors")
    sae = load_sae(FIXTURES / name)
    assert_gives(sae, expected["x"], expected["latents"], expected["reconstruction"])
    assert not any(parameter.requires_grad for parameter in sae.parameters())


@pytest.mark.parametrize("name", MAKERS)
def test_a_variant_gives_what_its_rule_says(name: str, tmp_path: Path) -> None:
    rule = MAKERS[name](tmp_path)
    x = torch.randn(50, D, generator=torch.Generator().manual_seed(5)) * 2
    z, rebuilt = rule(x)
    assert 0.02 < float((z > 0).float().mean()) < 0.98  # the rule has something to decide
    assert_gives(load_sae(tmp_path), x, z, rebuilt)


def test_keys_of_training_are_named_and_kept(tmp_path: Path) -> None:
    keys = {"brand_new_warm_up": 3, "n_eval_seqs": None}
    write_saelens(tmp_path / "flat", old_cfg(**keys), Draw().weights())
    write_saelens(tmp_path / "new", saelens_cfg("standard", **keys), Draw().weights())
    for folder, unknown in (("flat", ["brand_new_warm_up"]), ("new", sorted(keys))):
        workspace = Workspace(tmp_path / "workspace")
        config = ImportConfig(str(tmp_path / folder), name=folder)
        (line,) = import_sae(workspace, config).warnings
        assert f"has {', '.join(unknown)}, which this version does not know" in line
        kept = load_sae(workspace.saes_dir / folder).metadata.other["unknown_keys"]
        assert kept == {key: keys[key] for key in unknown}


@pytest.mark.parametrize("name", MAKERS)
def test_what_was_read_is_written_and_read_again_bit_for_bit(name: str, tmp_path: Path) -> None:
    MAKERS[name](tmp_path / "in")
    sae = load_sae(tmp_path / "in")
    back = load_sae(sae.save(tmp_path / "out"))
    assert type(back) is type(sae)
    assert back.metadata == sae.metadata
    assert back.config() == sae.config()
    assert back.input_norm == sae.input_norm
    assert back.apply_b_dec_to_input == sae.apply_b_dec_to_input
    assert back.state_dict().keys() == sae.state_dict().keys()
    for key, tensor in sae.state_dict().items():
        assert torch.equal(back.state_dict()[key], tensor)
