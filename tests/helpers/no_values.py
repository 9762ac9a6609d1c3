"""A device without values, for what code does where looking at one is not allowed.

On the device `meta` operations have shapes only: code does not take the branches that it has for a
CPU, a look at a value raises, and inside `captured` so does a copy between host and device.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

NO_VALUES = torch.device("meta")


class _OnDevice(TorchDispatchMode):
    """Refuses what a CUDA graph cannot hold."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        tensors = [one for one in tree_leaves((args, kwargs, out)) if torch.is_tensor(one)]
        # A number on the host is an argument of the kernel.
        if any(one.device.type == "cpu" and one.dim() > 0 for one in tensors):
            raise RuntimeError(f"{func} has a tensor on the host")
        return out


def captured(run: Callable[[], None], device: torch.device) -> Callable[[], None]:
    """Takes the place of `one_token.capture`. Raises RuntimeError as that would."""
    try:
        with _OnDevice():
            run()
    except NotImplementedError as error:  # a value that is not there
        raise RuntimeError(str(error)) from error
    return lambda: None
