"""`sae.concepts` on an attached SAE: what is tracked, what is manipulated, what is left alone."""

import pytest
import torch

from mi_crow.errors import UserError
from tests.helpers.steering_fixture import LATENTS, LAYER, TEXT, activations, logits, tiny_sae
from tests.helpers.tiny_models import TEXTS


@pytest.fixture
def attached(tiny_lm):
    """The model and its SAE, attached for one test."""
    sae = tiny_sae()
    tiny_lm.attach_sae(sae, LAYER)
    yield tiny_lm, sae
    tiny_lm.detach_sae()


def strongest(lm, sae, text: str) -> torch.Tensor:
    """Each latent's greatest activation on the ordinary tokens of a text, densely."""
    x, special = activations(lm, text)
    return sae.encode(x[~special]).amax(0)


def test_top_texts_are_the_texts_of_the_greatest_activations(attached):
    lm, sae = attached
    sae.concepts.enable_text_tracking(top_k=3)
    for start in range(0, len(TEXTS), 5):
        lm.inference.execute_inference(TEXTS[start : start + 5])
    table = torch.stack([strongest(lm, sae, text) for text in TEXTS])
    found = sae.concepts.get_top_texts()
    assert set(found) == set((table.amax(0) > 0).nonzero()[:, 0].tolist())
    for latent, pairs in found.items():
        # Texts that begin alike tie, so texts are checked by their own activation.
        expected = [value for value in table[:, latent].topk(3).values.tolist() if value > 0]
        assert [activation for _, activation in pairs] == pytest.approx(expected, rel=1e-4)
        for text, activation in pairs:
            own = float(table[TEXTS.index(text), latent])
            assert activation == pytest.approx(own, rel=1e-4)


def test_the_plain_model_is_tracked_too_and_manipulation_does_not_change_what_is_tracked(attached):
    lm, sae = attached
    seen = []
    for scale, with_controllers in ((1.0, True), (1.0, False), (0.0, True)):
        sae.concepts.enable_text_tracking(top_k=2)
        for latent in range(LATENTS):
            sae.concepts.manipulate_concept(latent, scale)
        lm.inference.execute_inference(TEXTS[:4], with_controllers=with_controllers)
        seen.append(sae.concepts.get_top_texts())
    assert seen[0] == seen[1] == seen[2] != {}


def test_generation_and_saving_activations_are_not_texts(attached):
    lm, sae = attached
    sae.concepts.enable_text_tracking()
    lm.inference.execute_inference([TEXT])
    before = sae.concepts.get_top_texts()
    lm.generate("The ferry", max_new_tokens=4)
    activations(lm, TEXTS[3])
    lm.activations.save(LAYER, TEXTS, batch_size=1)
    assert sae.concepts.get_top_texts() == before


def test_tracking_starts_anew_and_stops(attached):
    lm, sae = attached
    with pytest.raises(UserError, match="not tracked"):
        sae.concepts.get_top_texts()
    sae.concepts.enable_text_tracking()
    lm.inference.execute_inference([TEXT])
    sae.concepts.enable_text_tracking()
    assert sae.concepts.get_top_texts() == {}
    sae.concepts.disable_text_tracking()
    with pytest.raises(UserError, match="not tracked"):
        sae.concepts.get_top_texts()
    with pytest.raises(UserError, match="top_k"):
        sae.concepts.enable_text_tracking(top_k=0)


def test_outliers_and_special_tokens_make_no_top_text(tiny_lm):
    x, special = activations(tiny_lm)
    limit = float(x.norm(dim=1).median())
    sae = tiny_sae(outlier_norm=limit)
    tiny_lm.attach_sae(sae, LAYER)
    sae.concepts.enable_text_tracking()
    tiny_lm.inference.execute_inference([TEXT])
    tiny_lm.detach_sae()
    kept = ~special & (x.norm(dim=1) <= limit)
    expected = sae.encode(x[kept]).amax(0)
    found = sae.concepts.get_top_texts()
    assert set(found) == set((expected > 0).nonzero()[:, 0].tolist())
    for latent, [(_, activation)] in found.items():
        assert activation == pytest.approx(float(expected[latent]), rel=1e-4)


def test_nothing_manipulated_changes_no_logit(attached):
    lm, sae = attached
    sae.concepts.enable_text_tracking()
    with_sae = logits(lm)
    sae.concepts.manipulate_concept(3, 1.0)
    assert torch.equal(logits(lm), with_sae)
    lm.detach_sae()
    assert torch.equal(logits(lm), with_sae)


def test_a_manipulated_latent_moves_the_layer_and_reset_takes_it_back(attached):
    lm, sae = attached
    plain = logits(lm)
    latent = int(strongest(lm, sae, TEXT).argmax())
    sae.concepts.manipulate_concept(latent, 5.0)
    assert sae.concepts.get_manipulation_config() == {latent: 5.0}
    assert not torch.equal(logits(lm), plain)
    assert torch.equal(logits(lm, with_controllers=False), plain)
    sae.concepts.reset_manipulations()
    assert sae.concepts.get_manipulation_config() == {}
    assert torch.equal(logits(lm), plain)


@pytest.mark.parametrize(("latent", "scale"), [(LATENTS, 1.0), (-1, 1.0), (0, float("nan"))])
def test_a_manipulation_that_makes_no_sense_is_refused(latent, scale):
    concepts = tiny_sae().concepts
    with pytest.raises(UserError):
        concepts.manipulate_concept(latent, scale)
    assert concepts.get_manipulation_config() == {}


def test_an_sae_attaches_to_the_layer_it_names_and_only_one_at_a_time(tiny_lm):
    sae = tiny_sae()
    attached = sae.attach(tiny_lm)
    assert attached.layer == LAYER
    assert {hook.layer for hook in tiny_lm.layers.get_hooks()} == {LAYER}
    attached.detach()
    assert tiny_lm.layers.get_hooks() == []
    tiny_lm.attach_sae(sae, "resid_post.0")
    with pytest.raises(UserError, match="already attached"):
        tiny_lm.attach_sae(sae, LAYER)
    tiny_lm.detach_sae()
    tiny_lm.attach_sae(sae, LAYER)
    tiny_lm.detach_sae()
    assert tiny_lm.layers.get_hooks() == []
