"""What steering costs and does: perplexity and KL against a model run token by token."""

import math

import pytest
import torch

from mi_crow.errors import UserError
from mi_crow.mechanistic.steering.effects import (
    Written,
    divergence,
    perplexity,
    write_continuations,
)
from mi_crow.mechanistic.steering.interventions import Intervention
from mi_crow.mechanistic.steering.steer import steering
from tests.helpers.steering_fixture import LAYER, tiny_sae

PROMPTS = ("The ferry", "Knead the dough and")
PUSH = Intervention("feature:3", "add", 15.0)


def write(lm, *stack: Intervention, n: int = 5, prompts=PROMPTS, seed: int = 0) -> Written:
    return write_continuations(
        lm, tiny_sae(), LAYER, prompts, stack, {}, n=n, max_new_tokens=10, seed=seed
    )


def log_probabilities(lm, prompt_ids: list[int], ids: list[int]) -> list[torch.Tensor]:
    """What the model says before each token of a continuation, one pass a token."""
    rows = []
    for end in range(len(ids)):
        with torch.inference_mode():
            output = lm.model(input_ids=torch.tensor([[*prompt_ids, *ids[:end]]]))
        rows.append(output.logits[0, -1].log_softmax(-1))
    return rows


def test_continuations_are_spread_over_the_prompts(tiny_lm):
    written = write(tiny_lm, n=5)
    assert [len(one.texts) for one in written.generations] == [3, 2]
    assert len(written.texts) == 5
    assert len(set(written.texts)) > 1
    assert written == write(tiny_lm, n=5)
    assert written != write(tiny_lm, n=5, seed=1)
    assert len(write(tiny_lm, n=1).texts) == 1


def test_without_prompts_nothing_is_written(tiny_lm):
    with pytest.raises(UserError, match="no prompt"):
        write(tiny_lm, prompts=())


def test_perplexity_is_that_of_the_continuations_alone_under_the_plain_model(tiny_lm):
    written = write(tiny_lm, PUSH)
    nats, tokens = 0.0, 0
    for generation in written.generations:
        for ids in generation.token_ids:
            rows = log_probabilities(tiny_lm, generation.prompt_ids, ids)
            nats -= sum(float(row[token]) for row, token in zip(rows, ids, strict=True))
            tokens += len(ids)
    expected = math.exp(nats / tokens)
    assert perplexity(tiny_lm, written) == pytest.approx(expected, rel=1e-4)
    with steering(tiny_lm, tiny_sae(), LAYER, [PUSH]):
        assert perplexity(tiny_lm, written) == pytest.approx(expected, rel=1e-4)


def test_steered_text_is_less_likely_under_the_plain_model(tiny_lm):
    plain, pushed = write(tiny_lm, n=16), write(tiny_lm, PUSH, n=16)
    assert perplexity(tiny_lm, pushed) > 1.2 * perplexity(tiny_lm, plain)


@pytest.mark.parametrize("scope", ["all", "generated"])
def test_divergence_is_the_kl_from_the_plain_to_the_steered_model(tiny_lm, scope):
    push = Intervention("feature:3", "add", 15.0, scope=scope)
    with steering(tiny_lm, tiny_sae(), LAYER, [push]):
        generation = tiny_lm.generate(PROMPTS[0], max_new_tokens=6, seed=2)
        found = divergence(tiny_lm, generation)
        if scope == "all":  # outside a generation nobody knows where the prompt ends
            (ids,) = generation.token_ids
            with tiny_lm.plain():
                plain = log_probabilities(tiny_lm, generation.prompt_ids, ids)
            steered = all_positions(tiny_lm, generation.prompt_ids, ids)
            kl = [float((p.exp() * (p - q)).sum()) for p, q in zip(plain, steered, strict=True)]
            assert found == pytest.approx(sum(kl) / len(kl), rel=1e-3)
    assert found > 0.01


def all_positions(lm, prompt_ids: list[int], ids: list[int]) -> list[torch.Tensor]:
    """As `log_probabilities`, where hooks know which tokens are special."""
    from mi_crow.language_model.tokenize import pad

    rows = []
    for end in range(len(ids)):
        output = lm.inference.run(pad([[*prompt_ids, *ids[:end]]], lm.tokenizer))
        rows.append(output.logits[0, -1].log_softmax(-1))
    return rows


def test_what_changes_nothing_diverges_by_nothing(tiny_lm):
    with steering(tiny_lm, tiny_sae(), LAYER, [Intervention("feature:3", "scale", 1.0)]):
        assert divergence(tiny_lm, tiny_lm.generate(PROMPTS[0], max_new_tokens=6)) == 0.0


def test_a_share_counts_what_the_judge_says(tiny_lm):
    written = write(tiny_lm, n=4)

    def judge(texts):
        return ["sea", "sea", "bread", "sea"][: len(texts)]

    assert written.share("sea", judge) == 0.75
    assert written.share("law", judge) == 0.0
    assert Written([]).share("sea", judge) == 0.0
