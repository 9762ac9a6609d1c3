"""Arithmetic on tensors that are cut into consecutive segments; no loop over elements.

A segment is one feature's activations, or one document's latents. `starts` holds where each
segment begins and, last, the total: int64 [segments + 1]. All of it happens where the tensors are.

Keys that are sorted are int32 from 0 on, so that 31 bits of a signed 64-bit integer hold one.
"""

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from mi_crow.mechanistic.features.index.primitives import by_numpy, nonzero, repeat, sorted_keys

# Sorting pieces of this size stays in the cache and leaves room for the segment in a 64-bit key.
_PIECE = 1 << 16
_KEY_BITS = 31
# Keys of codes up to this width are sorted with their values in one 64-bit integer.
CODE_KEY_BITS = 63 - _KEY_BITS
DRAWS = 1 << _KEY_BITS  # what all draws are below
_MOST = DRAWS - 1
_SIGNED = 1 << 63


def starts_of(lengths: Tensor) -> Tensor:
    """Where segments of these lengths begin, and the total."""
    starts = torch.zeros(len(lengths) + 1, dtype=torch.int64, device=lengths.device)
    torch.cumsum(lengths, 0, out=starts[1:])
    return starts


def segment_ids(starts: Tensor, total: int) -> Tensor:
    """The segment of each of the `total` elements: int64 [total]."""
    return repeat(torch.arange(len(starts) - 1, device=starts.device), starts.diff(), total)


def segment_ranks(starts: Tensor, total: int) -> Tensor:
    """The rank of each of the `total` elements in its segment, from 0: int64 [total]."""
    begins = repeat(starts[:-1], starts.diff(), total)
    return torch.arange(total, device=starts.device).sub_(begins)


def group_starts(*columns: Tensor) -> Tensor:
    """Where consecutive elements equal in all columns begin, and the total."""
    total, device = len(columns[0]), columns[0].device
    if not total:
        return torch.zeros(1, dtype=torch.int64, device=device)
    changed = torch.zeros(total + 1, dtype=torch.bool, device=device)
    changed[0] = changed[-1] = True
    for column in columns:
        changed[1:-1] |= column[1:] != column[:-1]
    return nonzero(changed)


def segment_batches(starts: Tensor, most: int) -> Iterator[tuple[int, int]]:
    """(first, last + 1) of at most `most` consecutive segments with at most `most` elements in all,
    or of a single longer one. `starts` is on the CPU."""
    begins = starts.numpy()
    first, total = 0, len(begins) - 1
    while first < total:
        last = int(np.searchsorted(begins, begins[first] + most, side="right")) - 1
        last = min(max(last, first + 1), first + most, total)
        yield first, last
        first = last


def segment_order(starts: Tensor, keys: Tensor) -> Tensor:
    """Indices that sort every segment by `keys` ascending, stable: int64."""
    if not by_numpy(keys):
        packed = (segment_ids(starts, len(keys)) << _KEY_BITS) | keys
        return packed.sort(stable=True).indices
    order = torch.empty(len(keys), dtype=torch.int64)
    for first, last in segment_batches(starts, _PIECE):
        begin, end = int(starts[first]), int(starts[last])
        bits = max(1, (end - begin - 1).bit_length())
        # segment | key | element: sorting plain integers is several times as fast as argsort.
        packed = keys[begin:end].long()
        packed <<= bits
        packed |= torch.arange(end - begin)
        if last - first > 1:
            owner = segment_ids(starts[first : last + 1], end - begin)
            packed |= owner << (bits + _KEY_BITS)
        packed = sorted_keys(packed).bitwise_and_((1 << bits) - 1)
        torch.add(packed, begin, out=order[begin:end])
    return order


def segment_least(starts: Tensor, keys: Tensor) -> Tensor:
    """The element of least key in each of the segments, none of which is empty, and the first of
    equal ones: int64 [segments]."""
    if not by_numpy(keys):
        return segment_order(starts, keys).index_select(0, starts[:-1])
    if len(starts) == 1:
        return torch.zeros(0, dtype=torch.int64)
    packed = keys.long()
    packed <<= 32
    packed |= torch.arange(len(keys))
    least = np.minimum.reduceat(packed.numpy(), starts[:-1].numpy())
    return torch.from_numpy(least & 0xFFFFFFFF)


def value_bits(values: Tensor) -> Tensor:
    """Non-negative float32 as keys of the same order."""
    return values.contiguous().view(torch.int32)


def descending(values: Tensor) -> Tensor:
    """Keys that put the greatest of non-negative float32 first."""
    return _MOST - value_bits(values)


def sorted_codes(keys: Tensor, values: Tensor, key_bits: int) -> tuple[Tensor, Tensor]:
    """int64 `keys` from 0 and below 2^key_bits ascending, and non-negative float32 `values` with
    them, those of equal keys ascending. `keys` may be overwritten."""
    if key_bits > CODE_KEY_BITS:
        values, order = values.sort(stable=True)
        keys, of_sorted = keys.index_select(0, order).sort(stable=True)
        return keys, values.index_select(0, of_sorted)
    keys <<= _KEY_BITS
    keys |= value_bits(values)
    keys = sorted_keys(keys)
    found = (keys & _MOST).int().view(torch.float32)
    keys >>= _KEY_BITS
    return keys, found


def random_keys(document: Tensor, position: Tensor, seed: int) -> Tensor:
    """A pseudo-random key for each (document, position, seed), the same wherever it is drawn.

    The finaliser of SplitMix64 (Steele et al. 2014), upper 31 bits. Products wrap around.
    """
    x = (document.long() << 32) | position
    x += _signed((seed * 2 + 1) * 0x9E3779B97F4A7C15)
    x = (x ^ _shifted(x, 30)) * _signed(0xBF58476D1CE4E5B9)
    x = (x ^ _shifted(x, 27)) * _signed(0x94D049BB133111EB)
    return _shifted(x ^ _shifted(x, 31), 64 - _KEY_BITS).int()


def _shifted(x: Tensor, by: int) -> Tensor:
    """To the right with zeros from the left, as if int64 had no sign."""
    return (x >> by) & ((1 << (64 - by)) - 1)


def _signed(number: int) -> int:
    """The int64 of the same lowest 64 bits."""
    return (number + _SIGNED) % (2 * _SIGNED) - _SIGNED
