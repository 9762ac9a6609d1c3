"""mi-crow: the terminal workbench for sparse-autoencoder interpretability.

Importing this package is cheap: no room below it is loaded until it is asked for by name.
"""

from importlib.metadata import PackageNotFoundError, version

__all__ = ["__version__"]

try:
    __version__ = version("mi-crow-tui")
except PackageNotFoundError:  # running from a source tree that was never installed
    __version__ = "0.0.0"
