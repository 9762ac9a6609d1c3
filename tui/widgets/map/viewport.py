"""The part of the map that is on the screen; pure."""

from dataclasses import dataclass, replace

import numpy as np

_MOST_ZOOM = 4096  # times the whole map
_NEAREST = 64  # points that are looked at from one place
_MARGIN = 0.02  # of the map on each side, so that no point is on the edge


@dataclass(frozen=True)
class Viewport:
    """A rectangle of the map. Its axes have no unit, so each is stretched to fill the screen."""

    left: float
    bottom: float
    width: float
    height: float

    @classmethod
    def whole(cls, x: np.ndarray, y: np.ndarray) -> "Viewport":
        """All points, none of which is nan."""
        if not len(x):
            return cls(-0.5, -0.5, 1.0, 1.0)
        left, bottom = float(x.min()), float(y.min())
        width, height = float(x.max()) - left, float(y.max()) - bottom
        width, height = (span if span > 0 else 1.0 for span in (width, height))
        return cls(
            left - width * _MARGIN,
            bottom - height * _MARGIN,
            width * (1 + 2 * _MARGIN),
            height * (1 + 2 * _MARGIN),
        )

    def zoomed(self, factor: float, x: float, y: float, whole: "Viewport") -> "Viewport":
        """`factor` times as large, with the point (x, y) where it was on the screen; never larger
        than the whole map, nor so small that no number is exact."""
        width = min(max(self.width * factor, whole.width / _MOST_ZOOM), whole.width)
        scale = width / self.width
        return Viewport(
            x - (x - self.left) * scale,
            y - (y - self.bottom) * scale,
            width,
            self.height * scale,
        ).within(whole)

    def panned(self, right: float, up: float, whole: "Viewport") -> "Viewport":
        """Moved by shares of what is in view, not beyond the map."""
        moved = replace(
            self, left=self.left + right * self.width, bottom=self.bottom + up * self.height
        )
        return moved.within(whole)

    def around(self, x: float, y: float, whole: "Viewport") -> "Viewport":
        """The same part where the point (x, y) is in it, else one of its size with the point in
        the middle; all of the map where it is no larger than this."""
        if not (self.width < whole.width and self.height < whole.height):
            return whole
        inside = 0 <= x - self.left <= self.width and 0 <= y - self.bottom <= self.height
        middle = replace(self, left=x - self.width / 2, bottom=y - self.height / 2)
        return (self if inside else middle).within(whole)

    def within(self, whole: "Viewport") -> "Viewport":
        """Moved so that it shows nothing outside the map."""
        left = min(max(self.left, whole.left), whole.left + whole.width - self.width)
        bottom = min(max(self.bottom, whole.bottom), whole.bottom + whole.height - self.height)
        return replace(self, left=left, bottom=bottom)

    def cell_of(self, x: float, y: float, columns: int, rows: int) -> tuple[int, int]:
        """The cell in which a point is, as column and row from the top; may be off the screen."""
        across = (x - self.left) / self.width * columns
        down = (1 - (y - self.bottom) / self.height) * rows
        return int(np.floor(across)), int(np.floor(down))

    def centre_of(self, column: int, row: int, columns: int, rows: int) -> tuple[float, float]:
        """The point in the middle of a cell."""
        return (
            self.left + (column + 0.5) / columns * self.width,
            self.bottom + (1 - (row + 0.5) / rows) * self.height,
        )

    def nearest(
        self, x: np.ndarray, y: np.ndarray, at: tuple[float, float], shape: tuple[int, int]
    ) -> np.ndarray:
        """The places in `x` and `y` of the few points that are nearest to `at` as the screen of
        `shape` (columns, rows) shows them, the nearest first. A cell is twice as high as wide."""
        columns, rows = shape
        across = (x - at[0]) * (columns / self.width)
        down = (y - at[1]) * (2 * rows / self.height)
        distance = across * across + down * down
        few = min(_NEAREST, len(x))
        found = np.argpartition(distance, few - 1)[:few] if few else np.arange(0)
        return found[np.lexsort((found, distance[found]))]
