"""A histogram in block characters; pure."""

import math
from collections.abc import Sequence
from itertools import pairwise

_BLOCKS = " ▁▂▃▄▅▆▇█"


def histogram_lines(counts: Sequence[int], width: int, height: int) -> list[str]:
    """`counts` from left to right as `height` lines of at most `width` characters.

    Heights are logarithmic, as activations fall off by powers: a bin with anything in it shows at
    least the lowest mark. Neighbouring bins are added up where there are more than `width`.
    """
    bins = _rebinned(counts, width)
    top = math.log1p(max(bins, default=0))
    if not top:
        return [" " * len(bins)] * height
    levels = [max(round(math.log1p(n) / top * height * 8), 1) if n > 0 else 0 for n in bins]
    return [
        "".join(_BLOCKS[max(0, min(level - 8 * row, 8))] for level in levels)
        for row in reversed(range(height))
    ]


def _rebinned(counts: Sequence[int], width: int) -> list[int]:
    if not counts or width < 1:
        return []
    if len(counts) <= width:
        times = width // len(counts)
        return [count for count in counts for _ in range(times)]
    edges = [x * len(counts) // width for x in range(width + 1)]
    return [sum(counts[start:end]) for start, end in pairwise(edges)]
