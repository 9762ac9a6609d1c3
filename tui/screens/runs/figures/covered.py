"""Which of several curves lie on each other, so that one of them is seen; pure."""

from bisect import bisect_left
from collections.abc import Mapping, Sequence

from tui.widgets.plot import Point, round_range

_DOTS = 4  # of a line of a chart


def covered(
    series: Mapping[int, Sequence[Point]], height: int, low: float | None
) -> dict[int, list[int]]:
    """The curves that lie on an earlier one all the way that both go, in a chart of `height` lines
    whose axis begins at `low`: those that cannot be told from it, by the earlier one."""
    values = [y for points in series.values() for _, y in points]
    if not values:
        return {}
    bottom, top = round_range(values, low)
    dot = (top - bottom) / (_DOTS * max(height, 1))
    found: dict[int, list[int]] = {}
    for place, points in series.items():
        if not points:
            continue
        over = next((one for one in found if _lie_together(series[one], points, dot)), None)
        if over is None:
            found[place] = []
        else:
            found[over].append(place)
    return {place: others for place, others in found.items() if others}


def _lie_together(one: Sequence[Point], other: Sequence[Point], apart: float) -> bool:
    start, end = max(one[0][0], other[0][0]), min(one[-1][0], other[-1][0])
    shared = [x for x, _ in (*one, *other) if start <= x <= end]
    return len(set(shared)) > 1 and all(abs(_at(one, x) - _at(other, x)) < apart for x in shared)


def _at(points: Sequence[Point], x: float) -> float:
    """The height of a curve at `x`, which is between its ends."""
    place = bisect_left(points, x, key=lambda point: point[0])
    right, above = points[place]
    if right == x or place == 0:
        return above
    left, before = points[place - 1]
    return before + (above - before) * (x - left) / (right - left)
