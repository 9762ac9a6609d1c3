"""Lazy exports for package `__init__` files (PEP 562)."""

from collections.abc import Mapping
from importlib import import_module
from typing import Any


def lazy_exports(package: str, exports: Mapping[str, str], name: str) -> Any:
    """The object `name` from the module that `exports` gives for it.

    Raises AttributeError, as a module's `__getattr__` must, when `name` is not exported.
    """
    if name not in exports:
        raise AttributeError(f"module {package!r} has no attribute {name!r}")
    return getattr(import_module(exports[name]), name)
