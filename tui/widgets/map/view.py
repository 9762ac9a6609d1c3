"""The map of features on the screen: moves, zooms, and says which feature is nearest."""

from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
from rich.segment import Segment
from rich.style import Style as RichStyle
from textual import events
from textual.geometry import Region
from textual.message import Message
from textual.strip import Strip
from textual.style import Style
from textual.widget import Widget

from tui.actions import bindings
from tui.widgets.map.colours import Colouring
from tui.widgets.map.dots import BLANK, Dots, dots
from tui.widgets.map.viewport import Viewport

if TYPE_CHECKING:
    from mi_crow.mechanistic.features.feature_map import FeatureMap

_BRAILLE = 0x2800
_ONE = "•"
_FEW = 20  # cells to a feature from which a dot alone is too little to see its colour
_HERE = "◆"  # the nearest feature, where the cursor is not on it


class MapView(Widget, can_focus=True):
    """Braille dots under a cursor. A move of the cursor draws the cells that it changes."""

    BINDINGS = bindings("map")
    COMPONENT_CLASSES = {"map--cursor", "map--region", "map--here"}

    @dataclass
    class Moved(Message):
        """The cursor is at another place."""

        feature: int | None  # the nearest
        in_cell: int  # features under the cursor

    @dataclass
    class Opened(Message):
        feature: int

    @dataclass
    class RegionEnded(Message):
        features: list[int]

    class NameWanted(Message):
        """The feature at the cursor is to be named."""

    class ColourWanted(Message):
        """Another meaning of the colours is asked for."""

    def __init__(
        self,
        found: "FeatureMap",
        colours: Colouring,
        feature: int | None,
        view: Viewport | None = None,
        at: tuple[float, float] | None = None,
    ) -> None:
        """The cursor begins on `feature` or, where that is given, `at` a point, in the part `view`
        of the map or, where they are outside of it, a part of that size around them."""
        super().__init__(id="map-view")
        placed = found.placed
        self._features = placed
        self._x, self._y = found.x[placed].astype(float), found.y[placed].astype(float)
        self._colours = colours
        self._whole = self._view = Viewport.whole(self._x, self._y)
        self._dots: Dots | None = None
        self._lines: dict[int, Strip] = {}
        self._styles: dict[str, RichStyle] = {}
        self._at = (  # the cursor, on the map
            self._view.left + self._view.width / 2,
            self._view.bottom + self._view.height / 2,
        )
        self._near = np.arange(0)  # places of the nearest features
        self._turn = 0  # which of them is meant
        self._corner: tuple[float, float] | None = None  # where a region began
        if at is not None:
            self._at = at
        elif feature is not None and len(start := np.flatnonzero(placed == feature)):
            self._at = float(self._x[start[0]]), float(self._y[start[0]])
        if view is not None:
            self._view = view.around(*self._at, self._whole)

    # What is where.

    @property
    def view(self) -> Viewport:
        """The part of the map that is shown."""
        return self._view

    @property
    def at(self) -> tuple[float, float]:
        """The point of the cursor."""
        return self._at

    @property
    def shape(self) -> tuple[int, int]:
        """Columns and rows."""
        return max(self.size.width, 1), max(self.size.height, 1)

    @property
    def feature(self) -> int | None:
        """The feature that is meant: the nearest, or the one that was stepped to from there."""
        return int(self._features[self._near[self._turn]]) if len(self._near) else None

    @property
    def is_marking(self) -> bool:
        return self._corner is not None

    def _cell(self, at: tuple[float, float]) -> tuple[int, int]:
        return self._view.cell_of(*at, *self.shape)

    @property
    def _cursor(self) -> tuple[int, int]:
        column, row = self._cell(self._at)
        columns, rows = self.shape
        return min(max(column, 0), columns - 1), min(max(row, 0), rows - 1)

    @property
    def _here(self) -> tuple[int, int] | None:
        """The cell of the feature that is meant."""
        if not len(self._near):
            return None
        place = self._near[self._turn]
        return self._cell((float(self._x[place]), float(self._y[place])))

    @property
    def _region(self) -> Region:
        """The cells of the region that is being marked; empty while none is."""
        if self._corner is None:
            return Region()
        (a, b), (c, d) = self._cell(self._corner), self._cursor
        return Region(min(a, c), min(b, d), abs(a - c) + 1, abs(b - d) + 1)

    # Drawing.

    @property
    def drawn(self) -> Dots:
        if self._dots is None:
            colours = self._colours
            of = colours.of[self._features] if colours.of is not None else None
            self._dots = dots(self._x, self._y, of, len(colours.kinds), self._view, self.shape)
        return self._dots

    def set_colours(self, colours: Colouring) -> None:
        self._colours = colours
        self._draw_anew()

    def _draw_anew(self) -> None:
        self._dots = None
        self._lines.clear()
        self.refresh()

    def notify_style_update(self) -> None:
        self._styles.clear()
        self._lines.clear()
        super().notify_style_update()

    def _style(self, colour: str) -> RichStyle:
        if colour not in self._styles:
            if colour in self.COMPONENT_CLASSES:
                self._styles[colour] = self.get_component_rich_style(colour)
            else:
                own = Style.parse(colour, self.app.theme_variables)
                self._styles[colour] = (self.visual_style + own).rich_style
        return self._styles[colour]

    def render_line(self, y: int) -> Strip:
        if y not in self._lines:
            self._lines[y] = self._line(y)
        strip = self._lines[y]
        region = self._region
        if region.y <= y < region.bottom:
            strip = self._covered(strip, region.x, region.right, "map--region")
        here, (column, row) = self._here, self._cursor
        if here is not None and here[1] == y and here != (column, row):
            strip = self._covered(strip, here[0], here[0] + 1, "map--here", _HERE)
        if row == y:
            strip = self._covered(strip, column, column + 1, "map--cursor")
        return strip

    def _line(self, y: int) -> Strip:
        """One line without cursor and region, each run of one kind as a segment."""
        drawn = self.drawn
        if y >= len(drawn.kinds):
            return Strip.blank(self.size.width, self.rich_style)
        kinds, bits = drawn.kinds[y], drawn.braille[y]
        texts = [self._sign(n) for n in bits.tolist()]
        starts = [0, *(np.flatnonzero(np.diff(kinds)) + 1).tolist(), len(kinds)]
        plain, blank = self.app.no_color, self.rich_style
        segments = []
        for start, end in pairwise(starts):
            kind = int(kinds[start])
            if kind == BLANK:
                segments.append(Segment(" " * (end - start), blank))
                continue
            look = self._colours.kinds[kind]
            text = look.mark * (end - start) if plain else "".join(texts[start:end])
            segments.append(Segment(text, self._style(look.colour)))
        return Strip(segments, len(kinds))

    def _sign(self, bits: int) -> str:
        """The dots of a cell; one that the eye finds, in its colour, where they are few."""
        few = self.drawn.counts.sum() * _FEW < self.drawn.counts.size
        return " " if not bits else _ONE if few else chr(_BRAILLE + bits)

    def _covered(self, strip: Strip, start: int, end: int, look: str, text: str = "") -> Strip:
        """`strip` with some cells in another look."""
        start, end = max(start, 0), min(end, strip.cell_length)
        if start >= end:
            return strip
        style = self._style(look)
        if text:
            middle = [Segment(text, style)]
        else:
            middle = [
                Segment(one.text, (one.style or RichStyle()) + style)
                for one in strip.crop(start, end)
            ]
        rest = strip.crop(end, strip.cell_length)
        return Strip.join([strip.crop(0, start), Strip(middle, end - start), rest])

    # Moving.

    def on_mount(self) -> None:
        self.call_after_refresh(self._look_around)

    def on_resize(self) -> None:
        self._draw_anew()
        self._look_around()

    def _go(self, at: tuple[float, float]) -> None:
        """Puts the cursor at a point of the map, on which it may turn, and draws what changes."""
        before = self._shown_cells()
        self._at = at
        self._look_around(before)

    def _shown_cells(self) -> list[Region]:
        here = self._here
        cells = [Region(*self._cursor, 1, 1)] + ([Region(*here, 1, 1)] if here else [])
        return [*cells, self._region] if self._corner is not None else cells

    def _look_around(self, before: list[Region] | None = None) -> None:
        self._near = self._view.nearest(self._x, self._y, self._at, self.shape)
        self._turn = 0
        self._tell(before)

    def _tell(self, before: list[Region] | None = None) -> None:
        if before is not None:
            self.refresh(*before, *self._shown_cells())
        column, row = self._cursor
        counts = self.drawn.counts
        in_cell = int(counts[row, column]) if row < len(counts) else 0
        self.post_message(self.Moved(self.feature, in_cell))

    def _look(self, view: Viewport) -> None:
        """Shows another part of the map; the cursor stays on the screen."""
        if view != self._view:
            self._view = view
            self._at = self._view.centre_of(*self._cursor, *self.shape)
            self._draw_anew()
            self._look_around()

    def action_move(self, right: int, down: int) -> None:
        column, row = self._cursor
        columns, rows = self.shape
        column, row = column + right, row + down
        if not (0 <= column < columns and 0 <= row < rows):  # the map moves on, the point stays
            at = self._view.centre_of(column, row, *self.shape)
            view = self._view.panned(right / 4, -down / 4, self._whole)
            if view == self._view:
                return
            self._view, self._at = view, at
            self._draw_anew()
            self._look_around()
            return
        self._go(self._view.centre_of(column, row, *self.shape))

    def action_pan(self, right: int, down: int) -> None:
        """Half a screen on; where the map ends, the cursor goes there."""
        view = self._view.panned(right / 2, -down / 2, self._whole)
        if view != self._view:
            self._look(view)
            return
        (column, row), (columns, rows) = self._cursor, self.shape
        column = min(max(column + right * columns // 2, 0), columns - 1)
        row = min(max(row + down * rows // 2, 0), rows - 1)
        self._go(self._view.centre_of(column, row, *self.shape))

    def action_zoom(self, steps: int) -> None:
        """Around the cursor, which stays on its point."""
        view = self._view.zoomed(0.5**steps, self._at[0], self._at[1], self._whole)
        if view != self._view:
            self._view = view
            self._draw_anew()
            self._look_around()

    def action_whole(self) -> None:
        self._view = self._whole
        self._draw_anew()
        self._look_around()

    def action_turn(self, steps: int) -> None:
        """On to the next of the nearest features; the cursor goes there."""
        if len(self._near):
            before = self._shown_cells()
            self._turn = (self._turn + steps) % len(self._near)
            place = self._near[self._turn]
            at = float(self._x[place]), float(self._y[place])
            column, row = self._cell(at)
            if 0 <= column < self.shape[0] and 0 <= row < self.shape[1]:
                self._at = at
            self._tell(before)

    def action_region(self) -> None:
        """Begins a region at the cursor, or ends it there: its features are marked."""
        if self._corner is None:
            self._corner = self._at
            self.refresh(Region(*self._cursor, 1, 1))
            self.screen.refresh_bindings()  # what escape does
            self._tell()
            return
        region = self._region
        first = self._view.centre_of(region.x, region.bottom - 1, *self.shape)
        last = self._view.centre_of(region.right - 1, region.y, *self.shape)
        half = self._view.width / self.shape[0] / 2, self._view.height / self.shape[1] / 2
        inside = (
            (self._x >= first[0] - half[0])
            & (self._x < last[0] + half[0])
            & (self._y >= first[1] - half[1])
            & (self._y < last[1] + half[1])
        )
        self.stop_marking()
        self.post_message(self.RegionEnded(self._features[inside].tolist()))

    def stop_marking(self) -> bool:
        """Leaves the region; False when none was begun."""
        region, self._corner = self._region, None
        if region:
            self.refresh(region)
            self.screen.refresh_bindings()
        return bool(region)

    def action_colour(self) -> None:
        self.post_message(self.ColourWanted())

    def action_tag(self) -> None:
        self.post_message(self.NameWanted())

    def action_open(self) -> None:
        if self.feature is not None:
            self.post_message(self.Opened(self.feature))

    def on_click(self, event: events.Click) -> None:
        at = event.get_content_offset(self)
        if at is None:
            return
        if (at.x, at.y) == self._cursor:
            self.action_open()
        else:
            self._go(self._view.centre_of(at.x, at.y, *self.shape))
