"""Arithmetic on arrays that are cut into consecutive segments; NumPy, no loop over elements.

A segment is one feature's activations, or one document's latents. `starts` holds where each
segment begins and, last, the total: int64 [segments + 1].
"""

from collections.abc import Iterator

import numpy as np

# Sorting pieces of this size stays in the cache and leaves room for the segment in a 64-bit key.
_PIECE = 1 << 16
_MOST = np.uint64(0x7FFFFFFF)


def starts_of(lengths: np.ndarray) -> np.ndarray:
    """Where segments of these lengths begin, and the total."""
    starts = np.zeros(len(lengths) + 1, dtype=np.int64)
    np.cumsum(lengths, out=starts[1:])
    return starts


def owners(starts: np.ndarray) -> np.ndarray:
    """The segment of each element: int64 [total]."""
    return np.repeat(np.arange(len(starts) - 1), np.diff(starts))


def places(starts: np.ndarray) -> np.ndarray:
    """The place of each element in its segment, from 0: int64 [total]."""
    return np.arange(starts[-1]) - np.repeat(starts[:-1], np.diff(starts))


def runs(*columns: np.ndarray) -> np.ndarray:
    """Starts of the runs in which no column changes, and the total."""
    total = len(columns[0])
    if not total:
        return np.zeros(1, dtype=np.int64)
    changed = np.zeros(total - 1, dtype=bool)
    for column in columns:
        changed |= column[1:] != column[:-1]
    return np.concatenate([[0], np.flatnonzero(changed) + 1, [total]])


def pieces(starts: np.ndarray, most: int) -> Iterator[tuple[int, int]]:
    """(first, last + 1) of at most `most` consecutive segments with at most `most` elements, or
    of a longer one alone."""
    first, total = 0, len(starts) - 1
    while first < total:
        last = int(np.searchsorted(starts, starts[first] + most, side="right")) - 1
        last = min(max(last, first + 1), first + most, total)
        yield first, last
        first = last


def segment_order(starts: np.ndarray, keys: np.ndarray) -> np.ndarray:
    """Element numbers with every segment sorted by `keys` (uint32) ascending, ties in order."""
    order = np.empty(len(keys), dtype=np.int64)
    for first, last in pieces(starts, _PIECE):
        begin, end = int(starts[first]), int(starts[last])
        bits = max(1, (end - begin - 1).bit_length())
        # segment | key | element: sorting plain integers is several times as fast as argsort.
        packed = keys[begin:end].astype(np.uint64) << np.uint64(bits)
        packed |= np.arange(end - begin, dtype=np.uint64)
        if last - first > 1:
            owner = owners(starts[first : last + 1] - begin).astype(np.uint64)
            packed |= owner << np.uint64(bits + 32)
        packed.sort()
        packed &= np.uint64((1 << bits) - 1)
        order[begin:end] = packed.astype(np.int64) + begin
    return order


def value_bits(values: np.ndarray) -> np.ndarray:
    """Non-negative float32 as uint32 of the same order."""
    return np.ascontiguousarray(values, dtype=np.float32).view(np.uint32)


def descending(values: np.ndarray) -> np.ndarray:
    """uint32 keys that put the greatest of non-negative float32 first."""
    return np.uint32(0x7FFFFFFF) - value_bits(values)


def sorted_codes(
    major: np.ndarray, minor: np.ndarray, values: np.ndarray, n_major: int, n_minor: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The three columns sorted by (major, minor); values are non-negative float32.

    `major` is below `n_major`, `minor` below `n_minor`. Equal pairs come in any order.
    """
    major_bits, minor_bits = (max(1, (n - 1).bit_length()) for n in (n_major, n_minor))
    if major_bits + minor_bits > 33:
        order = np.argsort(major.astype(np.int64) * n_minor + minor, kind="stable")
        return major[order], minor[order], values[order]
    packed = major.astype(np.uint64) << np.uint64(minor_bits + 31)
    packed |= minor.astype(np.uint64) << np.uint64(31)
    packed |= value_bits(values)
    packed.sort()
    found = (packed & _MOST).astype(np.uint32).view(np.float32)
    packed >>= np.uint64(31)
    return (
        (packed >> np.uint64(minor_bits)).astype(major.dtype),
        (packed & np.uint64((1 << minor_bits) - 1)).astype(minor.dtype),
        found,
    )


def draws(document: np.ndarray, position: np.ndarray, seed: int) -> np.ndarray:
    """A pseudo-random uint32 for each (document, position, seed), the same wherever it is drawn.

    The finaliser of SplitMix64 (Steele et al. 2014), upper half.
    """
    with np.errstate(over="ignore"):
        x = document.astype(np.uint64) << np.uint64(32)
        x |= position.astype(np.uint64)
        x += np.uint64((seed * 2 + 1) & 0xFFFFFFFFFFFFFFFF) * np.uint64(0x9E3779B97F4A7C15)
        x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return ((x ^ (x >> np.uint64(31))) >> np.uint64(32)).astype(np.uint32)
