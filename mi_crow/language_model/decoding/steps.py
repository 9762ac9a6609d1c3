"""The passes of a model over growing continuations of prompts of one length: some plain, some
steered, in one batch."""

import logging
import sys
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from inspect import signature
from typing import Any, Literal

import torch
from torch import Tensor

from mi_crow.language_model.base import CausalModel
from mi_crow.language_model.context import ForwardContext
from mi_crow.language_model.decoding.caches import joined, joins, why_not_static, with_room
from mi_crow.language_model.decoding.one_token import OneToken, why_not_captured
from mi_crow.language_model.tokenize import special_ids

# Names of the argument and output that carry the cache; they differ between versions of
# transformers 5, and models with code of their own have others.
_CACHES = ("cache", "past_key_values", "cache_params", "state")

Decode = Literal["growing", "static", "graph"]
"""How tokens are added: to a cache that grows with each, to one with room for them, or to that one
by a captured pass."""
DECODES: tuple[Decode, ...] = ("growing", "static", "graph")

_ROOM = 128  # new tokens that a static cache has room for at first; then for twice as many
_WORTH_CAPTURING = 8  # new tokens: the first two passes make a graph, and cost more than others

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Read:
    """Prompts after the model read them."""

    logits: Tensor  # [prompts, vocabulary]
    cache: Any  # None: the model gave none


class Prefixes:
    """The prompt that was read last, plainly and under controllers, for the next run from it."""

    def __init__(self) -> None:
        self._held: dict[bool, tuple[object, _Read]] = {}

    def get(self, controlled: bool, key: object) -> _Read | None:
        """What was kept for the same prompt (and the same controllers)."""
        held = self._held.get(controlled)
        return held[1] if held is not None and held[0] == key else None

    def keep(self, controlled: bool, key: object, read: _Read) -> None:
        self._held[controlled] = (key, read)

    def clear(self) -> None:
        self._held.clear()


class Steps:
    """`n` continuations of each prompt for each branch; controllers act in those of `controlled`.

    The prompts have one length; rows are ordered by branch, then prompt.
    The tokens in the cache are counted here: caches of states (Mamba and its kin, xLSTM, RWKV) do
    not know their length. `key` stands for what the controllers do, where `prefixes` keep it.
    """

    def __init__(
        self,
        lm: CausalModel,
        prompts: Sequence[list[int]],
        controlled: Sequence[bool],
        n: int,
        *,
        use_cache: bool = True,
        prefixes: Prefixes | None = None,
        key: object = None,
        strengths: Sequence[float] | None = None,
        new_tokens: int = sys.maxsize,
        decode: Decode | None = None,
    ) -> None:
        """`strengths`: what controllers multiply their amounts by, for each prompt. `new_tokens`:
        how many there will be at most. `decode`: what is best on the model's device, if None."""
        self._lm, self._n, self._controlled = lm, n, tuple(controlled)
        self._given = str([*prompts])
        self._prompts = torch.tensor(prompts, dtype=torch.int64, device=lm.device)
        self._strengths = self._all_strengths = None
        if strengths is not None:
            self._strengths = torch.tensor(strengths, device=lm.device)
            each = self._strengths.repeat_interleave(n)
            self._all_strengths = each.repeat(len(self._controlled))
        self._each = n * len(self._prompts)  # rows of a branch
        self._rows = self._each * len(self._controlled)
        self._ids = self._prompts.repeat_interleave(n, 0).repeat(len(self._controlled), 1)
        self._cache: Any = None
        self._cached = 0  # tokens in the cache
        self._decode: Decode = decode or best_decode(lm.device)
        self._longest = len(prompts[0]) + min(new_tokens, sys.maxsize - len(prompts[0]))
        self._room = 0  # tokens that a static cache has room for
        self._one_token: OneToken | None = None
        self._begun = False
        self._prefixes, self._key = prefixes, key
        self.special: frozenset[int] = special_ids(lm.tokenizer)
        # On the device once: a copy from the CPU at every token would be waited for.
        self._special = torch.tensor(sorted(self.special), dtype=torch.int64, device=lm.device)
        self._acts: dict[tuple[bool, ...], Tensor] = {}
        known = signature(lm.model.forward).parameters
        self._cache_name = next((name for name in _CACHES if name in known), None)
        self._use_cache = use_cache and self._cache_name is not None
        self._takes_positions = "position_ids" in known
        self._short = _short_context(lm)
        self._keeps_logits = "logits_to_keep" in known
        # An index takes the last tokens of all rows together. A slice leaves them apart, and each
        # would be multiplied by a copy of the output matrix of its own. Not every model whose code
        # comes with it takes an index.
        self._takes_index = type(lm.model).__module__.startswith("transformers.")

    def logits(self) -> Tensor:
        """Logits [branches, prompts * n, vocabulary], fp32, after the last token of each row."""
        if not self._begun:
            self._begun = True
            return self._begin()
        if self._cached <= self._short < self._ids.shape[1]:
            self._cache, self._cached = None, 0
        if self._one_token is not None:
            found = self._step(self._one_token)
        else:
            read = self._pass(self._ids[:, self._cached :], self._acting, self._cache, self._cached)
            self._take(read.cache)
            found = read.logits
        return found.unflatten(0, (len(self._controlled), self._each))

    def append(self, chosen: Tensor) -> None:
        """Adds one token [branches * prompts * n] to each continuation."""
        self._ids = torch.cat([self._ids, chosen[:, None]], dim=1)

    def _begin(self) -> Tensor:
        """Reads the prompts once plainly and once under controllers, as far as that is wanted."""
        reads = {one: self._prompt(one) for one in sorted(set(self._controlled))}
        ordered = [reads[one] for one in self._controlled]
        logits = torch.stack([read.logits.repeat_interleave(self._n, 0) for read in ordered])
        caches = [read.cache for read in ordered]
        if None in caches:
            self._take(None)
        elif all(joins(cache) for cache in caches) and self._is_static():
            self._make_room(caches, self._n)
        elif all(joins(cache) for cache in caches):
            self._take(joined(caches, self._n))
        elif self._rows == 1:
            self._take(caches[0])
        else:
            self._read_again(caches[0])
        return logits

    def _is_static(self) -> bool:
        """Whether keys and values get room for tokens to come."""
        if self._decode == "growing" or not self._use_cache:
            return False
        reason = why_not_static(self._lm)
        if not self._takes_positions:
            reason = reason or "the model takes no positions"
        if self._short < self._longest:
            reason = reason or "the model rotates keys by the length of the text"
        if reason:
            _log.info("decoding with a cache that grows: %s", reason)
        return not reason

    def _make_room(self, caches: Sequence[Any], n: int) -> OneToken:
        """Goes on in a static cache with `n` rows for each of those of `caches`: by which pass."""
        cached = self._ids.shape[1] if not self._room else self._cached
        had = self._room - self._prompts.shape[1] if self._room else 0
        fresh = max(_ROOM, 2 * had)
        self._room = min(self._prompts.shape[1] + fresh, self._longest)
        self._cache, self._cached = with_room(caches, n, cached, self._room), cached
        captured = self._decode == "graph" and self._longest - cached >= _WORTH_CAPTURING
        if captured and (reason := why_not_captured(self._lm, any(self._controlled), self._rows)):
            _log.info("decoding token by token: %s", reason)
            captured = False
        self._mask(self._acting)  # before a pass is captured, since it comes from the host
        self._one_token = OneToken(self._rows, self._lm.device, captured)
        return self._one_token

    def _step(self, one_token: OneToken) -> Tensor:
        """Logits [rows, vocabulary] after the last token of each row, in a static cache."""
        if self._ids.shape[1] > self._room:
            one_token = self._make_room([self._cache], 1)
        new = self._ids[:, self._cached :]
        logits = one_token(self._one_pass, new, self._are_special(new), self._cached)
        self._cached += 1
        return logits

    def _one_pass(self, ids: Tensor, special: Tensor, positions: Tensor, cached: int) -> Tensor:
        return self._pass(ids, self._acting, self._cache, cached, special, positions).logits

    @property
    def _acting(self) -> list[bool]:
        """For each row whether controllers act in it."""
        return [one for one in self._controlled for _ in range(self._each)]

    def _prompt(self, controlled: bool) -> _Read:
        key = (self._given, self._key if controlled else None)
        kept = self._prefixes.get(controlled, key) if self._prefixes is not None else None
        if kept is not None and self._use_cache:
            return kept
        read = self._pass(self._prompts, [controlled] * len(self._prompts), None, 0)
        if self._prefixes is not None and joins(read.cache):
            # A copy: the model writes on in the one that it is given.
            self._prefixes.keep(controlled, key, _Read(read.logits, joined([read.cache], 1)))
        return read

    def _read_again(self, cache: Any) -> None:
        """Goes to many continuations where one prompt's cache cannot be repeated."""
        from transformers.cache_utils import Cache

        self._take(None)
        if isinstance(cache, Cache):  # read the prompt again, once for each
            self._use_cache = True
            self.logits()
        # else the model's own kind of state: RWKV's is wrong for several rows (transformers 5.24).

    def _take(self, cache: Any) -> None:
        self._cache = cache
        self._use_cache = cache is not None
        self._cached = self._ids.shape[1] if self._use_cache else 0

    def _pass(
        self,
        new: Tensor,
        controlled: Sequence[bool],
        cache: Any,
        cached: int,
        special: Tensor | None = None,
        positions: Tensor | None = None,
    ) -> _Read:
        """One pass over the tokens `new` [rows, length], which follow `cached` ones. `special`:
        which of them are; `positions`: theirs, where both are on the device already."""
        lm, some, acts = self._lm, any(controlled), self._mask(controlled)
        length = cached + new.shape[1]
        mask = new.new_ones(len(new), length)
        whole = len(new) == self._rows and self._rows != len(self._prompts)
        context = ForwardContext(
            new,
            mask,
            self._are_special(new) if special is None else special,
            cached,
            self._prompts.shape[1],
            acts,
            self._all_strengths if whole else self._strengths,
        )
        inputs: dict[str, Any] = {}
        if self._keeps_logits:  # at every position of the prompt they would be memory unread
            several = self._takes_index and len(new) > 1 and new.shape[1] > 1
            inputs["logits_to_keep"] = new.new_tensor([new.shape[1] - 1]) if several else 1
        if cache is not None and self._cache_name is not None:
            inputs[self._cache_name] = cache
        if self._takes_positions:  # not every model knows from its cache where it is
            if positions is None:
                positions = torch.arange(cached, length, device=new.device).expand(len(new), -1)
            inputs["position_ids"] = positions
        # Without the mask, which masks nothing: some models expect it to be as long as `new`.
        with nullcontext() if some else lm.plain(), lm.running(context):
            output = lm.model(input_ids=new, use_cache=self._use_cache, **inputs)
        after = getattr(output, self._cache_name or "", None) if self._use_cache else None
        return _Read(output.logits[:, -1].float(), after)

    def _are_special(self, new: Tensor) -> Tensor:
        """Which of the tokens [rows, length] are special."""
        if new.shape[1] == 1:  # of many special ones `isin` sorts all, and a GPU is waited for
            return (new[..., None] == self._special).any(-1)
        return torch.isin(new, self._special)

    def _mask(self, controlled: Sequence[bool]) -> Tensor | None:
        """Which texts of a pass controllers change, on the device; None where it is all or none."""
        key = tuple(controlled)
        if all(key) or not any(key):
            return None
        if key not in self._acts:
            self._acts[key] = torch.tensor(key, device=self._lm.device)
        return self._acts[key]


def best_decode(device: torch.device) -> Decode:
    """How tokens are added where nothing else is asked for."""
    return "graph" if device.type == "cuda" else "growing"


def _short_context(lm: CausalModel) -> int:
    """The number of tokens beyond which a model with LongRoPE rotates keys by other frequencies, so
    that all must be read again; without LongRoPE more than any text has."""
    config = lm.model.config
    rope = getattr(config, "rope_parameters", None) or getattr(config, "rope_scaling", None) or {}
    if "longrope" not in (rope.get("rope_type"), rope.get("type")):
        return sys.maxsize
    length = rope.get("original_max_position_embeddings")
    return length or getattr(config, "original_max_position_embeddings", None) or sys.maxsize
