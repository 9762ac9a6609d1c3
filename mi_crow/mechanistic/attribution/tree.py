"""Which features act through which: the target's causes, and the causes of those, layer by layer.

What feature i of an earlier SAE does to the target through feature j of a later one is the same
product with the later feature as target: z_i (d / d y . W_dec[i]) of sum_t a_j(t) z_j(t), where
a_j(t) = d m / d z_j(t) is held fixed. One backward pass for each feature that is expanded.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from mi_crow.mechanistic.attribution.passes import gradient
from mi_crow.mechanistic.attribution.site import Reading

if TYPE_CHECKING:
    from torch import Tensor

    from mi_crow.mechanistic.attribution.attribute import Cause

_CHILDREN = 8  # of one node


@dataclass(frozen=True)
class Influence:
    """One feature in the tree."""

    sae_id: str
    feature: int
    effect: float  # on the target, through the feature that it is under
    share: float  # of the effects of all features of the last SAE, in absolute value
    children: "tuple[Influence, ...]" = ()

    def as_json(self) -> dict[str, Any]:
        """The same as plain values."""
        rows = [one.as_json() for one in self.children]
        return {**vars(self), "children": rows}


def influences(
    readings: Sequence[Reading],
    gradients: "Sequence[Tensor]",
    causes: "Sequence[Sequence[Cause]]",
    top: int,
    prune: float,
) -> tuple[Influence, ...]:
    """The causes of the last SAE, each with the features of the SAE before it that act through it,
    down to a share of `prune`."""
    if not readings:
        return ()
    last = len(readings) - 1
    total = sum(abs(one.effect) / one.share for one in causes[last][:1]) or 1.0
    grow = _Grow(readings, total, prune)
    roots = [one for one in causes[last][:top] if one.share >= prune]
    slopes = readings[last].slopes(gradients[last]) if last else None
    return tuple(
        Influence(
            readings[last].site.sae_id,
            one.feature,
            one.effect,
            one.share,
            () if slopes is None else grow.below(last, one.feature, slopes),
        )
        for one in roots
    )


class _Grow:
    """Expands features into those before them."""

    def __init__(self, readings: Sequence[Reading], total: float, prune: float) -> None:
        self._readings, self._total, self._prune = readings, total, prune

    def below(self, level: int, feature: int, slopes: "Tensor") -> tuple[Influence, ...]:
        """The features of the SAE before `level` that act through `feature`, given the target's
        slopes [n, k] by that SAE's latents."""
        if level == 0:
            return ()
        later, earlier = self._readings[level], self._readings[level - 1]
        here = later.latents.indices == feature
        through = (torch.where(here, slopes, 0) * later.latents.values).sum()
        flow = gradient(through, [earlier.y], keep=True)[0]
        effects = earlier.by_feature(earlier.effects(flow))
        best = effects.abs().topk(min(_CHILDREN, len(effects)))
        inner = earlier.slopes(flow)
        found = []
        for one in best.indices.tolist():
            effect = float(effects[one])
            share = abs(effect) / self._total
            if not effect or share < self._prune:
                continue
            below = self.below(level - 1, one, inner)
            found.append(Influence(earlier.site.sae_id, one, effect, share, below))
        return tuple(found)
