"""A small chart in block characters, for a reading that changes over time; and a bar."""

import math
from collections.abc import Sequence
from itertools import pairwise

_EIGHTHS = " ▁▂▃▄▅▆▇█"


def area_plot(values: Sequence[float], width: int, height: int) -> list[str]:
    """`values` from left to right as `height` lines of `width` block characters.

    The least value stands at an eighth of a line, the greatest fills all lines; values that are no
    numbers are left out. A plot of nothing is blank.
    """
    series = _resampled([value for value in values if math.isfinite(value)], width)
    if not series:
        return [" " * width] * height
    low, high = min(series), max(series)
    span = (high - low) or 1.0
    eighths = [1 + round((value - low) / span * (height * 8 - 1)) for value in series]
    return [
        "".join(_EIGHTHS[max(0, min(8, eighth - line * 8))] for eighth in eighths)
        for line in reversed(range(height))
    ]


def _resampled(values: list[float], points: int) -> list[float]:
    """At most `points` values: means of equal stretches, or the nearest value where few."""
    count = len(values)
    if not count:
        return []
    if count <= points:
        return [values[min(x * count // points, count - 1)] for x in range(points)]
    edges = [x * count // points for x in range(points + 1)]
    return [sum(values[start:end]) / (end - start) for start, end in pairwise(edges)]


def progress_bar(share: float, width: int) -> tuple[str, str]:
    """The done and the open part of a bar of `width` cells."""
    done = round(max(0.0, min(share, 1.0)) * width)
    return "━" * done, "─" * (width - done)
