"""Inspecting a text and measuring a layer, against the dense encoding and the plain activations."""

import pytest
import torch

from mi_crow.errors import MiCrowError, NotFoundError, UserError
from mi_crow.mechanistic.steering.inspection import inspect, layer_statistics
from mi_crow.mechanistic.steering.loading import join
from tests.helpers.steering_fixture import LATENTS, LAYER, TEXT, activations, tiny_sae


def test_features_are_the_strongest_of_the_text_with_one_activation_a_token(tiny_lm):
    sae = tiny_sae()
    x, special = activations(tiny_lm)
    z = sae.encode(x)
    z[special] = 0
    found = inspect(join("tiny", tiny_lm, sae), TEXT, top=5)
    assert "".join(found["tokens"]).endswith(TEXT)
    assert found["special"] == special.tolist()
    assert not any(found["outlier"])
    expected = z.amax(0).topk(5)
    assert [row["max_act"] for row in found["features"]] == pytest.approx(expected.values.tolist())
    for row in found["features"]:
        assert row["acts"] == pytest.approx(z[:, row["feature"]].tolist(), abs=1e-5)
        assert row["max_act"] == max(row["acts"])


def test_each_token_has_its_own_features_strongest_first(tiny_lm):
    sae = tiny_sae()
    x, special = activations(tiny_lm)
    z = sae.encode(x)
    found = inspect(join("tiny", tiny_lm, sae), TEXT)
    assert len(found["per_token"]) == len(found["tokens"]) == len(x)
    for token, pairs in enumerate(found["per_token"]):
        if special[token]:
            assert pairs == []
            continue
        expected = z[token].topk(8).values
        assert [act for _, act in pairs] == pytest.approx(expected[expected > 0].tolist(), rel=1e-4)
        assert all(
            act == pytest.approx(float(z[token, feature]), rel=1e-4) for feature, act in pairs
        )


def test_outliers_are_flagged_and_silent(tiny_lm):
    x, special = activations(tiny_lm)
    limit = float(x.norm(dim=1).median())
    found = inspect(join("tiny", tiny_lm, tiny_sae(outlier_norm=limit)), TEXT)
    assert found["outlier"] == ((x.norm(dim=1) > limit) & ~special).tolist()
    assert any(found["outlier"])
    for token, outlier in enumerate(found["outlier"]):
        if outlier:
            assert found["per_token"][token] == []
            assert all(row["acts"][token] == 0 for row in found["features"])


def test_more_features_than_fire_are_not_made_up(tiny_lm):
    found = inspect(join("tiny", tiny_lm, tiny_sae()), "Granite", top=LATENTS * 2)
    assert 0 < len(found["features"]) < LATENTS
    assert all(row["max_act"] > 0 for row in found["features"])


def test_a_long_text_is_cut_to_the_context(tiny_lm):
    found = inspect(join("tiny", tiny_lm, tiny_sae()), TEXT * 30)
    assert len(found["tokens"]) == tiny_lm.model.config.max_position_embeddings


def test_an_sae_of_another_width_does_not_join(tiny_lm):
    from mi_crow.mechanistic.sae import SaeMetadata, TopKSae

    sae = TopKSae(16, 8, k=2)
    sae.metadata = SaeMetadata(layer=LAYER)
    with pytest.raises(UserError, match=r"reads 8 inputs, layer 'model\.layers\.1' has width 32"):
        join("narrow", tiny_lm, sae)


def test_the_statistics_are_those_of_the_ordinary_tokens(tiny_lm):
    x, special = activations(tiny_lm)
    rows = x[~special]
    found = layer_statistics(tiny_lm, "resid_post.1", TEXT)
    assert found["layer"] == LAYER
    assert found["shape"] == [1, *x.shape]
    assert found["tokens"] == len(rows)
    assert found["mean_norm"] == pytest.approx(float(rows.norm(dim=1).mean()), rel=1e-5)
    assert found["max_norm"] == pytest.approx(float(rows.norm(dim=1).max()), rel=1e-5)
    assert found["median_norm"] == pytest.approx(float(rows.norm(dim=1).median()), rel=1e-5)
    assert found["std"] == pytest.approx(float(rows.std(unbiased=False)), rel=1e-5)


@pytest.mark.parametrize(
    "layer", ["model.layers.0.self_attn", "model.layers.2.mlp.up_proj", "lm_head"]
)
def test_any_module_that_gives_a_tensor_has_statistics(tiny_lm, layer):
    found = layer_statistics(tiny_lm, layer, TEXT)
    assert found["tokens"] == found["shape"][1] - 1
    assert found["max_norm"] >= found["median_norm"] > 0


def test_what_cannot_be_measured_says_so(tiny_lm):
    with pytest.raises(UserError, match="empty"):
        layer_statistics(tiny_lm, LAYER, " \n")
    with pytest.raises(UserError, match="empty"):
        inspect(join("tiny", tiny_lm, tiny_sae()), "")
    with pytest.raises(NotFoundError, match=r"model\.layers\.9"):
        layer_statistics(tiny_lm, "model.layers.9", TEXT)
    with pytest.raises(MiCrowError, match="does not run"):
        layer_statistics(tiny_lm, "model.layers", TEXT)
    assert torch.is_inference_mode_enabled() is False
