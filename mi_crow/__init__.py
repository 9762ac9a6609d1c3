"""mi-crow: the terminal workbench for sparse-autoencoder interpretability.

Importing this package is cheap: no room below it is loaded until it is asked for by name.
"""

from typing import Any

__all__ = ["__version__"]

__version__: str


def __getattr__(name: str) -> Any:
    """The version, when it is asked for: reading the metadata of packages takes 60 ms."""
    if name != "__version__":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("mi-crow-tui")
    except PackageNotFoundError:  # running from a source tree that was never installed
        return "0.0.0"
