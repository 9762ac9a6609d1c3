"""Charts in braille dots with an axis on each side; and a bar. Pure.

The axes are round numbers that contain the data, so that a new point changes the lines it is on and
no others: that is what keeps a chart of a running job cheap on a slow line.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise, zip_longest

from textual.content import Content

from tui.widgets.lists.row_list import fitted

Point = tuple[float, float]

_BRAILLE = 0x2800
_DOTS = ((0x01, 0x02, 0x04, 0x40), (0x08, 0x10, 0x20, 0x80))  # by column and row within a cell
_LEAST_WIDTH = 16
_GAP = 3  # cells between two charts
_STEPS = (1.0, 2.0, 5.0, 10.0)
_TICKS = (1.0, 2.0, 2.5, 5.0, 10.0)  # first digits of the distance of two ticks
_TICK_LINES = 3  # of two ticks, at least
_RULED = "┈"
_NEAR = 9  # cells that a named mark may go to, its own first


@dataclass(frozen=True)
class Curve:
    """Points in the order of x."""

    points: tuple[Point, ...]
    style: str = "$chart"


@dataclass(frozen=True)
class Mark:
    """One point that stands out."""

    point: Point
    sign: str = "●"
    style: str = "$chart"
    named: bool = False  # where another named one is already, it goes beside that


@dataclass(frozen=True)
class Axis:
    """What an axis says: its name, how it writes a number, and where it must begin and end."""

    name: str
    text: Callable[[float], str]
    low: float | None = None
    high: float | None = None


def chart(
    x: Axis, y: Axis, width: int, height: int, curves: Sequence[Curve], marks: Sequence[Mark] = ()
) -> list[Content]:
    """`height` lines with the plot and one with the x axis, each `width` cells wide.

    Points that are not finite are left out. Without any point there is nothing to draw: no lines.
    """
    drawn = [Curve(_finite(curve.points), curve.style) for curve in curves]
    shown = [mark for mark in marks if _finite((mark.point,))]
    points = [point for curve in drawn for point in curve.points]
    points += [mark.point for mark in shown]
    if not points or width < _LEAST_WIDTH or height < 2:
        return []
    low, high = round_range([point[1] for point in points], y.low, y.high)
    start = min(point[0] for point in points) if x.low is None else x.low
    end = max(start, *(point[0] for point in points), x.high if x.high is not None else start)
    labels = [y.text(high), y.text(low)]
    margin = max(len(label) for label in labels) + 1
    between = ticks(low, high, height)
    margin = max(margin, *(len(y.text(value)) + 1 for value in between), 0)
    canvas = _Canvas(width - margin - 1, height, (start, end), (low, high))
    for value in between:
        canvas.rule(value)
    for curve in drawn:
        canvas.draw(curve)
    for mark in shown:
        canvas.put(mark)
    sides = [labels[0], *[""] * (height - 2), labels[1]]
    for value in between:
        sides[canvas.line_of(value)] = y.text(value)
    lines = [
        Content.assemble((f"{side:>{margin - 1}}", "$muted"), (" │", "$rule"), line)
        for side, line in zip(sides, canvas.lines(), strict=True)
    ]
    return [*lines, _x_line(x, (start, end), margin, width)]


def ticks(low: float, high: float, height: int) -> list[float]:
    """Round numbers between the ends of an axis of `height` lines, evenly apart; none where they
    would be less than three lines apart."""
    span = high - low
    for parts in (5, 4, 3, 2):
        step = span / parts
        digits = step / 10.0 ** math.floor(math.log10(step))
        if height // parts >= _TICK_LINES and any(math.isclose(digits, one) for one in _TICKS):
            return [low + step * at for at in range(1, parts)]
    return []


def room_of_each(columns: int, width: int) -> int:
    """Cells for each of this many charts next to each other."""
    return (width - _GAP * (columns - 1)) // columns


def side_by_side(charts: Sequence[Sequence[Content]], columns: int, width: int) -> Content:
    """Charts of `width` cells each, this many next to each other, an empty line below each row."""
    rows = []
    for at in range(0, len(charts), columns):
        lines = zip_longest(*charts[at : at + columns], fillvalue=Content(""))
        cells = ([fitted(cell, width) for cell in line] for line in lines)
        rows.append(Content("\n").join([Content(" " * _GAP).join(line) for line in cells]))
    return Content("\n\n").join(rows)


def round_range(
    values: Sequence[float], low: float | None = None, high: float | None = None
) -> Point:
    """Round numbers that contain the values, and `low` and `high` where they are given."""
    bottom = min(values) if low is None else min(low, *values)
    top = max(values) if high is None else max(high, *values)
    span = top - bottom or abs(top) or 1.0
    power = 10.0 ** math.floor(math.log10(span / 4))
    step = next(power * factor for factor in _STEPS if power * factor >= span / 4 * 0.999)
    first, last = math.floor(bottom / step + 1e-9) * step, math.ceil(top / step - 1e-9) * step
    return (first, last) if last > first else (first, first + step)


class _Canvas:
    """Cells of two by four dots each."""

    def __init__(self, width: int, height: int, xs: Point, ys: Point) -> None:
        self._width, self._height, self._xs, self._ys = width, height, xs, ys
        self._bits = [[0] * width for _ in range(height)]
        self._styles = [[""] * width for _ in range(height)]
        self._signs: dict[tuple[int, int], Mark] = {}
        self._ruled: set[int] = set()

    def line_of(self, y: float) -> int:
        """The line of cells that a value is on."""
        return self._row(y) // 4

    def rule(self, y: float) -> None:
        """A line across, below everything else."""
        self._ruled.add(self.line_of(y))

    def draw(self, curve: Curve) -> None:
        """A line through the means of the points in each column of dots."""
        columns: dict[int, list[float]] = {}
        for x, y in curve.points:
            columns.setdefault(self._column(x), []).append(y)
        means = [(x, sum(ys) / len(ys)) for x, ys in sorted(columns.items())]
        if len(means) == 1:
            self._dot(means[0][0], self._row(means[0][1]), curve.style)
        for (left, before), (right, after) in pairwise(means):
            last = self._row(before)
            for x in range(left, right + 1):
                row = self._row(before + (after - before) * (x - left) / (right - left))
                for y in range(min(last, row), max(last, row) + 1):
                    self._dot(x, y, curve.style)
                last = row

    def put(self, mark: Mark) -> None:
        y, x = self._row(mark.point[1]) // 4, self._column(mark.point[0]) // 2
        if mark.named:
            near = sorted(range(self._width), key=lambda one: (abs(one - x), -one))
            x = next((one for one in near[:_NEAR] if not self._named(y, one)), x)
        self._signs[y, x] = mark

    def _named(self, y: int, x: int) -> bool:
        mark = self._signs.get((y, x))
        return mark is not None and mark.named

    def lines(self) -> list[Content]:
        found = []
        for y in range(self._height):
            parts: list[tuple[str, str]] = []
            for x in range(self._width):
                mark, bits = self._signs.get((y, x)), self._bits[y][x]
                sign, style = (_RULED, "$rule") if y in self._ruled else (" ", "")
                if bits:
                    sign, style = chr(_BRAILLE + bits), self._styles[y][x]
                if mark is not None:
                    sign, style = mark.sign, mark.style
                if parts and parts[-1][1] == style:
                    parts[-1] = (parts[-1][0] + sign, style)
                else:
                    parts.append((sign, style))
            found.append(Content.assemble(*parts))
        return found

    def _column(self, x: float) -> int:
        start, end = self._xs
        return round((x - start) / ((end - start) or 1.0) * (2 * self._width - 1))

    def _row(self, y: float) -> int:
        low, high = self._ys
        return round((high - y) / (high - low) * (4 * self._height - 1))

    def _dot(self, x: int, y: int, style: str) -> None:
        self._bits[y // 4][x // 2] |= _DOTS[x % 2][y % 4]
        self._styles[y // 4][x // 2] = style


def _x_line(x: Axis, ends: Point, margin: int, width: int) -> Content:
    start, end = (x.text(value) for value in ends)
    room = width - margin - 1 - len(start) - len(end)
    return Content.styled(" " * (margin + 1) + start + f"{x.name:^{max(room, 0)}}" + end, "$muted")


def _finite(points: Sequence[Point]) -> tuple[Point, ...]:
    return tuple(point for point in points if all(math.isfinite(value) for value in point))
