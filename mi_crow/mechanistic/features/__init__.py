"""The feature index: built in one pass over a run, then queried in milliseconds.

Names load on first use, so that queries cost no torch.
"""

from typing import TYPE_CHECKING, Any

from mi_crow.lazy import lazy_exports

if TYPE_CHECKING:
    from mi_crow.mechanistic.features.config import IndexConfig
    from mi_crow.mechanistic.features.index.build import IndexResult, build_index
    from mi_crow.mechanistic.features.queries import FeatureStore
    from mi_crow.mechanistic.sae.evaluation.pooled_auroc import label_auroc

_ROOM = "mi_crow.mechanistic.features"
_EXPORTS = {
    "FeatureStore": f"{_ROOM}.queries",
    "IndexConfig": f"{_ROOM}.config",
    "IndexResult": f"{_ROOM}.index.build",
    "build_index": f"{_ROOM}.index.build",
    "label_auroc": "mi_crow.mechanistic.sae.evaluation.pooled_auroc",
}

__all__ = ["FeatureStore", "IndexConfig", "IndexResult", "build_index", "label_auroc"]


def __getattr__(name: str) -> Any:
    return lazy_exports(__name__, _EXPORTS, name)
