"""What a drag of the mouse selects in lines of text: whole lines but for the first and the last."""

from dataclasses import dataclass

from rich.segment import Segment
from rich.style import Style
from textual.strip import Strip

Place = tuple[int, int]
"""A line and the cell in it."""


@dataclass(frozen=True)
class TextSelection:
    """From where the button was pressed to where the pointer is now."""

    anchor: Place
    pointer: Place

    @property
    def lines(self) -> range:
        first, last = sorted((self.anchor[0], self.pointer[0]))
        return range(first, last + 1)

    def cells(self, line: int, width: int) -> tuple[int, int]:
        """The first cell of a line that is selected, and the one after the last."""
        if line not in self.lines:
            return 0, 0
        (first, start), (last, end) = sorted((self.anchor, self.pointer))
        return start if line == first else 0, min(end + 1, width) if line == last else width

    def text(self, line: int, strip: Strip) -> str:
        return strip.crop(*self.cells(line, strip.cell_length)).text.rstrip()

    def shown_on(self, line: int, strip: Strip, style: Style) -> Strip:
        """The line with its selected cells in `style`."""
        start, end = self.cells(line, strip.cell_length)
        if start >= end:
            return strip
        before, inside, after = strip.divide([start, end, strip.cell_length])
        marked = Strip(Segment.apply_style(inside, post_style=style), inside.cell_length)
        return Strip.join([before, marked, after])
