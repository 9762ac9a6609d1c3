"""The factors by which Llamascopium's files scale activations: sqrt(d) / their mean norm."""

import math
from collections.abc import Mapping
from pathlib import Path

from mi_crow.errors import CorruptDataError
from mi_crow.mechanistic.sae.cross_layer.refs import TensorRef

NORM = "dataset_average_activation_norm."
_LEAST_NORM = 1e-6  # of a data set's activations: less is not plausible


def scale_of(norms: Mapping[str, TensorRef], hook: str, width: int, path: Path) -> float:
    """sqrt(width) / the mean norm at `hook`. Raises CorruptDataError where `path` does not say
    it."""
    name = NORM + hook
    if name not in norms:
        raise CorruptDataError(f"{path} has no {name}")
    value = norms[name].read()
    norm = float(value.reshape(-1)[0]) if value.numel() == 1 else math.nan
    if not norm >= _LEAST_NORM or math.isinf(norm):
        raise CorruptDataError(f"{path} has {norm:g} for {name}, which is not a mean norm")
    return math.sqrt(width) / norm
