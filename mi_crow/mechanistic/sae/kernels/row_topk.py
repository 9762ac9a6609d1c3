"""The k largest entries of each row, on a CPU by way of the maxima of groups of columns.

PyTorch's own top-k looks at the entries of a row one after the other there, which takes half as
long as the product that made the row. Maxima of groups are one vectorised pass, and the k groups of
greatest maximum hold k of the row's largest entries: an entry of any other group is at most as
large as each of those maxima. Compiled for one thread that is one look at each row; by torch, with
many threads, the k largest maxima are found in the same way, and then the k largest of those
groups' entries.
"""

import math
import threading

import torch
from torch import Tensor

from mi_crow.mechanistic.sae.kernels.compiled import cpu_kernels

# A row of at least so many times k columns is cut into groups of so many. On two cores, with k = 16
# to 128 of 768 to 131,072 columns, that is 1.2 to 4 times as fast as torch.topk.
_GROUPS = ((1024, 16), (256, 8), (24, 4))
# In training memory counts. Fewer rows at once then, though each of many small operations wakes the
# other threads anew, and none by groups where that gains little: from 64 k columns on torch.topk
# sorts rows partially, below 256 k it is not yet slow.
_ROWS = 512
_PLAIN = range(64, 256)
# Columns up to which compiled code is used: 1.4 to 3 times as fast as torch with one thread. In
# longer rows it gains little beside their product, and Numba takes 0.1 GB.
_COMPILED = 1 << 16

_held = threading.local()


def row_topk(rows: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Values and columns (int64) of the k largest entries of rows [n, m], in no order: [n, k] each.

    Among equal entries any may be chosen; nan counts as the largest.
    """
    (n, width), training = rows.shape, not torch.is_inference_mode_enabled()
    if not training and _for_one_thread(rows):
        kernels = cpu_kernels()
        found = None if kernels is None else kernels.row_topk(rows, k)
        if found is not None:
            return found
    plain = _group_size(width, k) == 1 or (training and width // k in _PLAIN)
    if rows.device.type != "cpu" or not rows.is_contiguous() or plain:
        return _largest(rows, k)
    values, columns = rows.new_empty(n, k), torch.empty(n, k, dtype=torch.int64)
    step = _ROWS if training else max(n, 1)
    for first in range(0, n, step):
        some = slice(first, first + step)
        values[some], columns[some] = _strongest(rows[some], k, 0)
    return values, columns


def _for_one_thread(rows: Tensor) -> bool:
    """Whether compiled code takes these rows, and no other thread would help torch with them."""
    fits = rows.device.type == "cpu" and rows.dtype == torch.float32 and rows.is_contiguous()
    return fits and rows.shape[1] <= _COMPILED and torch.get_num_threads() == 1


def padding_to_groups(width: int, k: int, device: torch.device) -> int:
    """How many columns of -inf let `row_topk` work by groups on rows of this width."""
    least, size = _GROUPS[-1]
    return -width % size if device.type == "cpu" and width >= least * k else 0


def _group_size(width: int, k: int) -> int:
    """Columns in a group; 1 where there are no groups."""
    fits = (size for least, size in _GROUPS if width >= least * k and width % size == 0)
    return next(fits, 1)


def _strongest(rows: Tensor, k: int, level: int) -> tuple[Tensor, Tensor]:
    (n, width), size = rows.shape, _group_size(rows.shape[1], k)
    if size == 1:
        return _largest(rows, k)
    # Columns g, g + groups, g + 2 groups, ... make up group g, so that a pass runs along the row.
    groups = width // size
    maxima = scratch(f"maxima {level}", (n, groups), rows.dtype)
    torch.amax(rows.view(n, size, groups), 1, out=maxima)
    _, chosen = _strongest(maxima, k, level + 1)
    columns = scratch(f"columns {level}", (n, size, k), torch.int64)
    torch.add(chosen[:, None], torch.arange(0, width, groups)[:, None], out=columns)
    columns = columns.view(n, size * k)
    entries = scratch(f"entries {level}", (n, size * k), rows.dtype)
    values, places = _largest(torch.gather(rows, 1, columns, out=entries), k)
    return values, columns.gather(1, places)


def _largest(rows: Tensor, k: int) -> tuple[Tensor, Tensor]:
    top = rows.topk(k, dim=1, sorted=False)
    return top.values, top.indices


def scratch(name: str, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    """This thread's block of CPU memory of that name, valid until the next one of its name and
    type; contents are undefined. Touching fresh pages costs more than the arithmetic that fills
    them."""
    size, key = math.prod(shape), f"{name} {dtype}"
    held: Tensor | None = getattr(_held, key, None)
    if held is None or held.numel() < size:
        with torch.inference_mode(False):  # else the block could never be written outside it
            held = torch.empty(size, dtype=dtype)
        setattr(_held, key, held)
    return held[:size].view(shape)
