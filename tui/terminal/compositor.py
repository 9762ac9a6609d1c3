"""What is drawn of a screen when something changed: only the pieces of lines that may be others,
each of them by the widget in front.

Textual draws every line of every widget that touches the rectangle around all changes, also what
lies behind: for a cursor that moves by a row, the whole table and the panes beside it.
"""

from bisect import bisect_right
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

from tui.terminal.line_filter import filtered

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
            wanted: list[int] = []
            edge = left  # of what is missing: a list beside its scrollbar draws its own lines only
            for y in shown.line_range:
                own = [cut for cut in missing.get(y, ()) if left <= cut < right]
                if own:
                    wanted.append(y)
                    edge = max(edge, cuts[y][bisect_right(cuts[y], max(own))])
            right = min(edge, right)
            for top, end in _runs(wanted):
                part = Region(shown.x - region.x, top - region.y, right - left, end - top)
                for y, strip in zip(range(top, end), _lines(widget, part), strict=False):
                    open_cuts = missing[y]
                    inside = [cut for cut in cuts[y] if left <= cut <= right]
                    if len(inside) == 2 and strip.cell_length == right - left:
                        pieces: Sequence[Strip] = [strip]
                    else:
                        pieces = strip.divide([cut - left for cut in inside[1:]])
                    for cut, piece in zip(inside, pieces, strict=False):
                        if cut in open_cuts:
                            drawn[y][cut] = piece
                            open_cuts.discard(cut)
                    if not open_cuts:
                        del missing[y]
        return drawn


def _lines(widget: Widget, part: Region) -> list[Strip]:
    """Lines of a widget. Of one without a border, padding or effects they are ready: what Textual
    does for each of them would change nothing."""
    styles = widget.styles
    own = type(widget).render_lines is not Widget.render_lines
    faded = widget.opacity != 1.0 or styles.text_opacity != 1.0 or styles.tint.a
    if not own and _is_bare(widget):
        return _bare_lines(widget, part)
    if own or faded or styles.gutter or styles.outline or styles.has_rule("hatch"):
        return widget.render_lines(part)
    if widget.hover_style.link_id:
        return widget.render_lines(part)
    width, (below, background) = widget.outer_size.width, widget.background_colors
    blank = _ground(below + background)
    lines = [widget.render_line(y).adjust_cell_length(width, blank) for y in part.line_range]
    lines = filtered(lines, widget.get_line_filters(), background)
    if part.column_span == (0, width):
        return lines
    return [line.crop(*part.column_span) for line in lines]


def _is_bare(widget: Widget) -> bool:
    """Whether all that a widget draws is its ground and what frames it."""
    own, styles = type(widget), widget.styles
    if own.render is not Widget.render or own.render_line is not Widget.render_line:
        return False
    effects = styles.outline or styles.has_rule("hatch") or styles.keyline[0] != "none"
    return widget.is_container and not effects


def _bare_lines(widget: Widget, part: Region) -> list[Strip]:
    """Lines of such a widget: those between its upper and its lower frame are one and the same."""
    gutter = widget.styles.gutter
    first = max(part.y, gutter.top)
    last = min(part.bottom, widget.outer_size.height - gutter.bottom)
    if last - first < 2:
        return widget.render_lines(part)
    above = widget.render_lines(part._replace(height=first - part.y))
    between = widget.render_lines(part._replace(y=first, height=1))
    below = widget.render_lines(part._replace(y=last, height=part.bottom - last))
    return [*above, *between * (last - first), *below]


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
