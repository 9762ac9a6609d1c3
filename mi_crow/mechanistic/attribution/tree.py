"""Which features act through which: the target's causes, and the causes of those, layer by layer.

What feature i of an earlier SAE does to the target through feature j of a later one is the same
product with the later feature as target: z_i (d / d y . W_dec[i]) of sum_t a_j(t) z_j(t), where
a_j(t) = d m / d z_j(t) is held fixed. One backward pass for each feature that is expanded.

Below a feature of an SAE over several layers are those of its own earlier layers, whose effects are
direct ones, with the layers of the SAE held (see `across`): the edges of an attribution graph.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from mi_crow.mechanistic.attribution.across import layer_of
from mi_crow.mechanistic.attribution.passes import Graph
from mi_crow.mechanistic.attribution.site import Reading

if TYPE_CHECKING:
    from torch import Tensor

    from mi_crow.mechanistic.attribution.attribute import Cause

_CHILDREN = 8  # of one node
_INSIDE = 2  # features of one SAE that act through each other, below one of its own


@dataclass(frozen=True)
class Influence:
    """One feature in the tree."""

    sae_id: str
    feature: int
    effect: float  # on the target, through the feature that it is under
    share: float  # of the effects of all features of the last SAE, in absolute value
    children: "tuple[Influence, ...]" = ()
    layer: str = ""  # of an SAE over several layers: the one that the feature is of

    def as_json(self) -> dict[str, Any]:
        """The same as plain values."""
        rows = [one.as_json() for one in self.children]
        found = {**vars(self), "children": rows}
        return found if self.layer else {k: v for k, v in found.items() if k != "layer"}


def has_tree(readings: Sequence[Reading]) -> bool:
    """Whether some of the features can act through others."""
    return len(readings) > 1 or any(one.site.is_causal for one in readings)


def influences(
    graph: Graph,
    gradients: "Sequence[Tensor]",
    causes: "Sequence[Sequence[Cause]]",
    top: int,
    prune: float,
) -> tuple[Influence, ...]:
    """The causes of the last SAE, each with the features before it that act through it, down to a
    share of `prune`. `graph` has its readings first in the order of `gradients`."""
    readings = graph.readings[: len(gradients)]
    if not readings:
        return ()
    last = len(readings) - 1
    total = sum(abs(one.effect) / one.share for one in causes[last][:1]) or 1.0
    grow = _Grow(graph, total, prune)
    roots = [one for one in causes[last][:top] if one.share >= prune]
    slopes = readings[last].slopes(gradients[last]) if has_tree(readings) else None
    return tuple(
        Influence(
            readings[last].site.sae_id,
            one.feature,
            one.effect,
            one.share,
            () if slopes is None else grow.below(last, one.feature, slopes),
            one.layer,
        )
        for one in roots
    )


class _Grow:
    """Expands features into those before them."""

    def __init__(self, graph: Graph, total: float, prune: float) -> None:
        self._graph, self._total, self._prune = graph, total, prune

    def below(
        self, level: int, feature: int, slopes: "Tensor", inside: int = 0
    ) -> tuple[Influence, ...]:
        """The features that act through `feature` of the SAE `level`, given the target's slopes
        [n, k] by that SAE's latents: those of the SAE before it, and of its own earlier layers,
        unless it is itself the last of as many as `inside` counts."""
        readings = self._graph.readings
        later = readings[level]
        levels = [level] if later.site.is_causal and inside < _INSIDE else []
        levels += [level - 1] if level else []
        if not levels:
            return ()
        here = later.latents.indices == feature
        through = (torch.where(here, slopes, 0) * later.latents.values).sum()
        flows = self._graph.direct_slopes(through, levels, level)
        found = []
        for at, flow in zip(levels, flows, strict=True):
            earlier = readings[at]
            inner = earlier.slopes(flow)
            effects = earlier.by_feature(earlier.plain.values * inner)
            best = effects.abs().topk(min(_CHILDREN, len(effects)))
            depth = inside + 1 if at == level else 0
            found += [(float(effects[one]), at, one, inner, depth) for one in best.indices.tolist()]
        found.sort(key=lambda one: -abs(one[0]))
        return tuple(
            Influence(
                readings[at].site.sae_id,
                one,
                effect,
                abs(effect) / self._total,
                self.below(at, one, inner, depth),
                layer_of(readings[at], one),
            )
            for effect, at, one, inner, depth in found[:_CHILDREN]
            if effect and abs(effect) / self._total >= self._prune
        )
