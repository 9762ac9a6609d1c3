"""Everything on disk: workspace, ids, atomic writes, manifests, shards, LocalStore.

Names load on first use, so that importing this package is cheap.
"""

from typing import TYPE_CHECKING

from mi_crow.lazy import Getter, lazy_exports

if TYPE_CHECKING:
    from mi_crow.store.local import LocalStore
    from mi_crow.store.runs.manifest import RunManifest
    from mi_crow.store.workspace import Workspace

__getattr__: Getter = lazy_exports(
    __name__,
    {
        "local": ("LocalStore",),
        "runs.manifest": ("RunManifest",),
        "workspace": ("Workspace",),
    },
)

__all__ = ["LocalStore", "RunManifest", "Workspace"]
