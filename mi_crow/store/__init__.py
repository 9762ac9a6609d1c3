"""Everything on disk: workspace, ids, atomic writes, manifests, shards, LocalStore.

Names load on first use, so that importing this package is cheap.
"""

from typing import TYPE_CHECKING, Any

from mi_crow.lazy import lazy_exports

if TYPE_CHECKING:
    from mi_crow.store.local import LocalStore
    from mi_crow.store.runs.manifest import RunManifest
    from mi_crow.store.workspace import Workspace

_EXPORTS = {
    "LocalStore": "mi_crow.store.local",
    "RunManifest": "mi_crow.store.runs.manifest",
    "Workspace": "mi_crow.store.workspace",
}

__all__ = ["LocalStore", "RunManifest", "Workspace"]


def __getattr__(name: str) -> Any:
    return lazy_exports(__name__, _EXPORTS, name)
