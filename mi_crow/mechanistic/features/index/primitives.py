"""The few steps of the index pass that no single library does fast everywhere.

Torch does all of them on any device. On a CPU NumPy sorts plain integers several times as fast, and
finds, repeats and reduces pieces faster, on the same memory. Which of both works is decided here,
by the device of the tensors given; both give the same results, ties broken in the same way. Sums
are added in a fixed order on each, so that every run on a device gives the same.
"""

from typing import Any

import numpy as np
import torch
from torch import Tensor

# Kinds of device on whose tensors NumPy works; all others are left to torch.
NUMPY_DEVICES = frozenset({"cpu"})


def arithmetic_device(device: torch.device) -> torch.device:
    """Where codes from `device` are worked on: there, but for one without double precision."""
    return torch.device("cpu") if device.type == "mps" else device


def by_numpy(tensor: Tensor) -> bool:
    """Whether NumPy is to work on it."""
    return tensor.device.type in NUMPY_DEVICES


def sorted_keys(keys: Tensor) -> Tensor:
    """int64 [n] ascending; what was given may be overwritten."""
    if by_numpy(keys):
        keys.numpy().sort()
        return keys
    return keys.sort().values


def where_true(mask: Tensor) -> Tensor:
    """Places of bool [n] that hold, ascending: int64."""
    if by_numpy(mask):
        return torch.from_numpy(np.flatnonzero(mask.numpy()))
    return mask.nonzero()[:, 0]


def repeat(values: Tensor, times: Tensor, total: int) -> Tensor:
    """Each value as often as int64 `times` [n] says, `total` in all."""
    if by_numpy(values):
        return torch.from_numpy(np.repeat(values.numpy(), times.numpy()))
    return values.repeat_interleave(times, output_size=total)


def first_not_below(ascending: Tensor, wanted: Tensor) -> Tensor:
    """The place of the first of int64 `ascending` that is not below each of `wanted`: int64."""
    if by_numpy(ascending):
        return torch.from_numpy(np.searchsorted(ascending.numpy(), wanted.numpy()))
    return torch.searchsorted(ascending, wanted)


def counts(places: Tensor, size: int) -> Tensor:
    """How often each number below `size` occurs among int64 `places`: int64 [size]."""
    found = torch.zeros(size, dtype=torch.int64, device=places.device)
    return found.scatter_add_(0, places, found.new_ones(1).expand(len(places)))


def sums(places: Tensor, values: Tensor, size: int) -> Tensor:
    """Of float64 `values` [n], those with the same number below `size` in int64 `places` [n]
    together: [size]."""
    if by_numpy(values):
        return torch.from_numpy(np.bincount(places.numpy(), values.numpy(), minlength=size))
    # Adding from many threads at once would give another last digit every time.
    order = places.sort(stable=True).indices
    starts = torch.zeros(size + 1, dtype=torch.int64, device=places.device)
    torch.cumsum(counts(places, size), 0, out=starts[1:])
    return torch.segment_reduce(values[order], "sum", offsets=starts, unsafe=True, initial=0.0)


def segment_max(values: Tensor, starts: Tensor) -> Tensor:
    """The greatest of float `values` in each of the segments, none of which is empty."""
    return _reduced(values, starts, "max")


def segment_sum(values: Tensor, starts: Tensor) -> Tensor:
    """The sum of float64 `values` in each of the segments, none of which is empty."""
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
