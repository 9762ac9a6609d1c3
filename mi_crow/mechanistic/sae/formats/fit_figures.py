"""What the check of an SAE's fit measures, and from when on another place fits better."""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from torch import Tensor

if TYPE_CHECKING:
    from mi_crow.language_model.layers import HookPoint

OUTLIER_FACTOR = 10.0  # tokens above this multiple of the median norm are left out
POOR_FVU = 0.9  # above it the SAE does not fit
# How much lower the FVU of an alternative must be to be suggested: a factor and a difference.
_BETTER, _MARGIN = 0.8, 0.03


@dataclass(frozen=True)
class Fit:
    """How well an SAE does at a hook point; `fvu` and `l0` are of tokens that are not outliers."""

    layer: "HookPoint"
    fvu: float
    fvu_all: float  # outliers included
    l0: float
    outlier_share: float
    outlier_norm: float
    tokens: int
    alternatives: dict[str, float]  # what else was tried, and its FVU on the same texts
    warnings: tuple[str, ...]
    # Of an SAE over several layers: the FVU of each hook point that it predicts.
    layers: dict[str, float] = field(default_factory=dict)
    # The same of L0, unless its latents are of all layers.
    l0_by_layer: dict[str, float] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        names = ("fvu", "fvu_all", "l0", "outlier_share", "tokens", "alternatives")
        found = {name: getattr(self, name) for name in names}
        by_layer = {"fvu_by_layer": self.layers, "l0_by_layer": self.l0_by_layer}
        return found | {name: figures for name, figures in by_layer.items() if figures}


@dataclass(frozen=True)
class Captured:
    """Activations of the same tokens at several hook points."""

    at: "dict[HookPoint, Tensor]"  # [n, d]
    ordinary: Tensor  # bool [n]: not a special token


def fits_better(other: float, fvu: float) -> bool:
    """Whether an alternative's FVU is so much lower that it is worth a sentence."""
    return other < min(fvu * _BETTER, fvu - _MARGIN, POOR_FVU)
