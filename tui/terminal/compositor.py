"""What is drawn of a screen when something changed: only the pieces of lines that may be others,
each of them by the widget in front.

Textual draws every line of every widget that touches the rectangle around all changes, also what
lies behind: for a cursor that moves by a row, the whole table and the panes beside it.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from itertools import pairwise
from typing import Any

from rich.style import Style as GroundStyle
from textual._compositor import ChopsUpdate, Compositor
from textual.color import Color
from textual.geometry import Region
from textual.strip import Strip
from textual.style import Style
from textual.widget import Widget

Span = tuple[int, int, int]
"""A line, and the first and the last column (not included) of what may have changed on it."""


class PieceCompositor(Compositor):
    """Asks a widget for no more lines than it has in front and has to draw."""

    def render_partial_update(self) -> ChopsUpdate | None:
        regions, screen = self._dirty_regions.copy(), self.size.region
        self._dirty_regions.clear()
        inside = [region.intersection(screen) for region in regions]
        spans = list(self._regions_to_spans([region for region in inside if region]))
        if not spans:
            return None
        return ChopsUpdate(self._drawn(spans), spans, [cuts[1:] for cuts in self.cuts])

    def _render_chops(self, crop: Region, is_rendered_line: Any) -> Sequence[Mapping[int, Strip]]:
        left, right = crop.column_span
        lines = range(max(crop.y, 0), min(crop.bottom, len(self.cuts)))
        return self._drawn([(y, left, right) for y in lines if is_rendered_line(y)])

    def _drawn(self, spans: Iterable[Span]) -> list[dict[int, Strip]]:
        """The pieces of each line by their first column, from cut to cut; None where nothing of a
        piece is in the spans."""
        cuts = self.cuts
        drawn: list[dict[int, Any]] = [dict.fromkeys(line[:-1]) for line in cuts]
        missing: dict[int, set[int]] = {}
        for y, first, last in spans:
            found = {cut for cut, end in pairwise(cuts[y]) if cut < last and end > first}
            missing.setdefault(y, set()).update(found)
        for widget, (region, clip) in self.visible_widgets.items():  # the one in front first
            shown = region.intersection(clip)
            left, right = shown.column_span
            wanted = [
                y
                for y in shown.line_range
                if y in missing and any(left <= cut < right for cut in missing[y])
            ]
            for top, end in _runs(wanted):
                part = Region(shown.x - region.x, top - region.y, shown.width, end - top)
                for y, strip in zip(range(top, end), _lines(widget, part), strict=False):
                    inside = [cut for cut in cuts[y] if left <= cut <= right]
                    pieces = strip.divide([cut - left for cut in inside[1:]])
                    for cut, piece in zip(inside, pieces, strict=False):
                        if cut in missing[y]:
                            drawn[y][cut] = piece
                            missing[y].discard(cut)
        return drawn


def _lines(widget: Widget, part: Region) -> list[Strip]:
    """Lines of a widget. Of one without a border, padding or effects they are ready: what Textual
    does for each of them would change nothing."""
    styles = widget.styles
    own = type(widget).render_lines is not Widget.render_lines
    faded = widget.opacity != 1.0 or styles.text_opacity != 1.0 or styles.tint.a
    if own or faded or styles.gutter or styles.outline or styles.has_rule("hatch"):
        return widget.render_lines(part)
    if widget.hover_style.link_id:
        return widget.render_lines(part)
    width, (below, background) = widget.outer_size.width, widget.background_colors
    blank = _ground(below + background)
    lines = [widget.render_line(y).adjust_cell_length(width, blank) for y in part.line_range]
    for line_filter in widget.get_line_filters():
        lines = [line.apply_filter(line_filter, background) for line in lines]
    if part.column_span == (0, width):
        return lines
    return [line.crop(*part.column_span) for line in lines]


@lru_cache(64)
def _ground(colour: Color) -> GroundStyle:
    return Style(background=colour).rich_style


def _runs(lines: Sequence[int]) -> Iterator[tuple[int, int]]:
    """The first of lines that follow each other, and the one after the last of them."""
    start = 0
    for at in range(1, len(lines) + 1):
        if at == len(lines) or lines[at] != lines[at - 1] + 1:
            yield lines[start], lines[at - 1] + 1
            start = at
