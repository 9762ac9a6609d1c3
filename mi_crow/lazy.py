"""Lazy exports for package `__init__` files (PEP 562)."""

from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from typing import Any

Getter = Callable[[str], Any]


def lazy_exports(package: str, names: Mapping[str, Sequence[str]]) -> Getter:
    """The `__getattr__` of a package that loads names on first use; `names` are those of each
    module, which is given relative to the package.

    It raises AttributeError, as it must, for a name that is not exported.
    """
    homes = {name: f".{module}" for module, exported in names.items() for name in exported}

    def get(name: str) -> Any:
        if name not in homes:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        return getattr(import_module(homes[name], package), name)

    return get
