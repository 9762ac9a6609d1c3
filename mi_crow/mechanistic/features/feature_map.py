"""Where each feature lies among the others on the map of decoder directions. Torch-free."""

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from mi_crow.mechanistic.features.columns import ConceptColumns, FeatureColumns
    from mi_crow.mechanistic.features.connection import IndexConnection


@dataclass(frozen=True)
class FeatureMap:
    """One array a property, indexed by feature."""

    x: np.ndarray  # float32; nan, like `y`, where the index has no place for a feature
    y: np.ndarray  # float32
    density: np.ndarray  # the share of tokens on which it fires
    label: np.ndarray  # index in `labels` of its best label, or -1
    named: np.ndarray  # bool
    labels: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.x)

    @cached_property
    def placed(self) -> np.ndarray:
        """The numbers of the features that have a place."""
        return np.flatnonzero(~np.isnan(self.x))


def read_map(
    columns: "FeatureColumns", concepts: "ConceptColumns", connection: "IndexConnection"
) -> FeatureMap:
    """Reads the places; everything else is in memory already. Raises CorruptDataError."""
    with connection.fitting():
        x, y = (columns.numbers(key, connection) for key in ("map_x", "map_y"))
    known = ~np.isnan(x + y)  # one of the two alone is no place
    x, y = (np.where(known, values, np.nan).astype(np.float32) for values in (x, y))
    return FeatureMap(x, y, columns.density, columns.label, concepts.named, columns.labels)
