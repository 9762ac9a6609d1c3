"""Whether what is compiled for a CPU runs here."""

import logging
from functools import cache
from importlib import import_module
from types import ModuleType

_log = logging.getLogger(__name__)


@cache
def cpu_kernels() -> ModuleType | None:
    """`numba_kernels` where Numba works, else None, and torch does the same in more steps: found
    out once."""
    try:
        kernels = import_module("mi_crow.mechanistic.sae.kernels.numba_kernels")
        kernels.prove()
    except Exception as error:  # too new a NumPy or Python, no room for what is compiled, ...
        _log.warning("no Numba, torch takes its place and more time: %s", error)
        return None
    return kernels
