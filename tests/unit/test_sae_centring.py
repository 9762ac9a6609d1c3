"""An SAE made for centred writing weights fits the model as it is."""

from dataclasses import replace
from typing import Any

import pytest
import torch

from mi_crow.language_model import LanguageModel
from mi_crow.mechanistic.sae import load_sae
from mi_crow.mechanistic.sae.centring import norms_subtract_mean
from mi_crow.mechanistic.sae.formats.config import ImportConfig
from mi_crow.mechanistic.sae.formats.exchange import import_sae
from mi_crow.mechanistic.sae.formats.fit import check_fit
from mi_crow.mechanistic.steering.inspection import inspect
from mi_crow.mechanistic.steering.loading import join
from mi_crow.store.workspace import Workspace
from tests.helpers.steering_fixture import tiny_sae
from tests.helpers.tiny_models import TEXTS, build_model, build_tokenizer

KEYS: dict[str, Any] = {"model_from_pretrained_kwargs": {"center_writing_weights": True}}


def shifted(architecture: str) -> LanguageModel:
    """A model whose residual stream has a mean far from zero."""
    tokenizer = build_tokenizer()
    model = build_model(architecture, len(tokenizer))
    with torch.no_grad():
        model.get_input_embeddings().weight.add_(3.0)
    return LanguageModel.from_local_torch(model, tokenizer)


def sae_of(point: str = "resid_post.1", **keys: Any):
    sae = tiny_sae()
    other = {**KEYS, **keys}
    sae.metadata = replace(sae.metadata, layer="", point=point, other=other)
    return sae


def test_only_norms_that_subtract_the_mean_allow_it():
    assert norms_subtract_mean(shifted("gpt2"), 32)
    assert norms_subtract_mean(shifted("gpt_neox"), 32)
    assert not norms_subtract_mean(shifted("llama"), 32)
    assert not norms_subtract_mean(shifted("qwen3"), 32)


def test_latents_are_those_of_centred_activations_and_the_mean_is_kept(tmp_path):
    lm = shifted("gpt2")
    sae_of().save(tmp_path)
    sae = load_sae(tmp_path)
    loaded = join("s", lm, sae)
    plain = tiny_sae()
    x = torch.randn(5, 32) + 4
    centred = x - x.mean(-1, keepdim=True)
    assert torch.equal(sae.encode(x), plain.encode(centred))
    expected = plain(centred).reconstruction + x.mean(-1, keepdim=True)
    torch.testing.assert_close(sae(x).reconstruction, expected)
    assert torch.equal(torch.as_tensor(sae.latent_units(x)).expand(5, 1), torch.ones(5, 1))
    assert inspect(loaded, TEXTS[0])["features"]


def test_the_check_follows_it_and_says_so():
    lm = shifted("gpt2")
    followed = check_fit(lm, sae_of(), TEXTS)
    assert any("center_writing_weights" in warning for warning in followed.warnings)
    other = check_fit(lm, sae_of(model_from_pretrained_kwargs={}), TEXTS)
    assert followed.fvu != pytest.approx(other.fvu, rel=1e-3)


@pytest.mark.parametrize(
    ("architecture", "point"), [("llama", "resid_post.1"), ("gpt2", "model.lm_head")]
)
def test_where_it_does_not_apply_the_input_stays(architecture, point):
    lm = shifted(architecture)
    sae = sae_of("resid_post.1")
    if architecture == "gpt2":
        sae.metadata = replace(sae.metadata, point="", layer="transformer.h.1.attn.c_proj")
    fit = check_fit(lm, sae, TEXTS)
    assert not sae.centred
    assert any("center_writing_weights" in warning for warning in fit.warnings)


def test_an_sae_attached_elsewhere_is_centred_where_it_hangs():
    lm = shifted("gpt2")
    for own in ("", "model.lm_head"):
        sae = sae_of()
        sae.metadata = replace(sae.metadata, point="", layer=own)
        lm.attach_sae(sae, "resid_post.1")
        assert sae.centred
        lm.detach_sae()
    lm.attach_sae(sae, "z.1")
    assert not sae.centred


def test_the_check_tries_centred_inputs_and_the_import_can_be_told(tmp_path):
    lm = shifted("gpt2")
    made_for = check_fit(lm, sae_of(), TEXTS)
    silent = check_fit(lm, sae_of(model_from_pretrained_kwargs={}), TEXTS)
    name = next(name for name in silent.alternatives if "--centred" in name)
    assert silent.alternatives[name] == pytest.approx(made_for.fvu, rel=0.05)
    assert not any("--centred" in tried for tried in made_for.alternatives)
    llama = check_fit(shifted("llama"), sae_of(model_from_pretrained_kwargs={}), TEXTS)
    assert not any("--centred" in tried for tried in llama.alternatives)

    sae_of(model_from_pretrained_kwargs={"device": "cpu"}).save(tmp_path / "sae")
    workspace = Workspace(tmp_path / "w")
    result = import_sae(workspace, ImportConfig(str(tmp_path / "sae"), centred=True))
    assert any("center_writing_weights" in warning for warning in result.warnings)
    stored = load_sae(workspace.sae_dir(result.sae_id))
    assert stored.centred
    assert stored.metadata.other["model_from_pretrained_kwargs"]["device"] == "cpu"
