"""Lines that scroll: drawn when they come on the screen, kept until they change."""

from textual.cache import LRUCache
from textual.content import Content
from textual.geometry import Region
from textual.scroll_view import ScrollView
from textual.strip import Strip
from textual.visual import Visual

_KEPT_STRIPS = 1024


class StripView(ScrollView, can_focus=True):
    """The base of all lists and texts. Subclasses say how many lines there are and what is on each,
    and call `forget_strips` when lines changed."""

    def __init__(self, id: str | None = None, classes: str | None = None) -> None:
        super().__init__(id=id, classes=classes)
        self._strips: LRUCache[tuple[int, int, str], Strip] = LRUCache(_KEPT_STRIPS)

    @property
    def text_width(self) -> int:
        """Cells of a line."""
        return max(self.scrollable_content_region.width, 1)

    @property
    def row_count(self) -> int:
        raise NotImplementedError

    def line_content(self, line: int, look: str) -> Content:
        """The line in a look that `look_of` gave it."""
        raise NotImplementedError

    def look_of(self, line: int) -> str:
        """Names how a line looks now (say, that the cursor is on it); empty for the plain look.
        Where it is a component class, that styles the line."""
        return ""

    def render_line(self, y: int) -> Strip:
        line, width = y + round(self.scroll_offset.y), self.text_width
        if line >= self.row_count:
            return Strip.blank(width, self.rich_style)
        look = self.look_of(line)
        strip = self._strips.get((line, width, look))
        if strip is None:
            strip = self._strip(self.line_content(line, look), width, look)
            self._strips[line, width, look] = strip
        return strip

    def _strip(self, content: Content, width: int, look: str = "") -> Strip:
        styled = look in self.COMPONENT_CLASSES
        style = self.get_visual_style(look) if styled else self.visual_style
        strips = Visual.to_strips(self, content, width, 1, style)
        strip = strips[0] if strips else Strip.blank(width, style.rich_style)
        return strip.adjust_cell_length(width, style.rich_style)

    def refresh_line(self, y: int) -> None:
        self.refresh_lines(y)

    def refresh_lines(self, y_start: int, line_count: int = 1) -> None:
        """Draws lines again, without the scrollbar beside them."""
        top = y_start - round(self.scroll_offset.y)
        self.refresh(Region(0, top, self.text_width, line_count))

    def forget_strips(self) -> None:
        self._strips.clear()

    def notify_style_update(self) -> None:
        self.forget_strips()
        super().notify_style_update()
