"""Generation says the same with and without a cache, whatever kind of cache a model has."""

from typing import Any

import pytest
import torch

from mi_crow.language_model import LanguageModel
from tests.helpers.cache_models import KINDS, build_kind
from tests.helpers.tiny_models import build_tokenizer

# Keys and values, sliding ones, states, states beside keys and values, states of a model's own.
_EACH_SORT = ("mamba", "bamba", "falcon_h1", "minimax", "rwkv")
_PROMPT = "The ferry left the harbour before dawn."


def written(lm: LanguageModel, **settings: Any) -> tuple[list[list[int]], torch.Tensor]:
    """Token ids of the continuations, and the logits [steps, vocabulary] of the last of them."""
    steps: list[torch.Tensor] = []

    def keep(_: Any, __: Any, output: Any) -> None:
        steps.append(output.logits[-1, -1].clone())

    handle = lm.model.register_forward_hook(keep)
    try:
        made = lm.generate(_PROMPT, max_new_tokens=16, temperature=0, **settings)
    finally:
        handle.remove()
    return made.token_ids, torch.stack(steps[-16:])


def check_kind(kind: str) -> None:
    tokenizer = build_tokenizer(vocabulary=300)
    lm = LanguageModel.from_local_torch(build_kind(kind, len(tokenizer)), tokenizer)
    alone, logits = written(lm, use_cache=False)
    for n, use_cache in ((1, True), (2, False), (2, True)):
        ids, found = written(lm, n=n, use_cache=use_cache)
        assert ids == alone * n
        torch.testing.assert_close(found, logits, rtol=1e-3, atol=5e-4 * float(logits.abs().max()))


@pytest.mark.slow
@pytest.mark.parametrize("kind", _EACH_SORT)
def test_cached_and_uncached_generation_agree(kind: str) -> None:
    check_kind(kind)


@pytest.mark.slow
@pytest.mark.parametrize("kind", sorted(set(KINDS) - set(_EACH_SORT)))
def test_cached_and_uncached_generation_agree_for_every_other_kind(kind: str) -> None:
    check_kind(kind)
