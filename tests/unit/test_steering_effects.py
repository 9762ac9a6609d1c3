"""Continuations of several prompts, and reading them again, against a model run token by token."""

import pytest
import torch

from mi_crow.errors import UserError
from mi_crow.mechanistic.steering.effects import Written, teacher_forced, write_now
from mi_crow.mechanistic.steering.interventions import Intervention
from mi_crow.mechanistic.steering.steer import steering
from tests.helpers.steering_fixture import LAYER, tiny_sae

PROMPTS = ("The ferry", "Knead the dough and")
PUSH = Intervention("feature:3", "add", 15.0)


def write(lm, *stack: Intervention, n: int = 5, prompts=PROMPTS, seed: int = 0) -> Written:
    with steering(lm, tiny_sae(), LAYER, stack, {}):
        return write_now(lm, prompts, n=n, max_new_tokens=10, seed=seed)


def log_probabilities(lm, prompt_ids: list[int], ids: list[int]) -> list[torch.Tensor]:
    """What the model says before each token of a continuation, one pass a token."""
    from mi_crow.language_model.tokenize import pad

    rows = []
    for end in range(len(ids)):
        output = lm.inference.run(pad([[*prompt_ids, *ids[:end]]], lm.tokenizer))
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


@pytest.mark.parametrize("stack", [(), (PUSH,)])
def test_reading_again_says_what_a_pass_a_token_says(tiny_lm, stack):
    generation = write(tiny_lm, PUSH).generations[0]
    with steering(tiny_lm, tiny_sae(), LAYER, stack, {}):
        [(log_p, targets, real)] = teacher_forced(tiny_lm, generation)
        assert real.sum(dim=1).tolist() == [len(ids) for ids in generation.token_ids]
        for row, ids in enumerate(generation.token_ids):
            assert targets[row, : len(ids)].tolist() == ids
            expected = torch.stack(log_probabilities(tiny_lm, generation.prompt_ids, ids))
            torch.testing.assert_close(log_p[row, : len(ids)], expected, rtol=1e-4, atol=1e-4)
        if stack:
            with tiny_lm.plain():
                [(plain, _, _)] = teacher_forced(tiny_lm, generation)
            assert not torch.allclose(plain, log_p, atol=0.01)
