"""One code for every architecture: Llama, GPT-2, GPT-NeoX, Gemma, Qwen and some others."""

from typing import Any

import pytest
import torch

from mi_crow.hooks import FunctionController, LayerActivationDetector
from mi_crow.language_model import LanguageModel
from mi_crow.language_model.capture_pass import run_to
from mi_crow.language_model.tokenize import encode_batch
from tests.helpers.tiny_models import TEXTS, build_model, build_tokenizer

BLOCKS = {
    "llama": "model.layers",
    "gpt2": "transformer.h",
    "gpt_neox": "gpt_neox.layers",
    "gemma": "model.layers",
    "gemma2": "model.layers",
    "gemma3_text": "model.layers",
    "qwen2": "model.layers",
    "qwen3": "model.layers",
    "opt": "model.decoder.layers",
    "mixtral": "model.layers",
}


USUAL = ("llama", "gpt2", "gpt_neox", "gemma2", "mixtral")


@pytest.fixture(
    scope="module",
    params=[
        pytest.param(name, marks=[] if name in USUAL else [pytest.mark.slow]) for name in BLOCKS
    ],
)
def lm(request: pytest.FixtureRequest) -> LanguageModel:
    tokenizer = build_tokenizer(bos=request.param != "qwen2", pad=request.param != "gpt2")
    model = build_model(request.param, len(tokenizer), tokenizer.eos_token_id)
    return LanguageModel.from_local_torch(model, tokenizer)


def hidden_states(lm: LanguageModel, texts: list[str]) -> tuple[Any, Any]:
    encoding = encode_batch(lm.tokenizer, texts)
    with torch.no_grad():
        output = lm.model(**encoding.as_inputs(), output_hidden_states=True)
    return encoding, output


def test_blocks_are_found_in_execution_order(
    lm: LanguageModel, request: pytest.FixtureRequest
) -> None:
    prefix = BLOCKS[request.node.callspec.params["lm"]]
    assert lm.layers.blocks() == [f"{prefix}.{number}" for number in range(3)]
    assert set(lm.layers.blocks()) <= set(lm.layers.list_layers())
    assert {row["point"] for row in lm.layers.describe()} >= {"resid_pre.0", "resid_post.2"}
    assert all(row["shape"] == [32] for row in lm.layers.describe())


def test_hook_points_are_the_models_own_hidden_states(lm: LanguageModel) -> None:
    encoding, output = hidden_states(lm, TEXTS[:3])
    points = [lm.layers.resolve(name) for name in ("resid_post.1", "resid_pre.0", "resid_pre.2")]
    found = run_to(lm, points, encoding.input_ids, encoding.attention_mask)
    for point, layer in zip(points, (2, 0, 2), strict=True):
        torch.testing.assert_close(found[point], output.hidden_states[layer])


def test_padding_changes_no_kept_activation(lm: LanguageModel) -> None:
    point = lm.layers.resolve(1)
    batch = encode_batch(lm.tokenizer, [TEXTS[0], "The ferry"])
    alone = encode_batch(lm.tokenizer, ["The ferry"])
    padded = run_to(lm, [point], batch.input_ids, batch.attention_mask)[point][1]
    plain = run_to(lm, [point], alone.input_ids, alone.attention_mask)[point][0]
    torch.testing.assert_close(padded[: len(plain)], plain, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("hook_type", ["forward", "pre_forward"])
def test_controllers_change_the_output_and_leave_no_trace(
    lm: LanguageModel, hook_type: Any
) -> None:
    before, _ = lm.inference.execute_inference(TEXTS[:2])
    controller = FunctionController(1, lambda x: x * 0.5, hook_type)
    hook_id = lm.layers.register_hook(1, controller)
    changed, _ = lm.inference.execute_inference(TEXTS[:2])
    plain, _ = lm.inference.execute_inference(TEXTS[:2], with_controllers=False)
    lm.layers.unregister_hook(hook_id)
    after, _ = lm.inference.execute_inference(TEXTS[:2])
    assert not torch.allclose(changed.logits, before.logits)
    torch.testing.assert_close(plain.logits, before.logits, rtol=0, atol=0)
    torch.testing.assert_close(after.logits, before.logits, rtol=0, atol=0)
    assert lm.layers.get_hooks() == []


@pytest.mark.slow
def test_a_pre_forward_hook_and_the_block_before_mean_the_same(lm: LanguageModel) -> None:
    with FunctionController("resid_pre.2", torch.tanh, "pre_forward").on(lm):
        at_input, _ = lm.inference.execute_inference(TEXTS[:2])
    with FunctionController("resid_post.1", torch.tanh).on(lm):
        at_output, _ = lm.inference.execute_inference(TEXTS[:2])
    torch.testing.assert_close(at_input.logits, at_output.logits)


@pytest.mark.slow
def test_an_unchanged_layer_changes_no_logit(lm: LanguageModel) -> None:
    points = [row["point"] for row in lm.layers.describe() if row["point"].endswith(".1")]
    assert {"attn_out.1", "resid_post.1"} <= set(points)
    plain, _ = lm.inference.execute_inference(TEXTS[:2])
    for point in points:
        with FunctionController(point, lambda x: x * 1.0).on(lm):
            same, _ = lm.inference.execute_inference(TEXTS[:2])
        with FunctionController(point, torch.zeros_like).on(lm):
            changed, _ = lm.inference.execute_inference(TEXTS[:2])
        torch.testing.assert_close(same.logits, plain.logits, rtol=0, atol=0)
        assert not torch.equal(changed.logits, plain.logits)


def test_detectors_see_what_the_layer_gives(lm: LanguageModel) -> None:
    encoding, output = hidden_states(lm, TEXTS[:2])
    detector = LayerActivationDetector(0)
    with detector.on(lm):
        lm.inference.execute_inference(TEXTS[:2])
    real = encoding.attention_mask.bool()  # what padding gives depends on the id it has
    captured = detector.get_captured()
    assert captured is not None
    torch.testing.assert_close(captured[real], output.hidden_states[1][real])


@pytest.mark.slow
@pytest.mark.parametrize("temperature", [0.0, 0.8])
def test_cached_and_uncached_generation_agree(lm: LanguageModel, temperature: float) -> None:
    settings: dict[str, Any] = {"max_new_tokens": 10, "temperature": temperature, "n": 3}
    with FunctionController(1, lambda x: x * 1.1).on(lm):
        cached = lm.generate("The ferry", top_p=0.9, **settings)
        uncached = lm.generate("The ferry", top_p=0.9, use_cache=False, **settings)
    assert cached.token_ids == uncached.token_ids
    assert any(cached.token_ids)


def test_the_unembedding_gives_the_models_logits(lm: LanguageModel) -> None:
    encoding, output = hidden_states(lm, TEXTS[:1])
    norm, head = lm.layers.unembedding()
    point = lm.layers.resolve(2)
    last = run_to(lm, [point], encoding.input_ids, encoding.attention_mask)[point]
    assert norm is not None
    with torch.no_grad():
        logits = head(norm(last))
    ranks = logits.argsort(-1), output.logits.argsort(-1)  # Gemma 2 caps its logits on top
    assert (ranks[0] == ranks[1]).float().mean() > 0.99
