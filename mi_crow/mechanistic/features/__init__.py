"""The feature index: built in one pass over a run, then queried in milliseconds.

Names load on first use, so that queries cost no torch.
"""

from typing import TYPE_CHECKING

from mi_crow.lazy import Getter, lazy_exports

if TYPE_CHECKING:
    from mi_crow.mechanistic.features.config import IndexConfig
    from mi_crow.mechanistic.features.index.build import IndexResult, build_index
    from mi_crow.mechanistic.features.queries import FeatureStore
    from mi_crow.mechanistic.sae.evaluation.pooled_auroc import label_auroc

__getattr__: Getter = lazy_exports(
    __name__,
    {
        ".sae.evaluation.pooled_auroc": ("label_auroc",),
        "config": ("IndexConfig",),
        "index.build": ("IndexResult", "build_index"),
        "queries": ("FeatureStore",),
    },
)

__all__ = ["FeatureStore", "IndexConfig", "IndexResult", "build_index", "label_auroc"]
