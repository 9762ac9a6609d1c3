"""Ready lines of content that scroll: the base of examples, tokens and streamed text."""

from collections.abc import Sequence

from textual.content import Content
from textual.geometry import Size
from textual.scroll_view import ScrollView
from textual.strip import Strip
from textual.visual import Visual


class LineView(ScrollView, can_focus=True):
    """Shows lines that are as wide as the view. Subclasses give them to `set_lines`, again after
    each change of the width (`rewrap`), and may give some another look."""

    def __init__(self, id: str | None = None, classes: str | None = None) -> None:
        super().__init__(id=id, classes=classes)
        self._lines: Sequence[Content] = ()
        self._strips: dict[tuple[int, str], Strip] = {}
        self._wrapped_for = 0

    @property
    def text_width(self) -> int:
        """Cells of a line."""
        return max(self.scrollable_content_region.width, 1)

    def set_lines(self, lines: Sequence[Content]) -> None:
        self._lines = lines
        self._strips.clear()
        self._wrapped_for = self.text_width
        self.virtual_size = Size(0, len(lines))
        self.refresh()

    def rewrap(self) -> None:
        """The width changed: make the lines again."""

    def look_of(self, line: int) -> str:
        """Names how a line looks now (say that the cursor is on it), empty for the plain look."""
        return ""

    def line_content(self, line: int, look: str) -> Content:
        """The line in that look."""
        return self._lines[line]

    def render_line(self, y: int) -> Strip:
        line = y + round(self.scroll_offset.y)
        width = self.text_width
        if line >= len(self._lines):
            return Strip.blank(width, self.rich_style)
        look = self.look_of(line)
        strip = self._strips.get((line, look))
        if strip is None:
            style = self.visual_style
            content = self.line_content(line, look)
            strips = Visual.to_strips(self, content, width, 1, style)
            strip = strips[0] if strips else Strip.blank(width, style.rich_style)
            strip = strip.adjust_cell_length(width, style.rich_style)
            self._strips[line, look] = strip
        return strip

    def notify_style_update(self) -> None:
        self._strips.clear()
        super().notify_style_update()

    def on_resize(self) -> None:
        if self.text_width != self._wrapped_for:
            self._wrapped_for = self.text_width
            self.rewrap()
