"""The few steps of the index pass that no single library does fast everywhere.

Torch does all of them on any device. On a CPU NumPy sorts plain integers several times as fast, and
finds, repeats and reduces segments faster, on the same memory. The device of the tensors decides
here which of the two is used; both give the same results and break ties in the same way. Sums are
added in a fixed order, so that every run on a device gives the same result.
"""

from typing import Any

import numpy as np
import torch
from torch import Tensor

# Device types whose tensors NumPy can read; all others are left to torch.
NUMPY_DEVICES = frozenset({"cpu"})


def arithmetic_device(device: torch.device) -> torch.device:
    """Where codes from `device` are processed: there, unless it lacks double precision."""
    return torch.device("cpu") if device.type == "mps" else device


def by_numpy(tensor: Tensor) -> bool:
    """Whether NumPy processes it."""
    return tensor.device.type in NUMPY_DEVICES


def sorted_keys(keys: Tensor) -> Tensor:
    """int64 [n] ascending; the input may be overwritten."""
    if by_numpy(keys):
        keys.numpy().sort()
        return keys
    return keys.sort().values


def nonzero(mask: Tensor) -> Tensor:
    """Indices of the true elements of bool [n], ascending: int64."""
    if by_numpy(mask):
        return torch.from_numpy(np.flatnonzero(mask.numpy()))
    return mask.nonzero()[:, 0]


def repeat(values: Tensor, times: Tensor, total: int) -> Tensor:
    """Each value repeated int64 `times` [n] times, `total` in all."""
    if by_numpy(values):
        return torch.from_numpy(np.repeat(values.numpy(), times.numpy()))
    return values.repeat_interleave(times, output_size=total)


def searchsorted(ascending: Tensor, wanted: Tensor) -> Tensor:
    """The index of the first of int64 `ascending` that is not below each of `wanted`: int64."""
    if by_numpy(ascending):
        return torch.from_numpy(np.searchsorted(ascending.numpy(), wanted.numpy()))
    return torch.searchsorted(ascending, wanted)


def bincount(bins: Tensor, size: int) -> Tensor:
    """How often each number below `size` occurs in int64 `bins`: int64 [size]."""
    found = torch.zeros(size, dtype=torch.int64, device=bins.device)
    return found.scatter_add_(0, bins, found.new_ones(1).expand(len(bins)))


def weighted_bincount(bins: Tensor, values: Tensor, size: int) -> Tensor:
    """The sum of float64 `values` [n] in each of `size` bins; int64 `bins` [n]: [size]."""
    if by_numpy(values):
        return torch.from_numpy(np.bincount(bins.numpy(), values.numpy(), minlength=size))
    # Adding from many threads at once would give another last digit every time.
    order = bins.sort(stable=True).indices
    starts = torch.zeros(size + 1, dtype=torch.int64, device=bins.device)
    torch.cumsum(bincount(bins, size), 0, out=starts[1:])
    return torch.segment_reduce(values[order], "sum", offsets=starts, unsafe=True, initial=0.0)


def segment_max(values: Tensor, starts: Tensor) -> Tensor:
    """The maximum of float `values` in each segment, none of which is empty."""
    return _reduced(values, starts, "max")


def segment_sum(values: Tensor, starts: Tensor) -> Tensor:
    """The sum of float64 `values` in each segment, none of which is empty."""
    return _reduced(values, starts, "sum")


def _reduced(values: Tensor, starts: Tensor, reduce: str) -> Tensor:
    if len(starts) == 1:
        return values[:0]
    if by_numpy(values):
        ufunc = np.maximum if reduce == "max" else np.add
        return torch.from_numpy(ufunc.reduceat(values.numpy(), starts[:-1].numpy()))
    return torch.segment_reduce(values, reduce, offsets=starts, unsafe=True)


def columns(record: Any) -> dict[str, np.ndarray]:
    """The tensors of a dataclass as arrays on the host, by name."""
    return {name: tensor.cpu().numpy() for name, tensor in vars(record).items()}
