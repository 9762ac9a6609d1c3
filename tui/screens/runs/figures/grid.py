"""Charts beside and under one another, as large as a pane has room for; pure."""

from collections.abc import Callable, Sequence

from textual.content import Content

from tui.widgets.plot import room_of_each, side_by_side

Draw = Callable[[int, int], Sequence[Content]]
"""Draws a chart of a width, with this many lines for its plot; no lines where there is nothing."""

AROUND = 3  # lines of a chart beside its plot: the title, the axis, the line below
_LEAST_WIDTH = 38  # cells of a chart
_GOOD_HEIGHT, _MOST_HEIGHT = 9, 24  # lines of a plot


def chart_grid(draws: Sequence[Draw], width: int, room: int, least: int) -> Content:
    """As few columns of charts as are high enough in `room` lines, else as many as fit beside one
    another; a plot of at least `least` lines, also where it has to be scrolled to."""
    if not draws:
        return Content("")
    fit = max(min(width // _LEAST_WIDTH, len(draws)), 1)
    heights = [(n, _height(len(draws), n, room)) for n in range(min(2, fit), fit + 1)]
    columns, height = next((one for one in heights if one[1] >= _GOOD_HEIGHT), heights[-1])
    each = room_of_each(columns, width)
    height = max(min(height, _MOST_HEIGHT, each // 3), least)
    charts = [lines for lines in (draw(each, height) for draw in draws) if lines]
    return side_by_side(charts, min(columns, len(charts)), each) if charts else Content("")


def _height(charts: int, columns: int, room: int) -> int:
    """Lines of each plot in this many columns; the last row needs no line below."""
    rows = -(-charts // columns)
    return (room + 1) // rows - AROUND
