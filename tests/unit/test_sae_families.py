"""Files as each tool publishes them: read to the tool's own figures, or refused by their kind."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from mi_crow.errors import MiCrowError
from mi_crow.mechanistic.sae import load_sae

FIXTURES = Path(__file__).parents[1] / "fixtures" / "sae_families"

READ = {
    # what the family's own list says and its files do not
    "saelens_old_mlp_tm": {"input_scale": 0.9123762783479742},
    **{
        name: {}
        for name in (
            "dictionary_learning_gpt_oss_batchtopk",
            "dictionary_learning_jumprelu_full",
            "gemma_scope_attn",
            "gemma_scope_embedding",
            "llama_scope_threshold",
            "saelens_jumprelu_skip_transcoder",
            "saelens_old_res_jb",
            "saelens_skip_transcoder",
            "saelens_transcoder",
            "sparsify_skip_transcoder_no_key",
        )
    },
}
REFUSED = {
    "apollo_e2e": "end-to-end SAEs of Apollo",
    "ckkissane_hook_z": "attention SAE of Kissane",
    "deepseek_r1_qresearch": "SAE of Goodfire or qresearch",
    "gemma_scope_2_attn": "SAE of Gemma Scope 2",
    "gemma_scope_2_clt_affine": "cross-layer transcoder (CLT) of Gemma Scope 2",
    "gemma_scope_2_crosscoder": "crosscoder of Gemma Scope 2",
    "gemma_scope_2_mlp": "SAE of Gemma Scope 2",
    "gemma_scope_2_resid": "SAE of Gemma Scope 2",
    "gemma_scope_2_transcoder": "transcoder of Gemma Scope 2",
    "gemma_scope_2_transcoder_affine": "transcoder of Gemma Scope 2",
    "gemma_scope_transcoder": "transcoder of Gemma Scope",
    "goodfire_8b": "SAE of Goodfire",
    "llama_scope_r1_distill": "Llama-Scope-R1-Distill",
    "llamascopium_clt": "cross-layer transcoder (CLT) of Llamascopium",
    "llamascopium_sae_jumprelu": "SAE of Llamascopium",
    "llamascopium_transcoder_topk": "transcoder of Llamascopium",
    "mntss_clt_jumprelu": "cross-layer transcoder (CLT) of circuit-tracer",
    "mntss_skip_transcoders": "per-layer transcoders of circuit-tracer",
    "mwhanna_transcoders": "per-layer transcoders of circuit-tracer",
    "opensae_shift_back": "SAE of OpenSAE",
    "qwen_scope": "SAE of Qwen-Scope",
    "saelens_abstopk": "architecture 'abstopk'",
    "saelens_abstopk_rescale": "architecture 'abstopk'",
    "saelens_matching_pursuit": "architecture 'matching_pursuit'",
    "saelens_temporal": "architecture 'temporal'",
}


def test_every_family_is_one_or_the_other() -> None:
    folders = {path.name for path in FIXTURES.iterdir() if path.is_dir()}
    assert folders == READ.keys() | REFUSED.keys()


@pytest.mark.parametrize("name", READ)
def test_a_published_file_gives_the_figures_of_its_own_tool(name: str) -> None:
    expected = load_file(FIXTURES / name / "expected.safetensors")
    sae = load_sae(FIXTURES / name, **READ[name])
    x, scale = expected["x"].float(), expected.get("input_scale", torch.tensor(1.0))
    torch.testing.assert_close(sae.encode(x) * scale, expected["latents"], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(
        sae(x).reconstruction, expected["reconstruction"], atol=1e-5, rtol=1e-5
    )


@pytest.mark.parametrize("name", READ)
def test_what_was_read_computes_the_same_when_written_and_read_again(
    name: str, tmp_path: Path
) -> None:
    sae = load_sae(FIXTURES / name, **READ[name])
    back = load_sae(sae.save(tmp_path))
    x = load_file(FIXTURES / name / "expected.safetensors")["x"].float()
    assert torch.equal(back(x).reconstruction, sae(x).reconstruction)
    assert back.metadata == sae.metadata


@pytest.mark.parametrize("name", REFUSED)
def test_another_family_is_refused_by_its_kind(name: str) -> None:
    files = [path for path in sorted((FIXTURES / name).rglob("*")) if path.is_file()]
    weights = [path for path in files if path.suffix in (".pt", ".pth", ".safetensors", ".npz")]
    weights = [path for path in weights if path.name != "expected.safetensors"]
    for place in (FIXTURES / name, weights[0].parent, weights[0]):
        with pytest.raises(MiCrowError) as caught:
            load_sae(place)
        assert REFUSED[name] in caught.value.sentence
        assert "\n" not in caught.value.sentence
        assert caught.value.exit_code == 2
