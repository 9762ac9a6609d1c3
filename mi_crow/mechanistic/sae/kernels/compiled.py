"""Whether the compiled kernels work on this CPU and its GPUs."""

import logging
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from types import ModuleType

import torch

# Triton supports Turing and later.
_TRITON_CAPABILITY = (7, 5)

_log = logging.getLogger(__name__)


@cache
def cpu_kernels() -> ModuleType | None:
    """`numba_kernels` where the extra `fast` is installed and works, else None: torch then does the
    same in more steps. Tested once."""
    if find_spec("numba") is None:
        return None
    try:
        kernels = import_module("mi_crow.mechanistic.sae.kernels.numba_kernels")
        kernels.self_test()
    except Exception as error:  # too new a NumPy or Python, no room for what is compiled, ...
        _log.warning("no Numba, torch takes its place and more time: %s", error)
        return None
    return kernels


@cache
def gpu_kernels(device: torch.device) -> ModuleType | None:
    """`triton_kernels` where they work on `device`, else None. Tested once per device.

    Raises torch.OutOfMemoryError where the device is full, which says nothing about Triton.
    """
    if device.type != "cuda" or torch.cuda.get_device_capability(device) < _TRITON_CAPABILITY:
        return None
    try:
        kernels = import_module("mi_crow.mechanistic.sae.kernels.triton_kernels")
        kernels.self_test(device)
    except ImportError:  # builds of PyTorch without Triton
        return None
    except torch.OutOfMemoryError:
        raise
    except Exception as error:  # no C compiler, no assembler, too old a driver: kinds of their own
        _log.warning("no Triton on %s, embedding_bag takes its place: %s", device, error)
        return None
    return kernels
