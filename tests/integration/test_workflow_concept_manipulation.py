"""The fourth workflow, as a user's script: turn a feature up and down, and compare."""

from pathlib import Path

import pytest
import torch

from mi_crow.datasets import TextDataset
from mi_crow.errors import UserError
from mi_crow.hooks import LayerActivationDetector
from mi_crow.language_model import LanguageModel
from mi_crow.mechanistic.sae import TopKSae, load_sae
from sample_data import corpus_path

LAYER = "resid_post.2"


def test_a_feature_is_turned_up_and_down_and_left_alone(sample_sae_dir: Path) -> None:
    lm = LanguageModel.from_huggingface("sample", device="cpu")
    sae = load_sae(sample_sae_dir)
    texts = TextDataset.from_local(corpus_path()).random_sample(6, seed=5).texts
    plain, _ = lm.inference.execute_inference(texts)

    # Attached and not manipulated, it changes no logit: not by its reconstruction error either.
    lm.attach_sae(sae, LAYER)
    attached, _ = lm.inference.execute_inference(texts)
    assert torch.equal(attached.logits, plain.logits)

    sae.concepts.enable_text_tracking(top_k=1)
    lm.inference.execute_inference(texts)
    top_texts = sae.concepts.get_top_texts()
    neuron = max(top_texts, key=lambda neuron: top_texts[neuron][0][1])

    sae.concepts.manipulate_concept(neuron_idx=neuron, scale=1.0)
    same, _ = lm.inference.execute_inference(texts)
    assert torch.equal(same.logits, plain.logits)

    moves = []
    for scale in (0.5, 0.0, 4.0):
        sae.concepts.manipulate_concept(neuron_idx=neuron, scale=scale)
        assert sae.concepts.get_manipulation_config() == {neuron: scale}
        manipulated, _ = lm.inference.execute_inference(texts, with_controllers=True)
        original, _ = lm.inference.execute_inference(texts, with_controllers=False)
        assert torch.equal(original.logits, plain.logits)
        moves.append(float((manipulated.logits - original.logits).abs().mean()))
    assert 0 < moves[0] < moves[1] < moves[2]  # |1/2 - 1| < |0 - 1| < |4 - 1|

    sae.concepts.reset_manipulations()
    reset, _ = lm.inference.execute_inference(texts)
    assert torch.equal(reset.logits, plain.logits)
    lm.detach_sae()
    assert lm.layers.get_hooks() == []


def test_generation_with_and_without_the_manipulation(sample_sae_dir: Path) -> None:
    lm = LanguageModel.from_huggingface("sample", device="cpu")
    sae = load_sae(sample_sae_dir)
    prompt = "The old harbour was quiet this morning, and"
    before = lm.generate(prompt, max_new_tokens=16, seed=1)
    lm.attach_sae(sae, LAYER)
    assert lm.generate(prompt, max_new_tokens=16, seed=1).text == before.text
    sae.concepts.enable_text_tracking(top_k=1)
    lm.inference.execute_inference([prompt])
    for neuron in sae.concepts.get_top_texts():  # everything that fires on the prompt
        sae.concepts.manipulate_concept(neuron, -1.0)
    turned = lm.generate(prompt, max_new_tokens=16, seed=1)
    plain = lm.generate(prompt, max_new_tokens=16, seed=1, with_controllers=False)
    assert plain.text == before.text
    assert turned.text != before.text
    lm.detach_sae()


def test_a_manipulation_moves_the_layer_along_the_features_direction_only(
    sample_sae_dir: Path,
) -> None:
    """x + (scale - 1) z W_dec[feature], z the latent of the unchanged x; nothing else moves."""
    lm = LanguageModel.from_huggingface("sample", device="cpu")
    sae = load_sae(sample_sae_dir)
    texts = TextDataset.from_local(corpus_path()).random_sample(1, seed=8).texts
    with LayerActivationDetector(LAYER).on(lm) as before:
        lm.inference.execute_inference(texts)
    x = before.get_captured()
    assert x is not None
    z = sae.encode(x).detach()
    neuron = int(z[0, 1:].amax(0).argmax())  # the first token is the special one
    lm.attach_sae(sae, LAYER)
    sae.concepts.manipulate_concept(neuron, 3.0)
    with LayerActivationDetector(LAYER).on(lm) as after:  # hangs behind the SAE
        lm.inference.execute_inference(texts)
    lm.detach_sae()
    steered = after.get_captured()
    assert steered is not None
    expected = 2.0 * z[..., neuron, None] * sae.decoder_rows[neuron].detach()
    expected[:, 0] = 0.0  # special tokens are left alone
    assert expected.abs().max() > 0
    torch.testing.assert_close(steered - x, expected, atol=1e-4, rtol=1e-3)


def test_an_sae_of_another_width_is_refused(sample_sae_dir: Path) -> None:
    lm = LanguageModel.from_huggingface("sample", device="cpu")
    with pytest.raises(UserError, match="the SAE reads 7 inputs"):
        lm.attach_sae(TopKSae(16, 7, k=2), LAYER)
    assert lm.layers.get_hooks() == []
