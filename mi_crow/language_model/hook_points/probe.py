"""A forward pass of a few tokens, to measure and inspect a model."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import torch
from torch import Tensor

from mi_crow.language_model.context import HookedModel

_TEXT = "The ship leaves the harbour at dawn, and two gulls follow it."
_BATCH, _LENGTH = 2, 7


class StopPass(BaseException):
    """Ends a forward pass from inside; a BaseException, so that no model swallows it."""


def probe_ids(lm: HookedModel) -> Tensor:
    """Token ids [batch, length] of plain text on the model's device; the rows differ."""
    length = min(_LENGTH, context_of(lm.model.config) or _LENGTH)
    ids = _text_ids(lm)
    while len(ids) < _BATCH * length:
        ids = [*ids, *ids]
    rows = [ids[start * length : (start + 1) * length] for start in range(_BATCH)]
    return torch.tensor(rows, dtype=torch.int64, device=lm.device)


def another_id(lm: HookedModel, ids: Tensor) -> int:
    """A token id of plain text that is not among `ids`, if there is one."""
    there = set(ids.flatten().tolist())
    known = [*_text_ids(lm), *range(_vocabulary(lm))]
    return next((one for one in known if one not in there), 0)


def context_of(config: Any) -> int | None:
    """How many positions a model has, if its configuration says so."""
    text = config.get_text_config() if hasattr(config, "get_text_config") else config
    found = getattr(text, "max_position_embeddings", None)
    return found if isinstance(found, int) and found > 0 else None


@contextmanager
def unnoticed(lm: HookedModel) -> Iterator[None]:
    """Inside the block no registered hook runs, not even a detector, and a model in training mode
    has no dropout."""
    before, lm.layers.resting = lm.layers.resting, True
    training = [module for module in lm.model.modules() if module.training]
    for module in training:
        module.training = False
    try:
        with torch.inference_mode():
            yield
    finally:
        lm.layers.resting = before
        for module in training:
            module.training = True


def run_probe(lm: HookedModel, ids: Tensor) -> None:
    """One pass, in which hooks may raise StopPass."""
    with unnoticed(lm), suppress(StopPass):
        lm.model(input_ids=ids, use_cache=False)


def _text_ids(lm: HookedModel) -> list[int]:
    """Ids of ordinary words: padding or placeholders of images would change the pass."""
    vocabulary = _vocabulary(lm)
    try:
        special = set(lm.tokenizer.all_special_ids)
        ids = lm.tokenizer(_TEXT, add_special_tokens=False)["input_ids"]
        found = [one for one in ids if one < vocabulary and one not in special]
    except Exception:  # any callable may serve as a tokenizer
        found = []
    few = min(vocabulary, 64)
    return found if len(set(found)) > 1 else list(range(vocabulary - few, vocabulary))


def _vocabulary(lm: HookedModel) -> int:
    weight = getattr(lm.model.get_input_embeddings(), "weight", None)
    return int(weight.shape[0]) if isinstance(weight, Tensor) else 64
