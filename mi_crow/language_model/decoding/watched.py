"""What a CUDA graph cannot hold, noticed in a pass that is run anyway.

Where the host looks at a value it waits for the device, and where it gives one the device waits for
it: neither is possible while a graph is captured. A capture that fails costs more than a pass.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

# Operators after which the host knows something of values, or that ask for it on their way.
_LOOKS = (
    *("_local_scalar_dense", "item", "is_nonzero", "equal", "nonzero", "masked_select"),
    *("_unique2", "unique_dim", "unique_consecutive", "isin", "bincount"),
)
_BY_INDEX = ("index", "index_put", "index_put_")
_MOVES = ("to", "_to_copy", "copy_", *_BY_INDEX)
# What makes tensors of numbers that Python has: no operator tells of that.
_MADE = (torch.tensor, torch.as_tensor, Tensor.new_tensor)
_ITEMS = (Tensor.__getitem__, Tensor.__setitem__)


class Watched:
    """What was noticed."""

    def __init__(self, device: torch.device) -> None:
        self.kind: str = device.type
        self.reason: str = ""  # why the pass cannot be captured; empty: nothing speaks against it

    def looks(self, how: object) -> None:
        self.reason = self.reason or f"the model looks at values in every pass ({how})"

    def reads(self, how: object) -> None:
        self.reason = self.reason or f"the model reads from the host in every pass ({how})"


@contextmanager
def watching(device: torch.device) -> Iterator[Watched]:
    """Notices what the block does on `device`."""
    found = Watched(device)
    with _Operators(found), _Numbers(found):
        yield found


class _Operators(TorchDispatchMode):
    def __init__(self, found: Watched) -> None:
        super().__init__()
        self._found = found

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name, found = func.overloadpacket.__name__, self._found
        kinds = {one.device.type for one in tree_leaves(args[:3]) if isinstance(one, Tensor)}
        if (name in _LOOKS and found.kind in kinds) or _is_by_mask(name, args):
            found.looks(func)
        out = func(*args, **(kwargs or {}))
        if isinstance(out, Tensor):
            kinds.add(out.device.type)
        if name in _MOVES and len(kinds) > 1:
            found.reads(func)
        return out


class _Numbers(TorchFunctionMode):
    def __init__(self, found: Watched) -> None:
        super().__init__()
        self._found = found

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        found = self._found
        if found.kind != "cpu":  # whose memory is the host's
            given = args[0] if func in _ITEMS and _has_list(args[1]) else out
            if (func in _MADE or given is not out) and given.device.type == found.kind:
                found.reads(func.__name__)
        return out


def _is_by_mask(name: str, args: tuple[Any, ...]) -> bool:
    """Whether it indexes by a mask: only the device knows how much that is."""
    if name not in _BY_INDEX:
        return False
    return any(one is not None and one.dtype in (torch.bool, torch.uint8) for one in args[1])


def _has_list(index: Any) -> bool:
    """Whether a list of numbers is in it, of which a tensor is made."""
    parts = index if isinstance(index, tuple) else (index,)
    return any(isinstance(one, list | range) for one in parts)
