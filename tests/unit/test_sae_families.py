"""Files as each tool publishes them: read to the tool's own figures, or refused by their kind."""

import json
from pathlib import Path
from shutil import copytree

import pytest
import torch
from safetensors.torch import load_file

from mi_crow.errors import MiCrowError, UserError
from mi_crow.mechanistic.sae import load_sae

FIXTURES = Path(__file__).parents[1] / "fixtures" / "sae_families"

READ = {
    # what the family's own list says and its files do not
    "saelens_old_mlp_tm": {"input_scale": 0.9123762783479742},
    **{
        name: {}
        for name in (
            "apollo_e2e",
            "ckkissane_hook_z",
            "deepseek_r1_qresearch",
            "dictionary_learning_gpt_oss_batchtopk",
            "dictionary_learning_jumprelu_full",
            "gemma_scope_2_attn",
            "gemma_scope_2_mlp",
            "gemma_scope_2_resid",
            "gemma_scope_2_transcoder",
            "gemma_scope_2_transcoder_affine",
            "gemma_scope_attn",
            "gemma_scope_embedding",
            "gemma_scope_transcoder",
            "goodfire_8b",
            "llama_scope_r1_distill",
            "llama_scope_threshold",
            "llamascopium_sae_jumprelu",
            "llamascopium_transcoder_topk",
            "opensae_shift_back",
            "qwen_scope",
            "saelens_abstopk",
            "saelens_abstopk_rescale",
            "saelens_jumprelu_skip_transcoder",
            "saelens_matching_pursuit",
            "saelens_old_res_jb",
            "saelens_skip_transcoder",
            "saelens_transcoder",
            "sparsify_skip_transcoder_no_key",
        )
    },
}
# Folders of one transcoder a layer.
SETS = ("mntss_skip_transcoders", "mwhanna_transcoders")
# SAEs over several layers.
ACROSS = {
    "gemma_scope_2_clt_affine": ("mlp_in.{}", "mlp_out.{}", "google/gemma-3-270m-pt"),
    "gemma_scope_2_crosscoder": ("resid_post.{}", "resid_post.{}", "google/gemma-3-1b-pt"),
    "llamascopium_clt": ("blocks.{}.ln2.hook_normalized", "mlp_out.{}", ""),
    "mntss_clt_jumprelu": ("resid_mid.{}", "mlp_out.{}", "meta-llama/Llama-3.2-1B"),
}
REFUSED = {"saelens_temporal": "architecture 'temporal', which cannot be read: its latents depend"}
# Model, hook points in and out, as their sources name them.
ORIGINS = {
    "apollo_e2e": ("gpt2", "resid_pre.6", None),
    "ckkissane_hook_z": ("gpt2", "z.5", None),
    "deepseek_r1_qresearch": ("deepseek-ai/DeepSeek-R1-Distill-Llama-8B", "resid_post.19", None),
    "gemma_scope_2_attn": ("google/gemma-3-1b-pt", "z.11", None),
    "gemma_scope_2_mlp": ("google/gemma-3-4b-pt", "mlp_out.17", None),
    "gemma_scope_2_resid": ("google/gemma-3-1b-pt", "resid_post.13", None),
    "gemma_scope_2_transcoder": ("google/gemma-3-1b-pt", "mlp_in.9", "mlp_out.9"),
    "gemma_scope_2_transcoder_affine": ("google/gemma-3-1b-pt", "mlp_in.5", "mlp_out.5"),
    "gemma_scope_transcoder": ("google/gemma-2-2b", "blocks.3.ln2.hook_normalized", "mlp_out.3"),
    "goodfire_8b": ("meta-llama/Llama-3.1-8B-Instruct", "resid_post.19", None),
    "llama_scope_r1_distill": ("", "resid_post.3", None),
    "llamascopium_sae_jumprelu": ("", "resid_post.8", None),
    "llamascopium_transcoder_topk": ("", "blocks.12.ln2.hook_normalized", "mlp_out.12"),
    "opensae_shift_back": ("meta-llama/Llama-3.1-8B", "resid_post.12", None),
    "qwen_scope": ("Qwen/Qwen3-1.7B-Base", "resid_post.5", None),
}


def test_every_family_is_one_or_the_other() -> None:
    folders = {path.name for path in FIXTURES.iterdir() if path.is_dir()}
    assert folders == READ.keys() | ACROSS.keys() | REFUSED.keys() | set(SETS)


def decoder_norms(folder: Path) -> torch.Tensor:
    """[M], of the file's own decoder."""
    [path] = folder.rglob("sae_weights.safetensors")
    return load_file(path)["W_D"].norm(dim=1)


@pytest.mark.parametrize("name", READ)
def test_a_published_file_gives_the_figures_of_its_own_tool(name: str) -> None:
    expected = load_file(FIXTURES / name / "expected.safetensors")
    sae = load_sae(FIXTURES / name, **READ[name])
    x, scale = expected["x"].float(), expected.get("input_scale", torch.tensor(1.0))
    if (
        "decoder_norms" in sae.metadata.folded and "llamascopium" in name
    ):  # latents in units of what they add
        scale = scale / decoder_norms(FIXTURES / name)
    torch.testing.assert_close(sae.encode(x) * scale, expected["latents"], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(
        sae(x).reconstruction, expected["reconstruction"], atol=1e-5, rtol=1e-5
    )


@pytest.mark.slow
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


@pytest.mark.parametrize("name", SETS)
def test_each_layer_of_a_set_is_read(name: str) -> None:
    expected = load_file(FIXTURES / name / "expected.safetensors")
    kind = {"mntss_skip_transcoders": "resid_mid", "mwhanna_transcoders": "mlp_in"}[name]
    for number in ("0", "1"):
        for layer in (number, f"model.layers.{number}", f"layer_{number}.safetensors"):
            sae = load_sae(FIXTURES / name, layer=layer)
            assert sae.metadata.point == f"{kind}.{number}"
            assert sae.metadata.other["target_layer"] == f"mlp_out.{number}"
        x = expected[f"x.{number}"]
        for one in (sae, load_sae(FIXTURES / name / f"layer_{number}.safetensors")):
            torch.testing.assert_close(
                one.encode(x), expected[f"latents.{number}"], atol=1e-5, rtol=1e-5
            )
            torch.testing.assert_close(
                one(x).reconstruction, expected[f"reconstruction.{number}"], atol=1e-5, rtol=1e-5
            )
    with pytest.raises(MiCrowError, match="holds 2 SAEs"):
        load_sae(FIXTURES / name)
    with pytest.raises(MiCrowError, match="contains no SAE of '7'"):
        load_sae(FIXTURES / name, layer="7")


@pytest.mark.parametrize("name", ORIGINS)
def test_the_model_and_the_hook_points_are_those_of_the_source(name: str) -> None:
    metadata = load_sae(FIXTURES / name).metadata
    found = (metadata.model_name, metadata.point, metadata.other.get("target_layer"))
    assert found == ORIGINS[name]


def test_gemma_scope_2_without_its_configuration(tmp_path: Path) -> None:
    """The names of the folders say the same."""
    for name, model in (
        ("gemma_scope_2_resid", "google/gemma-3-1b-pt"),
        ("gemma_scope_2_transcoder_affine", "google/gemma-3-270m"),
    ):
        size = "270m" if model.endswith("270m") else "1b"
        root = tmp_path / f"gemma-scope-2-{size}-pt"
        copytree(FIXTURES / name, root)
        [config] = root.rglob("config.json")
        config.unlink()
        bare, whole = load_sae(root), load_sae(FIXTURES / name)
        assert bare.metadata.model_name == model
        assert (bare.metadata.point, bare.metadata.other) == (
            whole.metadata.point,
            whole.metadata.other,
        )
        assert torch.equal(bare.W_dec, whole.W_dec)


def test_a_layer_the_user_names_in_full_replaces_the_file_s() -> None:
    sae = load_sae(FIXTURES / "goodfire_8b", layer="resid_pre.3")
    assert sae.metadata.point == "resid_pre.3"
    assert load_sae(FIXTURES / "goodfire_8b", layer="19").metadata.point == "resid_post.19"


def damaged(tmp_path: Path, name: str, ending: str, change: dict[str, object]) -> Path:
    """A copy of a case whose configuration has other values."""
    copytree(FIXTURES / name, tmp_path / name)
    [path] = (tmp_path / name).rglob(f"*{ending}")
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    return tmp_path / name


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "change", "said"),
    [
        ("gemma_scope_2_resid", {"architecture": "topk"}, "architecture 'topk'"),
        ("gemma_scope_2_resid", {"type": "clt"}, "describes a clt"),
        ("gemma_scope_2_crosscoder", {"type": "sae"}, "describes a 'sae'"),
        ("gemma_scope_2_crosscoder", {"architecture": "topk"}, "architecture 'topk'"),
        ("gemma_scope_2_crosscoder", {"hf_hook_point_in": "model.layers.{7,13}.output"}, "for 4"),
        ("gemma_scope_2_clt_affine", {"hf_hook_point_in": "model.layers.output"}, "for 3 files"),
        ("llamascopium_clt", {"act_fn": "topk"}, "the activation 'topk'"),
        ("llamascopium_clt", {"hook_points_in": ["blocks.0.ln2.hook_normalized"]}, "1 hook points"),
        ("llamascopium_clt", {"d_model": 15}, "d_model = 15, the weights 16"),
        ("llamascopium_clt", {"sae_type": "lorsa"}, "Lorsa"),
        ("llama_scope_r1_distill", {"d_model": 23}, "d_model = 23, the weights 24"),
        ("llama_scope_r1_distill", {"act_fn": "prolu"}, "activation 'prolu'"),
        ("llamascopium_sae_jumprelu", {"use_glu_encoder": True}, "use_glu_encoder = True"),
        ("llamascopium_sae_jumprelu", {"norm_activation": "batch-wise"}, "'batch-wise'"),
        ("llamascopium_sae_jumprelu", {"hook_point_in": "blocks.9.hook_resid_post"}, "has no"),
        ("saelens_abstopk", {"k": 0}, "k is 0"),
        ("saelens_matching_pursuit", {"max_iterations": 0}, "max_iterations is 0"),
        ("saelens_matching_pursuit", {"max_iterations": 2.5}, "not a whole number"),
        ("saelens_matching_pursuit", {"residual_threshold": "x"}, "residual_threshold"),
        (
            "saelens_matching_pursuit",
            {"residual_threshold": -3},
            "must be at least 0, not -3",
        ),
        ("saelens_matching_pursuit", {"d_in": 17}, "holds (64, 16) for W_dec"),
        ("saelens_abstopk", {"max_iterations": 3}, "max_iterations"),
        ("qwen_scope", {"d_sae": 95}, "d_sae = 95, the weights 96"),
        ("qwen_scope", {"k": 0}, "k"),
        ("qwen_scope", {"hook_point": "mlp"}, "hook point 'mlp'"),
        ("ckkissane_hook_z", {"dict_size": 3}, "dict_size = 3, the weights 80"),
        ("opensae_shift_back", {"activation": "jumprelu"}, "activation 'jumprelu'"),
        ("opensae_shift_back", {"output_hookpoint": "layers.13"}, "a transcoder cannot be read"),
        ("opensae_shift_back", {"architectures": ["Llama"]}, "describes a model"),
    ],
)
def test_files_that_do_not_fit_are_refused(
    tmp_path: Path, name: str, change: dict[str, object], said: str
) -> None:
    ending = "_cfg.json" if name == "ckkissane_hook_z" else "config.json"
    ending = "cfg.json" if name.startswith("saelens") else ending
    with pytest.raises(MiCrowError) as caught:
        load_sae(damaged(tmp_path, name, ending, change))
    assert said in caught.value.sentence
    assert "\n" not in caught.value.sentence


@pytest.mark.slow
@pytest.mark.parametrize("text", ["- a\n- b", "a: [", "!!python/object:os.system {}", "1: 2", ""])
def test_a_configuration_in_yaml_is_data(tmp_path: Path, text: str) -> None:
    copytree(FIXTURES / "mwhanna_transcoders", tmp_path / "set")
    (tmp_path / "set" / "config.yaml").write_text(text)
    with pytest.raises(MiCrowError, match=r"config\.yaml"):
        load_sae(tmp_path / "set", layer="0")


@pytest.mark.parametrize(
    ("name", "layer"), [("mwhanna_transcoders", "0"), ("mntss_clt_jumprelu", None)]
)
def test_an_activation_that_files_do_not_say_in_full_is_not_read_as_relu(
    tmp_path: Path, name: str, layer: str | None
) -> None:
    copytree(FIXTURES / name, tmp_path / "set")
    with (tmp_path / "set" / "config.yaml").open("a") as config:
        config.write("activation: topk\n")
    with pytest.raises(UserError, match="names the activation 'topk', and not the rest"):
        load_sae(tmp_path / "set", layer=layer)
