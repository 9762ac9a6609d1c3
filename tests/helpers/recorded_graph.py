"""A stand-in for a CUDA graph: the operations of a pass, recorded on a CPU and run again.

As with a CUDA graph Python has no say when they run again: they read and write the same memory, and
where Python looks at a value nothing can be recorded (but by `tolist`, which a CPU answers itself).
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

_LOOKS = ("_local_scalar_dense", "item", "is_nonzero", "nonzero", "_unique2", "masked_select")


class _Recorder(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[Any, tuple[Any, ...], dict[str, Any], Any]] = []
        self.before: list[tuple[Tensor, Tensor]] = []  # what is written to, and what it held

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func.overloadpacket.__name__ in _LOOKS:
            raise RuntimeError(f"{func} looks at a value")
        for place, one in enumerate(func._schema.arguments):
            if one.alias_info is not None and one.alias_info.is_write:
                given = args[place] if place < len(args) else kwargs.get(one.name)
                self.before += [(t, t.clone()) for t in tree_leaves(given) if torch.is_tensor(t)]
        out = func(*args, **kwargs)
        self.calls.append((func, args, kwargs, out))
        return out


def record(run: Callable[[], None], device: torch.device) -> Callable[[], None]:
    """Takes the place of `one_token.capture`: as there, `run` leaves no trace in memory."""
    with _Recorder() as recorder:
        run()
    for tensor, held in reversed(recorder.before):
        tensor.copy_(held)

    def again() -> None:
        for func, args, kwargs, out in recorder.calls:
            fresh = func(*args, **kwargs)
            for then, now in zip(tree_leaves(out), tree_leaves(fresh), strict=True):
                if torch.is_tensor(then) and then.data_ptr() != now.data_ptr():
                    then.copy_(now)

    return again
