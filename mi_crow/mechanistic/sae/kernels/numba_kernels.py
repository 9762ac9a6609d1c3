"""The hot loops of the index pass besides the encoder's product, compiled for one CPU thread.

NumPy and torch pass over memory once for each step of these, with blocks that only fit the level 3
cache: a row that goes through all steps at once stays in level 1.

Importing this module needs Numba; `compiled.cpu_kernels` does so where Numba works. Numba caches
compiled code beside this file or in the user's cache folder, as Python does with byte code.
"""

from collections.abc import Callable
from math import isqrt
from typing import Any

import numpy as np
import torch
from numba import config, njit
from torch import Tensor

# Steps of the bisection for the bound of a row, which need not be exact.
_HALVINGS = 24


def _compiled(kernel: Callable[..., Any]) -> Callable[..., Any]:
    """Compiled for one thread, which releases the GIL."""
    try:
        return njit(nogil=True, cache=True)(kernel)
    except RuntimeError:  # no writable cache folder: compiled again in every process
        return njit(nogil=True)(kernel)


def row_topk(rows: Tensor, k: int) -> tuple[Tensor, Tensor] | None:
    """Values and columns (int64) of the k largest entries of contiguous fp32 rows [n, m], in no
    order: [n, k] each. None if a row contains NaN.

    Ties are broken arbitrarily.
    """
    (n, width), entries = rows.shape, rows.numpy()
    # About as many group maxima to search as entries in the k groups with the largest maxima.
    groups = max(k, -(-width // max(isqrt(2 * width // k), 1)))
    values, columns = rows.new_empty(n, k), torch.empty(n, k, dtype=torch.int64)
    buffers = np.empty(groups, np.float32), np.empty(width, np.int64), np.empty(width, np.int32)
    without_nan = _strongest(
        entries, entries.view(np.int32), *buffers, values.numpy(), columns.numpy()
    )
    return (values, columns) if without_nan else None


def count_together(
    counts: Tensor, starts: Tensor, rows: Tensor, token_starts: Tensor, latents: Tensor
) -> None:
    """Adds to counts[f, j] the number of tokens on which both feature f and latent j fire.

    counts int32 [features, n_latents]; starts int64 [features + 1], where the firings of each
    feature begin in int32 rows, which are tokens; token_starts int64 [n + 1], where the latents of
    each token begin in latents, int16 or int32. All contiguous.
    """
    # For signed indices Numba would test each time whether they count from the end.
    numbers = latents.numpy().view(f"u{latents.itemsize}")
    arrays = counts.numpy(), starts.numpy(), rows.numpy().view(np.uint32), token_starts.numpy()
    _count_together(*arrays, numbers)


def self_test() -> None:
    """Compiles both kernels and checks a result of each; raises on failure."""
    if getattr(config, "DISABLE_JIT", False):
        raise RuntimeError("NUMBA_DISABLE_JIT is set")
    rows = torch.arange(24.0).view(2, 12).remainder(7)
    found = row_topk(rows, 3)
    if found is None or not bool((found[0].sort().values == rows.topk(3).values.flip(1)).all()):
        raise RuntimeError("row_topk gives wrong results")
    counts, rows = torch.zeros(1, 4, dtype=torch.int32), torch.tensor([0, 2], dtype=torch.int32)
    latents = torch.tensor([0, 1, 2, 3, 0], dtype=torch.int16)
    count_together(counts, torch.tensor([0, 2]), rows, torch.tensor([0, 2, 4, 5]), latents)
    if counts.tolist() != [[2, 1, 0, 0]]:
        raise RuntimeError("count_together gives wrong results")


@_compiled
def _count_together(counts, starts, rows, token_starts, latents):
    for feature in range(len(counts)):
        of_feature = counts[feature]
        for code in range(starts[feature], starts[feature + 1]):
            token = rows[code]
            for latent in latents[token_starts[token] : token_starts[token + 1]]:
                of_feature[latent] += 1


@_compiled
def _strongest(rows, bits, maxima, candidates, keys, values, columns):
    """False if there is a NaN. `bits` are the rows viewed as int32; maxima [groups], candidates [m]
    and keys [m] are buffers, reused for each row."""
    k = values.shape[1]
    for number in range(len(rows)):
        row = rows[number]
        if not _maxima(row, maxima):
            return False
        found = _at_least(row, _bound(maxima, k), maxima, candidates)
        if found > k:
            _keep_largest(bits[number], candidates, keys, found, k)
        for place in range(k):
            columns[number, place] = candidates[place]
            values[number, place] = row[candidates[place]]
    return True


@_compiled
def _maxima(row, maxima):
    """The maximum of columns g, g + groups, g + 2 groups, ... for each group g; False if one is
    NaN."""
    groups = len(maxima)
    maxima[:] = row[:groups]
    for begin in range(groups, len(row), groups):
        some = row[begin : begin + groups]
        for group in range(len(some)):
            value, most = some[group], maxima[group]
            maxima[group] = value if (value > most) | (value != value) else most
    missing = 0
    for group in range(groups):
        missing += maxima[group] != maxima[group]
    return missing == 0


@_compiled
def _bound(maxima, k):
    """A number that at least k maxima reach, hence as many entries of the row, and few more do."""
    low, high = maxima[0], maxima[0]
    for value in maxima:
        low = value if value < low else low
        high = value if value > high else high
    for _ in range(_HALVINGS):
        middle = np.float32(0.5) * (low + high)
        if not low < middle < high:
            break
        above = np.int32(0)
        for group in range(len(maxima)):
            above += maxima[group] >= middle
        if above < k:
            high = middle
            continue
        low = middle
        if above <= k + k // 4:
            break
    return low


@_compiled
def _at_least(row, bound, maxima, candidates):
    """Puts the columns of all entries >= bound into `candidates` and returns their number."""
    groups, found = len(maxima), 0
    for group in range(groups):
        if maxima[group] >= bound:
            for column in range(group, len(row), groups):
                candidates[found] = column
                found += row[column] >= bound
    return found


@_compiled
def _keep_largest(bits, candidates, keys, found, k):
    """Moves the columns of the k largest entries to the front of the `found` in `candidates`.

    The bits of floats, with the lower ones inverted for negative numbers, sort as integers.
    """
    for place in range(found):
        of_column = bits[candidates[place]]
        keys[place] = of_column ^ ((of_column >> 31) & 0x7FFFFFFF)
    low, high = np.int64(keys[0]), np.int64(keys[0])
    for place in range(found):
        low, high = min(low, keys[place]), max(high, keys[place])
    while low < high:  # bisect for the largest number that at least k entries reach
        middle = (low + high + 1) >> 1
        above = np.int32(0)
        for place in range(found):
            above += keys[place] >= np.int32(middle)
        if above < k:
            high = middle - 1
            continue
        low = middle
        if above == k:
            break
    least, equal = np.int32(low), k
    for place in range(found):
        equal -= keys[place] > least
    kept = 0
    for place in range(found):
        if keys[place] > least or (keys[place] == least and equal > 0):
            equal -= keys[place] == least
            candidates[kept] = candidates[place]
            kept += 1
