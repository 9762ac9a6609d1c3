"""Caches of keys and values: rows put together, and caches with room for tokens to come."""

import copy
from collections.abc import Sequence
from typing import Any

import torch

from mi_crow.language_model.base import CausalModel

_ATTENTION = ("sdpa", "eager")  # whose masks cover keys that are not there yet


def joins(cache: Any) -> bool:
    """Whether rows of such caches can be put into one."""
    from transformers.cache_utils import (
        Cache,
        DynamicCache,
        DynamicLayer,
        DynamicSlidingWindowLayer,
        StaticLayer,
    )

    # Exactly these classes: others have states of their own, and only keys and values are repeated.
    known = (DynamicLayer, DynamicSlidingWindowLayer, StaticLayer)
    return type(cache) in (Cache, DynamicCache) and all(type(one) in known for one in cache.layers)


def joined(caches: Sequence[Any], n: int) -> Any:
    """One cache with `n` copies of each of `caches`, in their order; these stay as they are."""
    whole = copy.copy(caches[0])
    whole.layers = []
    for layers in zip(*(cache.layers for cache in caches), strict=True):
        layer = copy.copy(layers[0])
        if layer.keys is not None:  # a layer may never have been used
            layer.keys = torch.cat([one.keys.repeat_interleave(n, dim=0) for one in layers])
            layer.values = torch.cat([one.values.repeat_interleave(n, dim=0) for one in layers])
        whole.layers.append(layer)
    return whole


def why_not_static(lm: CausalModel) -> str:
    """Why the model's keys and values cannot be kept with room for tokens to come; empty where they
    can, as far as the model itself says."""
    model = lm.model
    if not type(model).__module__.startswith("transformers."):
        return "the model's code is not from transformers"
    if not getattr(model, "_can_compile_fullgraph", False):
        return f"transformers has no static cache for {type(model).__name__}"
    attention = getattr(model.config, "_attn_implementation", None)
    return "" if attention in _ATTENTION else f"its attention is {attention}"


def with_room(caches: Sequence[Any], n: int, cached: int, length: int) -> Any:
    """One cache with `n` copies of each of `caches`, in order, that hold `cached` tokens, and with
    room for `length`: keys and values then stay where they are in memory.

    A pass reads the whole of it, and the model's mask leaves out what is not there yet. Layers with
    a window have room for everything too: their mask leaves out what lies before it.
    """
    from transformers.cache_utils import Cache, StaticLayer

    layers: list[Any] = []
    for own in zip(*(cache.layers for cache in caches), strict=True):
        layer: Any = StaticLayer(length)
        layer.is_sliding = own[0].is_sliding
        if own[0].keys is not None:
            device = own[0].keys.device
            layer.keys = _copied([one.keys for one in own], n, cached, length)
            layer.values = _copied([one.values for one in own], n, cached, length)
            layer.device, layer.is_initialized = device, True
            layer.cumulative_length = torch.tensor(cached, dtype=torch.int64, device=device)
        layers.append(layer)
    return Cache(layers=layers)


def _copied(parts: Sequence[torch.Tensor], n: int, cached: int, length: int) -> torch.Tensor:
    """Keys or values [rows, heads, length, d], `n` rows for each row of the parts."""
    rows = n * sum(len(part) for part in parts)
    heads, width = parts[0].shape[1], parts[0].shape[3]
    found = parts[0].new_zeros(rows, heads, length, width)
    start = 0
    for part in parts:
        kept = part[:, :, :cached]  # of a window fewer, the last ones
        room = found[start : start + n * len(part), :, cached - kept.shape[2] : cached]
        room.unflatten(0, (len(part), n)).copy_(kept[:, None].expand(-1, n, -1, -1, -1))
        start += n * len(part)
    return found
