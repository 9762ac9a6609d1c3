"""What an index can have beyond what is always installed. Torch-free."""

import importlib.util

from mi_crow.errors import UserError


def check_umap() -> None:
    """Raises UserError when umap-learn is not installed."""
    if importlib.util.find_spec("umap") is None:
        raise UserError(
            "--map umap needs the package umap-learn",
            hint="install it with the extra `map` (mi-crow-tui[map]), or use --map pca",
        )
