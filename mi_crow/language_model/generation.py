"""Sampling continuations: one batch, cached, seeded, streamed, stoppable between two tokens."""

import sys
from collections.abc import Callable
from dataclasses import dataclass
from inspect import signature
from typing import Any

import torch
from torch import Tensor

from mi_crow.bounds import COUNT, SEED, SIZE, TEMPERATURE, TOP_P
from mi_crow.errors import UserError
from mi_crow.language_model.base import CausalModel
from mi_crow.language_model.context import ForwardContext
from mi_crow.language_model.detokenize import Detokenizer, added_text
from mi_crow.language_model.tokenize import special_ids, special_mask, start_id

_NOT_A_TOKEN = -1
_COLDEST = 1e-6  # below, a division of logits overflows and the likeliest token is all there is


@dataclass(frozen=True)
class Settings:
    """How continuations are sampled."""

    max_new_tokens: int = 64
    temperature: float = 1.0  # 0 takes the likeliest token
    top_p: float = 1.0
    seed: int = 0
    n: int = 1
    use_cache: bool = True
    bos: str = "auto"  # a BOS token in front of the prompt: auto | yes | no

    def __post_init__(self) -> None:
        COUNT.check(self.max_new_tokens, "new tokens")
        TEMPERATURE.check(self.temperature, "temperature")
        TOP_P.check(self.top_p, "top-p")
        SEED.check(self.seed, "the seed")
        SIZE.check(self.n, "continuations")


@dataclass(frozen=True)
class Generation:
    """What was generated."""

    prompt: str
    prompt_ids: list[int]  # what the model read of it, special tokens included
    texts: list[str]  # the continuations, without prompt and special tokens
    token_ids: list[list[int]]  # of each continuation, its end token left out
    stopped: bool  # True when should_stop ended it
    shortened_to: int | None = None  # new tokens, where the model's context ended it before asked

    @property
    def text(self) -> str:
        """The first continuation."""
        return self.texts[0]


@torch.inference_mode()
def generate(
    lm: CausalModel,
    prompt: str,
    settings: Settings,
    on_token: Callable[[str], None] | None = None,
    should_stop: Callable[[], bool] | None = None,
) -> Generation:
    """Continues `prompt`; see LanguageModel.generate."""
    prompt_ids = _prompt_ids(lm, prompt, settings.bos)
    steps = _Steps(lm, prompt_ids, settings)
    generator = torch.Generator("cpu").manual_seed(settings.seed)
    ends = _end_ids(lm)
    detokenizer = Detokenizer(lm.tokenizer, prompt_ids)
    rows: list[list[int]] = [[] for _ in range(settings.n)]
    going = set(range(settings.n))
    stopped = False
    room = _room(lm, len(prompt_ids), settings.max_new_tokens)
    for _ in range(room):
        if should_stop is not None and should_stop():
            stopped = True
            break
        # Uniform numbers come from the CPU, so that a seed means the same on every device.
        uniform = torch.rand(settings.n, 1, generator=generator)
        logits = steps.logits()
        chosen = choose(logits, settings, uniform)
        # On the device, so that the one wait below tells this as well.
        chosen = chosen.masked_fill(logits.isnan().any(dim=-1), _NOT_A_TOKEN)
        for row, token in enumerate(chosen.tolist()):
            if token == _NOT_A_TOKEN:
                raise UserError(
                    "the model's predictions are not finite numbers",
                    hint="lower the interventions' values",
                )
            if row not in going:
                continue
            if token in ends:
                going.discard(row)
                continue
            rows[row].append(token)
            if row == 0 and on_token is not None and token not in steps.special:
                piece = detokenizer.push(token)
                if piece:
                    on_token(piece)
        if not going:
            break
        steps.append(chosen)
    if on_token is not None and (rest := detokenizer.flush()):
        on_token(rest)
    texts = [_continuation(lm, prompt_ids, row, steps.special) for row in rows]
    full = room < settings.max_new_tokens and any(len(row) == room for row in rows)
    return Generation(prompt, prompt_ids, texts, rows, stopped, room if full else None)


# What the argument and the output that carry what was read so far are called: one name now, others
# in earlier transformers 5 and in models of their own.
_CACHES = ("cache", "past_key_values", "cache_params", "state")


class _Steps:
    """The model's passes over growing continuations of one prompt.

    How much of them the cache holds is counted here: caches of states (Mamba and its kin, xLSTM,
    RWKV) have no length to ask for.
    """

    def __init__(self, lm: CausalModel, prompt_ids: list[int], settings: Settings) -> None:
        self._lm = lm
        self._n = settings.n
        self._prompt_length = len(prompt_ids)
        self._ids = torch.tensor([prompt_ids], dtype=torch.int64, device=lm.device)
        self._cache: Any = None
        self._read = 0  # tokens that the cache holds
        self.special = special_ids(lm.tokenizer)
        takes = signature(lm.model.forward).parameters
        self._cache_name = next((name for name in _CACHES if name in takes), None)
        self._use_cache = settings.use_cache and self._cache_name is not None
        self._counts_positions = "position_ids" in takes
        self._short = _short_context(lm)
        # The vocabulary's width at every prompt position is memory that nobody reads.
        self._options: dict[str, Any] = {"logits_to_keep": 1} if "logits_to_keep" in takes else {}

    def logits(self) -> Tensor:
        """Logits [n, vocabulary], fp32, after the last token of each continuation."""
        if self._read <= self._short < self._ids.shape[1]:
            self._cache, self._read = None, 0
        new = self._ids[:, self._read :]
        mask = torch.ones_like(self._ids)
        context = ForwardContext(
            new, mask, special_mask(new, self.special), self._read, self._prompt_length
        )
        # Without the mask, which masks nothing: some models take it to be as long as `new`.
        with self._lm.running(context):
            output = self._lm.model(input_ids=new, use_cache=self._use_cache, **self._inputs(new))
        logits = output.logits[:, -1].float()
        if self._use_cache:
            self._cache = getattr(output, self._cache_name or "", None)
            self._use_cache = self._cache is not None
            self._read = self._ids.shape[1] if self._use_cache else 0
        if len(logits) < self._n:
            self._spread()
        return logits.expand(self._n, -1)

    def append(self, chosen: Tensor) -> None:
        """Adds one token [n] to each continuation."""
        self._ids = torch.cat([self._ids, chosen[:, None]], dim=1)

    def _inputs(self, new: Tensor) -> dict[str, Any]:
        """What else the model is to know of the tokens `new`, which follow those in the cache."""
        inputs = dict(self._options)
        if self._cache is not None and self._cache_name is not None:
            inputs[self._cache_name] = self._cache
        if self._counts_positions:  # not every model finds out from its cache where it is
            positions = torch.arange(self._read, self._ids.shape[1], device=new.device)
            inputs["position_ids"] = positions.expand(len(new), -1)
        return inputs

    def _spread(self) -> None:
        """One prompt was read; from here on there are n continuations of it."""
        from transformers.cache_utils import Cache, DynamicLayer, DynamicSlidingWindowLayer

        self._ids = self._ids.expand(self._n, -1)
        if not isinstance(self._cache, Cache):
            # A state of the model's own: RWKV's is wrong for more than one row (transformers 5.24).
            self._cache, self._read, self._use_cache = None, 0, False
            return
        # By their very class: layers with states beside keys and values repeat only the latter.
        if all(
            type(one) in (DynamicLayer, DynamicSlidingWindowLayer) for one in self._cache.layers
        ):
            self._cache.batch_repeat_interleave(self._n)
        else:  # read the prompt again, n times
            self._cache, self._read = None, 0
            self.logits()


def choose(logits: Tensor, settings: Settings, uniform: Tensor) -> Tensor:
    """One token id [n] for each row of logits [n, vocabulary].

    Inverts the distribution at `uniform` [n, 1] in [0, 1): the same numbers give the same tokens on
    every device. With `top_p` the distribution is cut to its nucleus (Holtzman et al. 2020, eq. 2).
    """
    if settings.temperature < _COLDEST:
        return logits.argmax(dim=-1)
    probabilities = torch.softmax(logits / settings.temperature, dim=-1)
    order = None
    if settings.top_p < 1:
        probabilities, order = probabilities.sort(dim=-1, descending=True)
        # The smallest set whose mass reaches top_p: what stands before a token must lie below it.
        before = probabilities.cumsum(dim=-1) - probabilities
        probabilities = probabilities.masked_fill(before >= settings.top_p, 0.0)
    mass = probabilities.cumsum(dim=-1)
    # Just below 1, so that rounding cannot reach the end, where tokens of no mass may stand.
    target = uniform.to(logits.device) * (1 - 1e-6) * mass[:, -1:]
    place = torch.searchsorted(mass, target, right=True)
    return (place if order is None else order.gather(-1, place))[:, 0]


def _prompt_ids(lm: CausalModel, prompt: str, bos: str) -> list[int]:
    """Ids of the prompt, without an end token that the tokenizer may add."""
    ids = lm.tokenize([prompt], bos=bos)[0]
    end = lm.tokenizer.eos_token_id
    if len(ids) > 1 and end is not None and ids[-1] == end:
        ids = ids[:-1]
    if ids:
        return ids
    start = start_id(lm.tokenizer)
    if start is None:
        raise UserError("the prompt is empty", hint="this model has no start token: write one")
    return [start]


def _end_ids(lm: CausalModel) -> list[int]:
    """Ids that end a text."""
    configured = getattr(getattr(lm.model, "generation_config", None), "eos_token_id", None)
    ends = configured if isinstance(configured, list) else [configured]
    return sorted({int(i) for i in [*ends, lm.tokenizer.eos_token_id] if i is not None})


def _room(lm: CausalModel, prompt_length: int, wanted: int) -> int:
    """New tokens that fit the model's context. Raises UserError when the prompt fills it."""
    context = lm.context
    if context is None:
        return wanted
    if prompt_length >= context:
        raise UserError(
            f"the prompt has {prompt_length} tokens, the model's context {context}",
            hint="shorten it",
        )
    return min(wanted, context - prompt_length)


def _short_context(lm: CausalModel) -> int:
    """Beyond how many tokens a model with LongRoPE turns its keys by other frequencies, so that all
    are to be read again; without it more than any text has."""
    config = lm.model.config
    rope = getattr(config, "rope_parameters", None) or getattr(config, "rope_scaling", None) or {}
    if "longrope" not in (rope.get("rope_type"), rope.get("type")):
        return sys.maxsize
    length = rope.get("original_max_position_embeddings")
    return length or getattr(config, "original_max_position_embeddings", None) or sys.maxsize


def _continuation(
    lm: CausalModel, prompt_ids: list[int], ids: list[int], special: frozenset[int]
) -> str:
    """The text that `ids` add to the prompt's, without special tokens."""
    before = prompt_ids[-8:]
    kept = [token for token in ids if token not in special]
    return added_text(lm.tokenizer, before, before + kept)
