"""Sampling continuations: one batch, cached, seeded, streamed, stoppable between tokens."""

import sys
from collections.abc import Callable
from dataclasses import dataclass
from inspect import signature
from typing import Any

import torch
from torch import Tensor

from mi_crow.bounds import COUNT, FACTOR, SEED, SIZE, TEMPERATURE, TOP_P
from mi_crow.errors import UserError
from mi_crow.language_model.base import CausalModel
from mi_crow.language_model.constraints import budgeted_logits, plausible_logits
from mi_crow.language_model.context import ForwardContext
from mi_crow.language_model.detokenize import Detokenizer, added_text
from mi_crow.language_model.tokenize import special_ids, special_mask, start_id

_NOT_A_TOKEN = -1
_COLDEST = 1e-6  # below, dividing logits overflows: only the likeliest token is left


@dataclass(frozen=True)
class Sampling:
    """How continuations are sampled."""

    max_new_tokens: int = 64
    temperature: float = 1.0  # 0 takes the likeliest token
    top_p: float = 1.0
    seed: int = 0
    n: int = 1
    use_cache: bool = True
    bos: str = "auto"  # a BOS token in front of the prompt: auto | yes | no
    plausible: float | None = None  # beta: only tokens the plain model gives that share of its best
    kl_budget: float | None = None  # nats a token that the distribution may be from the plain one

    def __post_init__(self) -> None:
        COUNT.check(self.max_new_tokens, "new tokens")
        TEMPERATURE.check(self.temperature, "temperature")
        TOP_P.check(self.top_p, "top-p")
        SEED.check(self.seed, "the seed")
        SIZE.check(self.n, "continuations")
        TOP_P.check(self.plausible, "the plausible share")
        FACTOR.check(self.kl_budget, "the KL budget")

    @property
    def constrained(self) -> bool:
        """Whether the plain model's predictions are needed beside the steered ones."""
        return self.plausible is not None or self.kl_budget is not None

    def within_constraints(self, steered: Tensor, plain: Tensor) -> Tensor:
        """Logits [n, vocabulary] that keep to the plausible tokens and the budget."""
        if self.kl_budget is not None:
            steered = budgeted_logits(steered, plain, self.kl_budget)
        if self.plausible is not None:
            steered = plausible_logits(steered, plain, self.plausible)
        return steered


@dataclass(frozen=True)
class Generation:
    """The continuations of one prompt."""

    prompt: str
    prompt_ids: list[int]  # as the model read it, special tokens included
    texts: list[str]  # the continuations, without prompt and special tokens
    token_ids: list[list[int]]  # of each continuation, without its end token
    stopped: bool  # True when should_stop ended it
    shortened_to: int | None = None  # new tokens, if the context was full before all were made

    @property
    def text(self) -> str:
        """The first continuation."""
        return self.texts[0]


@torch.inference_mode()
def generate(
    lm: CausalModel,
    prompt: str,
    sampling: Sampling,
    on_token: Callable[[str], None] | None = None,
    should_stop: Callable[[], bool] | None = None,
) -> Generation:
    """Continues `prompt`; see LanguageModel.generate."""
    prompt_ids = _prompt_ids(lm, prompt, sampling.bos)
    steps = _Steps(lm, prompt_ids, sampling)
    # The same text read without interventions. Where none act, it would be the same again.
    beside = lm.controllers_enabled and sampling.constrained
    plain = _Steps(lm, prompt_ids, sampling) if beside else None
    generator = torch.Generator("cpu").manual_seed(sampling.seed)
    ends = _end_ids(lm)
    detokenizer = Detokenizer(lm.tokenizer, prompt_ids)
    rows: list[list[int]] = [[] for _ in range(sampling.n)]
    unfinished = set(range(sampling.n))
    stopped = False
    room = _room(lm, len(prompt_ids), sampling.max_new_tokens)
    for _ in range(room):
        if should_stop is not None and should_stop():
            stopped = True
            break
        # Uniform numbers come from the CPU, so that a seed means the same on every device.
        uniform = torch.rand(sampling.n, 1, generator=generator)
        logits = steps.logits()
        broken = logits.isnan().any(dim=-1)
        if plain is not None:
            with lm.plain():
                logits = sampling.within_constraints(logits, plain.logits())
        chosen = choose(logits, sampling, uniform)
        # On the device, so that the one wait below covers this as well.
        chosen = chosen.masked_fill(broken, _NOT_A_TOKEN)
        for row, token in enumerate(chosen.tolist()):
            if token == _NOT_A_TOKEN:
                raise UserError(
                    "the model's predictions are not finite numbers",
                    hint="lower the interventions' values",
                )
            if row not in unfinished:
                continue
            if token in ends:
                unfinished.discard(row)
                continue
            rows[row].append(token)
            if row == 0 and on_token is not None and token not in steps.special:
                piece = detokenizer.push(token)
                if piece:
                    on_token(piece)
        if not unfinished:
            break
        steps.append(chosen)
        if plain is not None:
            plain.append(chosen)
    if on_token is not None and (rest := detokenizer.flush()):
        on_token(rest)
    texts = [_continuation(lm, prompt_ids, row, steps.special) for row in rows]
    full = room < sampling.max_new_tokens and any(len(row) == room for row in rows)
    return Generation(prompt, prompt_ids, texts, rows, stopped, room if full else None)


# Names of the argument and output that carry the cache; they differ between versions of
# transformers 5, and models with code of their own have others.
_CACHES = ("cache", "past_key_values", "cache_params", "state")


class _Steps:
    """The model's passes over growing continuations of one prompt.

    The tokens in the cache are counted here: caches of states (Mamba and its kin, xLSTM, RWKV) do
    not know their length.
    """

    def __init__(self, lm: CausalModel, prompt_ids: list[int], sampling: Sampling) -> None:
        self._lm = lm
        self._n = sampling.n
        self._prompt_length = len(prompt_ids)
        self._ids = torch.tensor([prompt_ids], dtype=torch.int64, device=lm.device)
        self._cache: Any = None
        self._cached = 0  # tokens in the cache
        self.special = special_ids(lm.tokenizer)
        known = signature(lm.model.forward).parameters
        self._cache_name = next((name for name in _CACHES if name in known), None)
        self._use_cache = sampling.use_cache and self._cache_name is not None
        self._takes_positions = "position_ids" in known
        self._short = _short_context(lm)
        # Logits at every position of the prompt would be memory that nobody reads.
        self._options: dict[str, Any] = {"logits_to_keep": 1} if "logits_to_keep" in known else {}

    def logits(self) -> Tensor:
        """Logits [n, vocabulary], fp32, after the last token of each continuation."""
        if self._cached <= self._short < self._ids.shape[1]:
            self._cache, self._cached = None, 0
        new = self._ids[:, self._cached :]
        mask = torch.ones_like(self._ids)
        context = ForwardContext(
            new, mask, special_mask(new, self.special), self._cached, self._prompt_length
        )
        # Without the mask, which masks nothing: some models expect it to be as long as `new`.
        with self._lm.running(context):
            output = self._lm.model(input_ids=new, use_cache=self._use_cache, **self._inputs(new))
        logits = output.logits[:, -1].float()
        if self._use_cache:
            self._cache = getattr(output, self._cache_name or "", None)
            self._use_cache = self._cache is not None
            self._cached = self._ids.shape[1] if self._use_cache else 0
        if len(logits) < self._n:
            self._spread()
        return logits.expand(self._n, -1)

    def append(self, chosen: Tensor) -> None:
        """Adds one token [n] to each continuation."""
        self._ids = torch.cat([self._ids, chosen[:, None]], dim=1)

    def _inputs(self, new: Tensor) -> dict[str, Any]:
        """The model's other inputs beside the tokens `new`, which follow those in the cache."""
        inputs = dict(self._options)
        if self._cache is not None and self._cache_name is not None:
            inputs[self._cache_name] = self._cache
        if self._takes_positions:  # not every model knows from its cache where it is
            positions = torch.arange(self._cached, self._ids.shape[1], device=new.device)
            inputs["position_ids"] = positions.expand(len(new), -1)
        return inputs

    def _spread(self) -> None:
        """Goes from the one prompt that was read to n continuations of it."""
        from transformers.cache_utils import Cache, DynamicLayer, DynamicSlidingWindowLayer

        self._ids = self._ids.expand(self._n, -1)
        if not isinstance(self._cache, Cache):
            # The model's own kind of state: RWKV's is wrong for several rows (transformers 5.24).
            self._cache, self._cached, self._use_cache = None, 0, False
            return
        # Exactly these classes: layers with other states would repeat only keys and values.
        if all(
            type(one) in (DynamicLayer, DynamicSlidingWindowLayer) for one in self._cache.layers
        ):
            self._cache.batch_repeat_interleave(self._n)
        else:  # read the prompt again, n times
            self._cache, self._cached = None, 0
            self.logits()


def choose(logits: Tensor, sampling: Sampling, uniform: Tensor) -> Tensor:
    """One token id [n] for each row of logits [n, vocabulary].

    Inverts the distribution at `uniform` [n, 1] in [0, 1): the same numbers give the same tokens on
    every device. With `top_p` the distribution is cut to its nucleus (Holtzman et al. 2020, eq. 2).
    """
    if sampling.temperature < _COLDEST:
        return logits.argmax(dim=-1)
    probabilities = torch.softmax(logits / sampling.temperature, dim=-1)
    order = None
    if sampling.top_p < 1:
        probabilities, order = probabilities.sort(dim=-1, descending=True)
        # The smallest set whose mass reaches top_p: the mass before a token must be below it.
        before = probabilities.cumsum(dim=-1) - probabilities
        probabilities = probabilities.masked_fill(before >= sampling.top_p, 0.0)
    mass = probabilities.cumsum(dim=-1)
    # Just below 1, so that rounding cannot reach the end, where tokens without mass may be.
    target = uniform.to(logits.device) * (1 - 1e-6) * mass[:, -1:]
    rank = torch.searchsorted(mass, target, right=True)
    return (rank if order is None else order.gather(-1, rank))[:, 0]


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
    """The number of tokens beyond which a model with LongRoPE rotates keys by other frequencies, so
    that all must be read again; without LongRoPE more than any text has."""
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
