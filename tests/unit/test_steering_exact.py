"""Steering is exact on every kind of model: nothing but what is asked for changes, with a cache or
without, in a padded batch or alone, and nothing is left behind."""

import pytest
import torch
from torch import Tensor

from mi_crow.language_model import LanguageModel
from mi_crow.language_model.context import ForwardContext
from mi_crow.mechanistic.steering.interventions import Intervention, parse_intervention
from mi_crow.mechanistic.steering.steer import SaeAt, SteeringParts, steering_with
from mi_crow.mechanistic.vectors.stored import SteeringVector
from tests.helpers.architectures import tiny
from tests.helpers.steering_fixture import TEXT, WIDTH, logits, tiny_sae

ARCHITECTURES = ["llama", "gpt2", "gemma2", "mamba"]
SLOW = ["gpt_neox", "gemma3_text", "qwen3", "olmo2"]
NOTHING = ("3=x1", "3+7=+0", "vector:v=project 1", "neuron:resid_post.1/3=+0")
STACK = (
    "3+0.5*7=swap 2 against 9+11@feedback 0.9 0.5",
    "first/5=floor 0.4norm on last 2?12>0",
    "vector:v=+0.3norm@decay 4",
    "neuron:resid_post.2/5=x0 on generated",
    "layer:resid_post.2=x1.1",
)


def parts_of(lm: LanguageModel) -> SteeringParts:
    maxima = {3: 4.0, 7: 4.0}
    vector = SteeringVector("v", {"resid_post.1": torch.linspace(-1, 1, WIDTH)})
    first = SaeAt(tiny_sae(), lm.layers.resolve("resid_post.1"))
    own = SaeAt(tiny_sae(), lm.layers.resolve("resid_post.1"), None, maxima)
    return SteeringParts(own, "own", {"first": first}, {"v": vector})


def stack_of(words: tuple[str, ...]) -> list[Intervention]:
    return [parse_intervention(one) for one in words]


@pytest.mark.parametrize(
    "architecture", [*ARCHITECTURES, *(pytest.param(one, marks=pytest.mark.slow) for one in SLOW)]
)
def test_steering_is_exact(architecture: str) -> None:
    lm = tiny(architecture)
    parts, plain = parts_of(lm), logits(lm)
    written = lm.generate(TEXT, max_new_tokens=6, temperature=0).token_ids
    for words in ((), NOTHING):
        with steering_with(lm, parts, stack_of(words)):
            assert torch.equal(logits(lm), plain)
            assert lm.generate(TEXT, max_new_tokens=6, temperature=0).token_ids == written
    with steering_with(lm, parts, stack_of(STACK)):
        assert not torch.allclose(logits(lm), plain, atol=1e-3)
        cached, uncached = written_logits(lm, use_cache=True), written_logits(lm, use_cache=False)
        torch.testing.assert_close(cached, uncached, atol=1e-4, rtol=1e-4)
        alone, padded = last_logits(lm, 0), last_logits(lm, 5)
        torch.testing.assert_close(padded, alone, atol=1e-4, rtol=1e-4)
    assert torch.equal(logits(lm), plain)
    for error in (ZeroDivisionError, KeyboardInterrupt):
        with pytest.raises(error), steering_with(lm, parts, stack_of(STACK)):
            lm.generate(TEXT, max_new_tokens=4, should_stop=lambda error=error: _raise(error))
        assert lm.layers.get_hooks() == []
        assert torch.equal(logits(lm), plain)


def written_logits(lm: LanguageModel, *, use_cache: bool) -> Tensor:
    """What eight new tokens were chosen from: [tokens, vocabulary]."""
    rows: list[Tensor] = []
    head = lm.model.get_output_embeddings()
    handle = head.register_forward_hook(lambda _, __, out: rows.append(out[0, -1].clone()))
    try:
        lm.generate(TEXT, max_new_tokens=8, temperature=0, use_cache=use_cache)
    finally:
        handle.remove()
    return torch.stack(rows)


def _raise(error: type[BaseException]) -> bool:
    raise error


def last_logits(lm: LanguageModel, padding: int) -> Tensor:
    """The logits after a prompt that is padded on the left, beside a longer text."""
    ids = lm.tokenize([TEXT])[0]
    row = torch.tensor([[lm.padding_id] * padding + ids])
    mask = torch.tensor([[0] * padding + [1] * len(ids)])
    special = (mask == 0) | torch.isin(row, torch.tensor(sorted(lm.tokenizer.all_special_ids)))
    context = ForwardContext(row, mask, special, 0, padding + len(ids))
    inputs = {"position_ids": (mask.cumsum(1) - 1).clamp_min(0)} if _takes_positions(lm) else {}
    with lm.running(context), torch.inference_mode():
        output = lm.model(input_ids=row, attention_mask=mask, use_cache=False, **inputs)
    return output.logits[0, -1]


def _takes_positions(lm: LanguageModel) -> bool:
    from inspect import signature

    return "position_ids" in signature(lm.model.forward).parameters
