"""What a few measured strengths of a method say about the others: `steer_curves` goes by it."""

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

_STEEPNESS = 2.0  # log ratio ~ strength ** this, until it is measured
_BOUNDS = (0.5, 4.0)  # of the steepness
_FURTHER = 2.0  # at most so many times the strongest that was measured
_MOST = 6.0  # norms


def share_at(points: Sequence[dict[str, Any]], baseline: float, limit: float) -> float:
    """The share at a ratio of perplexities of `limit`; that of the strongest where none costs more.
    At strength 0 it is `baseline`, at a ratio of 1."""
    ordered = sorted(points, key=lambda one: one["strength"])
    curve = [(1.0, baseline), *((one["perplexity_ratio"], one["share"]) for one in ordered)]
    for (ratio, share), (above, further) in reversed(list(pairwise(curve))):
        if ratio <= limit < above:
            way = math.log(limit / ratio) / math.log(above / ratio)
            return share + way * (further - share)
    return curve[-1][1]


def most_within(points: Sequence[dict[str, Any]], baseline: float, limit: float) -> float:
    """The greatest share at a ratio of at most `limit`: what a user would take, where a stronger
    change does less."""
    fitting = [one["share"] for one in points if one["perplexity_ratio"] <= limit]
    return max([baseline, share_at(points, baseline, limit), *fitting])


def next_on_curve(points: Sequence[dict[str, Any]], limits: Sequence[float]) -> float:
    """The strength at which the limit that is farthest from what was measured should be met."""
    ordered = sorted(points, key=lambda one: one["strength"])
    costs = [(one["strength"], max(math.log(one["perplexity_ratio"]), 1e-3)) for one in ordered]
    steepness = _STEEPNESS
    if len(costs) > 1 and costs[-1][1] > costs[0][1]:
        (low, cheap), (high, dear) = costs[0], costs[-1]
        steepness = math.log(dear / cheap) / math.log(high / low)
        steepness = min(max(steepness, _BOUNDS[0]), _BOUNDS[1])

    def apart(limit: float) -> float:
        return min(abs(math.log(limit) - cost) for _, cost in costs)

    wanted = math.log(max(limits, key=apart))
    strength, cost = min(costs, key=lambda one: abs(math.log(one[1] / wanted)))
    found = strength * (wanted / cost) ** (1 / steepness)
    return min(max(found, costs[0][0] / _FURTHER), costs[-1][0] * _FURTHER, _MOST)
