"""A histogram in block characters; pure."""

import math
from collections.abc import Callable, Sequence
from functools import partial
from itertools import pairwise

from tui.text import count, number

_BLOCKS = " ▁▂▃▄▅▆▇█"


_one_digit = partial(number, digits=1)


def histogram_chart(
    counts: Sequence[int],
    edges: Sequence[float],
    width: int,
    height: int,
    text: Callable[[float], str] = _one_digit,
) -> tuple[list[tuple[str, str]], str]:
    """A histogram with numbers on its axes, in `width` cells: lines of `height`, each as its label
    at the left and its bars, and the line of values below them, each written by `text`.

    Empty bins at the end are left out: the edges are shared by all features. The labels are the
    greatest count of a column and, where it is not the same line, the count of the lowest mark.
    """
    end = max((n for n, value in enumerate(counts, start=1) if value), default=0)
    if not end:
        return [], ""
    shown = list(counts[:end])
    label = count(max(shown))
    room = max(width - len(label) - 1, 1)
    bins = _rebinned(shown, room)
    label = count(max(bins))
    room = max(width - len(label) - 1, 1)
    bars = histogram_lines(shown, room, height)
    labels = [label, *[""] * (height - 2), "1"][:height]
    lines = [(f"{text:>{len(label)}}", bar) for text, bar in zip(labels, bars, strict=True)]
    return lines, " " * (len(label) + 1) + _values(edges[: end + 1], len(bars[0]), text)


def _values(edges: Sequence[float], width: int, text: Callable[[float], str]) -> str:
    """The values at the left end, in the middle and at the right end, as far as there is room."""
    first, last = text(edges[0]), text(edges[-1])
    middle = text(edges[len(edges) // 2])
    at = (len(edges) // 2) * width // max(len(edges) - 1, 1) - len(middle) // 2
    line = first
    if len(first) < at and at + len(middle) < width - len(last):
        line = f"{line:<{at}}{middle}"
    return f"{line}{last:>{max(width - len(line), len(last) + 1)}}"


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
