"""A device that is not there: its tensors say that they are on it, and are worked on by the CPU.

Code that must run on any device can be tried without one. As on a real one, a tensor from the
CPU is refused beside tensors of the device, and NumPy cannot see them; what comes to the host has
to be brought there.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_flatten, tree_map

DEVICE = torch.device("cuda", 0)
MOVED: list[tuple[int, ...]] = []  # the shapes of what came there from the host


class Pretended(Tensor):
    """A tensor of the device; `inner` holds its data on the CPU."""

    inner: Tensor  # pyright: ignore[reportIncompatibleMethodOverride]

    @staticmethod
    def __new__(cls, inner: Tensor) -> "Pretended":
        made = Tensor._make_wrapper_subclass(
            cls,
            inner.size(),
            strides=inner.stride(),
            storage_offset=inner.storage_offset(),
            dtype=inner.dtype,
        )
        made.inner = inner
        return made

    @property
    def device(self) -> torch.device:  # pyright: ignore[reportIncompatibleVariableOverride]
        return DEVICE

    @classmethod
    def __torch_dispatch__(
        cls, func: Any, types: Sequence[type], args: Any = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        if func is torch.ops.aten.copy_.default:  # between them as well
            _inner(args[0]).copy_(_inner(args[1]))
            return args[0]
        given = [one for one in tree_flatten((args, kwargs))[0] if isinstance(one, Tensor)]
        if any(one.ndim for one in given if not isinstance(one, Pretended)):
            raise RuntimeError(f"{func} of tensors of the device and of the CPU")
        outer = {id(one.inner): one for one in given if isinstance(one, Pretended)}
        found = func(*tree_map(_inner, args), **tree_map(_inner, kwargs))

        def wrapped(one: Any) -> Any:
            if not isinstance(one, Tensor):
                return one
            known = outer.get(id(one))  # worked on in place
            return Pretended(one) if known is None else known

        return tree_map(wrapped, found)


@contextmanager
def pretend_device() -> Iterator[torch.device]:
    """Within the block, in this thread, tensors may be on the device."""
    arange = torch.arange

    def made(*args: Any, device: Any = None, **settings: Any) -> Tensor:
        found = arange(*args, device=None if device == DEVICE else device, **settings)
        return Pretended(found) if device == DEVICE else found

    torch.arange = made  # for backward passes, in which no mode is known
    try:
        with _Moves():
            yield DEVICE
    finally:
        torch.arange = arange


class _Moves(TorchFunctionMode):
    """Makes tensors on the device, and brings them there and back."""

    def __torch_function__(
        self, func: Any, types: Sequence[type], args: Any = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        if func is Tensor.numpy and isinstance(args[0], Pretended):
            raise TypeError("NumPy cannot see a tensor of the device")
        if func is Tensor.cpu:
            return _inner(args[0]).clone()
        if func is Tensor.to:
            return _moved(*args, **kwargs)
        if kwargs.get("device") == DEVICE:
            made = func(*args, **{**kwargs, "device": "cpu"})
            if func is torch.tensor:
                MOVED.append(tuple(made.shape))
            return made if isinstance(made, Pretended) else Pretended(made)
        return func(*args, **kwargs)


def _moved(tensor: Tensor, *where: Any, device: Any = None, dtype: Any = None, **_: Any) -> Tensor:
    """`Tensor.to`."""
    for one in where:
        if isinstance(one, torch.dtype):
            dtype = one
        elif isinstance(one, str | torch.device):
            device = one
    if dtype is not None:
        tensor = tensor.to(dtype)
    if device is None or (torch.device(device) == DEVICE) == isinstance(tensor, Pretended):
        return tensor
    if isinstance(tensor, Pretended):
        return tensor.inner.clone()
    MOVED.append(tuple(tensor.shape))
    return Pretended(tensor.clone())


def _inner(one: Any) -> Any:
    return one.inner if isinstance(one, Pretended) else one
