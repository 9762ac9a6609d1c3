"""Which of several SAEs is meant, what its hook point is, and where its files come from."""

from collections import namedtuple
from pathlib import Path

import pytest
import torch
from huggingface_hub import constants

from mi_crow.errors import NotFoundError, UserError
from mi_crow.language_model.model_names import hub_model
from mi_crow.mechanistic.sae import load_sae
from mi_crow.mechanistic.sae.formats.files import LocatedFiles
from mi_crow.mechanistic.sae.formats.load import open_sae_files
from mi_crow.mechanistic.sae.hook_names import hook_name_of, module_of, point_of
from mi_crow.store import free_space as room
from tests.helpers.sae_files import MAKERS, D, write_json, write_sparsify


def make_run(folder: Path) -> Path:
    """A run of sparsify: three hook points, one of them with two seeds."""
    for number, name in enumerate(("layers.1", "layers.10", "layers.1.mlp", "layers.2/seed0")):
        write_sparsify(folder / name, seed=number)
    write_sparsify(folder / "layers.2/seed1", seed=9)
    write_json(folder / "config.json", {"model": "org/model", "revision": "abc", "ctx_len": 256})
    return folder


@pytest.mark.parametrize(
    ("layer", "place"),
    [
        ("layers.1", "layers.1"),
        ("1", "layers.1"),
        ("resid_post.10", "layers.10"),
        ("model.layers.10", "layers.10"),
        ("mlp_raw.1", "layers.1.mlp"),
        ("layers.2/seed1", "layers.2/seed1"),
    ],
)
def test_a_layer_chooses_among_the_hook_points_of_a_run(
    tmp_path: Path, layer: str, place: str
) -> None:
    run = make_run(tmp_path)
    chosen, named = load_sae(run, layer=layer), load_sae(run / place)
    assert torch.equal(chosen.W_dec, named.W_dec)
    assert chosen.metadata.point == named.metadata.point != ""


def test_a_choice_that_is_open_is_listed(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    with pytest.raises(UserError, match="holds 5 SAEs") as caught:
        load_sae(run)
    for name in ("layers.1,", "layers.10", "layers.1.mlp", "layers.2/seed0", "--layer"):
        assert name in caught.value.hint
    with pytest.raises(UserError, match=r"2 SAEs of 'resid_post.2'") as caught:
        load_sae(run, layer="resid_post.2")
    assert "layers.2/seed1" in caught.value.hint
    assert "layers.10" not in caught.value.hint
    with pytest.raises(NotFoundError, match=r"no SAE of 'layers.7'") as caught:
        load_sae(run, layer="layers.7")
    assert "layers.1" in caught.value.hint


def test_a_run_says_its_model_and_the_folder_its_hook_point(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    for place in ("layers.2/seed1", "layers.2/seed1/sae.safetensors"):
        metadata = load_sae(run / place).metadata
        assert metadata.point == "resid_post.2" if place.endswith("safetensors") else True
    metadata = load_sae(run, layer="layers.2/seed1").metadata
    assert (metadata.model_name, metadata.revision) == ("org/model", "abc")
    assert (metadata.point, metadata.hook_name) == ("resid_post.2", "blocks.2.hook_resid_post")
    assert metadata.context_size == 256


@pytest.mark.parametrize(
    ("name", "point", "model"),
    [
        ("saelens_gated", "resid_post.1", "openai-community/gpt2"),
        ("old_saelens_standard", "resid_pre.8", "openai-community/gpt2"),
        ("dictionary_topk", "resid_post.2", "EleutherAI/pythia-70m"),
        ("llama_scope", "resid_post.15", "meta-llama/Llama-3.1-8B"),
        ("gemma_scope", "mlp_out.3", "google/gemma-2-2b"),
        ("openai_topk", "", ""),
    ],
)
def test_files_say_their_hook_point_and_model(
    tmp_path: Path, name: str, point: str, model: str
) -> None:
    MAKERS[name](tmp_path)
    metadata = load_sae(tmp_path).metadata
    assert (metadata.point, metadata.model_name) == (point, model)
    given = load_sae(tmp_path, layer="attn_out.4").metadata
    assert (given.point, given.hook_name) == ("attn_out.4", "blocks.4.hook_attn_out")


def test_what_a_transcoder_predicts_is_known_from_its_folder(tmp_path: Path) -> None:
    MAKERS["sparsify_skip_transcoder"](tmp_path)
    metadata = load_sae(tmp_path).metadata
    assert metadata.point == "mlp_in.1"
    assert metadata.other["target_layer"] == "mlp_raw.1"


@pytest.mark.parametrize(
    ("name", "point", "module"),
    [
        ("resid_post.3", "resid_post.3", ""),
        ("15", "resid_post.15", ""),
        ("blocks.15.hook_resid_post", "resid_post.15", ""),
        ("blocks.15.hook_mlp_out", "mlp_out.15", ""),
        ("blocks.15.attn.hook_z", "z.15", ""),
        ("blocks.15.ln2.hook_normalized", "blocks.15.ln2.hook_normalized", ""),
        ("model.layers.15", "resid_post.15", "model.layers.15"),
        ("layers.15", "resid_post.15", ""),
        ("transformer.h.3.attn", "attn_raw.3", "transformer.h.3.attn"),
        ("gpt_neox.layers.5.mlp", "mlp_raw.5", "gpt_neox.layers.5.mlp"),
        ("model.layers.5.mlp.input", "mlp_in.5", "model.layers.5.mlp.input"),
        ("model.layers.5.output", "resid_post.5", "model.layers.5"),
        ("model.layers.5.input", "resid_pre.5", "model.layers.5"),
        ("model.layers.5.self_attn.o_proj.input", "z.5", "model.layers.5.self_attn.o_proj.input"),
        ("blocks.15.hook_resid_mid", "resid_mid.15", ""),
        ("blocks.15.hook_mlp_in", "resid_mid.15", ""),
        ("blocks.15.mlp.hook_in", "mlp_in.15", ""),
        ("blocks.15.ln2.hook_scale", "", ""),
        ("hook_embed", "hook_embed", ""),
        ("layers.5.mlp.down_proj", "", ""),
        ("vision.encoder.layers.5", "", ""),
        ("model.norm", "", ""),
        ("", "", ""),
    ],
)
def test_hook_points_are_named_where_they_are_certain(name: str, point: str, module: str) -> None:
    assert (point_of(name), module_of(name)) == (point, module)
    if point:
        assert point_of(hook_name_of(point, module)) == point


@pytest.mark.parametrize(
    ("given", "id_on_the_hub"),
    [
        ("gpt2-small", "openai-community/gpt2"),
        ("gpt2-xl", "openai-community/gpt2-xl"),
        ("pythia-70m-deduped", "EleutherAI/pythia-70m-deduped"),
        ("gemma-2-2b", "google/gemma-2-2b"),
        ("org/own-model", "org/own-model"),
        ("sample", "sample"),
        ("", ""),
    ],
)
def test_models_of_transformerlens_are_named_as_on_the_hub(given: str, id_on_the_hub: str) -> None:
    assert hub_model(given) == id_on_the_hub


def test_any_file_of_an_sae_stands_for_it(tmp_path: Path) -> None:
    MAKERS["llama_scope"](tmp_path / "llama")
    MAKERS["saelens_gated"](tmp_path / "lens")
    MAKERS["dictionary_topk"](tmp_path / "dict")
    (tmp_path / "dict/checkpoints").mkdir()
    checkpoint = tmp_path / "dict/checkpoints/ae_300.pt"
    checkpoint.write_bytes((tmp_path / "dict/ae.pt").read_bytes())
    for folder in ("llama", "lens", "dict"):
        whole = load_sae(tmp_path / folder)
        for file in (tmp_path / folder).rglob("*"):
            if file.is_file():
                assert torch.equal(load_sae(file).W_dec, whole.W_dec), file


def test_a_file_that_is_called_the_same_in_every_sae_is_named_after_its_folder(
    tmp_path: Path,
) -> None:
    MAKERS["saelens_gated"](tmp_path / "lens")
    MAKERS["dictionary_topk"](tmp_path / "dict.v2")
    own = tmp_path / "dict.v2" / "mine.pt"
    own.write_bytes((tmp_path / "dict.v2/ae.pt").read_bytes())
    files = ("lens/sae_weights.safetensors", "lens/cfg.json", "dict.v2/ae.pt", "dict.v2/mine.pt")
    names = [open_sae_files(str(tmp_path / file)).name for file in files]
    assert names == ["lens", "lens", "dict.v2", "mine"]


def test_a_folder_that_is_an_sae_is_meant_before_those_below_it(tmp_path: Path) -> None:
    MAKERS["saelens_gated"](tmp_path)
    MAKERS["saelens_layer_norm"](tmp_path / "checkpoints" / "step-3")
    assert load_sae(tmp_path).architecture == "gated"


def cached(repository: str, commit: str) -> Path:
    """The folder of a repository's commit in the hub's cache."""
    base = Path(constants.HF_HUB_CACHE) / f"models--{repository.replace('/', '--')}"
    (base / "refs").mkdir(parents=True)
    (base / "refs" / "main").write_text(commit)
    return base / "snapshots" / commit


@pytest.fixture
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))


@pytest.mark.usefixtures("_own_cache")
def test_a_hub_id_is_read_from_the_cache_when_offline() -> None:
    commit = "0123456789abcdef0123456789abcdef01234567"
    make_run(cached("org/run", commit))
    opened = open_sae_files("org/run/layers.10", offline=True)
    assert (opened.source, opened.source_revision) == ("org/run/layers.10", commit)
    assert opened.name == "layers.10"
    assert opened.record.metadata.model_name == "org/model"
    assert open_sae_files("org/run", layer="10", offline=True).source == "org/run/layers.10"
    gemma = "google/gemma-scope-2b-pt-mlp"
    deep = f"{gemma}/layer_3/width_1k/average_l0_9"
    source = cached(gemma, commit)
    MAKERS["gemma_scope"](source)
    (source / "gemma-scope-2b-pt-mlp" / "layer_3").rename(source / "layer_3")
    assert open_sae_files(deep, offline=True).name == "layer_3-width_1k-average_l0_9"
    metadata = open_sae_files(gemma, offline=True).record.metadata
    assert (metadata.point, metadata.model_name) == ("mlp_out.3", "google/gemma-2-2b")


@pytest.mark.usefixtures("_own_cache")
@pytest.mark.parametrize(
    ("path", "says"),
    [
        ("org/absent", "not in the local cache"),
        ("org/absent/layers.1", "not in the local cache"),
        ("./no/such", "no SAE at"),
        ("nothing", "no SAE at"),
    ],
)
def test_what_cannot_be_had_is_said_in_one_sentence(path: str, says: str) -> None:
    with pytest.raises(NotFoundError, match=says) as caught:
        load_sae(path, offline=True)
    assert "\n" not in caught.value.sentence


def test_a_layer_that_names_no_point_is_taken_as_a_module(tmp_path: Path) -> None:
    MAKERS["openai_relu"](tmp_path)
    metadata = load_sae(tmp_path, layer="transformer.h.8.ln_2").metadata
    assert (metadata.point, metadata.layer) == ("", "transformer.h.8.ln_2")
    assert metadata.layer_signature == metadata.hook_name == "transformer.h.8.ln_2"
    assert load_sae(tmp_path).n_inputs == D


@pytest.mark.usefixtures("_own_cache")
def test_what_has_no_room_is_not_downloaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes = {"cfg.json": 300, "sae_weights.safetensors": 20_000_000_000}
    place = LocatedFiles("org/big", tuple(sizes), repository="org/big", revision="abc", sizes=sizes)
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(room.shutil, "disk_usage", lambda _: usage(0, 0, 30_000_000_000))
    with pytest.raises(UserError, match=r"needs 40\.0 GB.*30\.0 GB available"):  # twice on one disk
        place.fetch(place.find(None), tmp_path / "w")
    monkeypatch.setattr(room.shutil, "disk_usage", lambda _: usage(0, 0, 10_000_000_000))
    with pytest.raises(UserError, match=r"needs 20\.0 GB"):
        place.fetch(place.find(None))
    assert not (tmp_path / "cache").exists()
