"""Lines that scroll: drawn when they come on the screen, kept until they change."""

from collections.abc import Collection, Iterable

from rich.segment import Segment
from rich.style import Style as GroundStyle
from textual import events
from textual.cache import LRUCache
from textual.content import Content
from textual.geometry import Region, Size, Spacing
from textual.scroll_view import ScrollView
from textual.strip import Strip
from textual.style import Style
from textual.widget import Widget

from tui.terminal.line_filter import filtered
from tui.widgets.lists.text_selection import Place, TextSelection

_KEPT_STRIPS = 256  # four times what a screen shows
_NO_GUTTER = Spacing()


class StripView(ScrollView, can_focus=True):
    """The base of all lists and texts. Subclasses say how many lines there are and what is on each,
    and call `forget_strips` when lines changed.

    A drag of the mouse selects text, and copies it when the button is let go.
    """

    ALLOW_SELECT = False  # Textual would select whatever else is between two panes

    def __init__(self, id: str | None = None, classes: str | None = None) -> None:
        super().__init__(id=id, classes=classes)
        self._strips: LRUCache[tuple[int, int, str], Strip] = LRUCache(_KEPT_STRIPS)
        self._drawn_in: object = None  # the colours of the strips
        self._grounded: LRUCache[tuple[Style, str | Style], GroundStyle] = LRUCache(_KEPT_STRIPS)
        self._pressed: Place | None = None  # where the button was, while it is down
        self._selection: TextSelection | None = None
        self._drawn_width: int | None = None  # while lines are drawn
        self._drawn_blank: GroundStyle | None = None  # of lines that there are not, meanwhile

    @property
    def text_width(self) -> int:
        """Cells of a line."""
        if self._drawn_width is not None:
            return self._drawn_width
        return max(self.scrollable_content_region.width, 1)

    @property
    def row_count(self) -> int:
        raise NotImplementedError

    def line_content(self, line: int, look: str) -> Content:
        """The line in a look that `look_of` gave it."""
        raise NotImplementedError

    def text_to_copy(self) -> tuple[str, str]:
        """The text that the key for copying takes, and what it is in words; empty for nothing."""
        return "", ""

    def look_of(self, line: int) -> str:
        """Names how a line looks now (say, that the cursor is on it); empty for the plain look.
        Where it is a component class, that styles the line."""
        return ""

    def render_lines(self, crop: Region) -> list[Strip]:
        """Lines without a border, padding or opacity need none of what Textual does for each."""
        self._look_at_colours()
        styles = self.styles
        if styles.gutter != _NO_GUTTER or self.opacity != 1.0 or styles.tint.a:
            return super().render_lines(crop)
        width, background = self.outer_size.width, self.background_colors[1]
        self._drawn_width = self.text_width  # Textual looks for it all over the screen
        self._drawn_blank = blank = self.rich_style  # and for this on all that is around
        try:
            strips = [self.render_line(y) for y in crop.line_range]
            if beside_bar := crop.column_span == (0, self._drawn_width):
                width = self._drawn_width
            strips = [strip.adjust_cell_length(width, blank) for strip in strips]
        finally:
            self._drawn_width = self._drawn_blank = None
        strips = filtered(strips, self.get_line_filters(), background)
        if not beside_bar and crop.column_span != (0, width):
            strips = [strip.crop(*crop.column_span) for strip in strips]
        return strips

    def render_line(self, y: int) -> Strip:
        line, width = y + round(self.scroll_offset.y), self.text_width
        if line >= self.row_count:
            return Strip.blank(width, self._drawn_blank or self.rich_style)
        look = self.look_of(line)
        strip = self._strips.get((line, width, look))
        if strip is None:
            strip = self._strip(self.line_content(line, look), width, look)
            self._strips[line, width, look] = strip
        if self._selection is not None:
            style = self.screen.get_visual_style("screen--selection").rich_style
            return self._selection.shown_on(line, strip, style)
        return strip

    def _strip(self, content: Content, width: int, look: str = "") -> Strip:
        """The content as it is, cut at `width`: nothing to wrap, to align or to select."""
        styled = look in self.COMPONENT_CLASSES
        style = self.get_visual_style(look) if styled else self.visual_style
        if styled and self.get_component_styles(look).text_style.reverse:  # Textual leaves it out
            style += Style(reverse=True)
        return Strip(self._segments(content, style)).adjust_cell_length(width, style.rich_style)

    def _segments(self, content: Content, base: Style) -> list[Segment]:
        """The content on a ground. Where its spans follow each other, in a third of the time that
        Textual takes for spans that may be within others."""
        text, at = content.plain, 0
        segments: list[Segment] = []
        for start, end, style in content.spans:
            if not at <= start < end <= len(text):
                styled = content.render(base, end="", parse_style=self._get_style)
                return [Segment(part, (base + own).rich_style) for part, own in styled if part]
            if start > at:
                segments.append(Segment(text[at:start], self._on_ground(base, "")))
            segments.append(Segment(text[start:end], self._on_ground(base, style)))
            at = end
        if at < len(text):
            segments.append(Segment(text[at:], self._on_ground(base, "")))
        return segments

    def _on_ground(self, base: Style, style: str | Style) -> GroundStyle:
        found = self._grounded.get((base, style))
        if found is None:
            own = base + self._get_style(style) if style else base
            found = self._grounded[base, style] = (base + own).rich_style
        return found

    def set_line_count(self, count: int) -> None:
        """How many lines there are. Textual lays out the whole screen for another number of them;
        here only where a scrollbar comes or goes, or the height follows the lines."""
        size, styles = Size(0, count), self.styles
        follows = styles.height is not None and styles.height.is_auto
        bar = styles.overflow_y == "scroll" or (
            styles.overflow_y == "auto" and count > self.container_size.height
        )
        if follows or not self.container_size or bar != self.show_vertical_scrollbar:
            self.virtual_size = size
        elif size != self.virtual_size:
            self.set_reactive(Widget.virtual_size, size)  # type: ignore[arg-type]
            self._scroll_update(size)

    def refresh_line(self, y: int) -> None:
        self.refresh_lines(y)

    def refresh_lines(self, y_start: int, line_count: int = 1) -> None:
        """Draws lines again, without the scrollbar beside them."""
        top = y_start - round(self.scroll_offset.y)
        self.refresh(Region(0, top, self.text_width, line_count))

    def forget_strips(self) -> None:
        self._strips.clear()
        self._selection = None  # those lines are gone

    # Selecting text with the mouse.

    async def on_event(self, event: events.Event) -> None:
        if isinstance(event, events.Click) and self._selection is not None:
            return  # the end of a drag
        if isinstance(event, events.Key | events.MouseDown):
            self._select(None)
        await super().on_event(event)

    def on_mouse_down(self, event: events.MouseDown) -> None:
        if event.button == 1:
            self._pressed = self._place(event)

    def on_mouse_move(self, event: events.MouseMove) -> None:
        if self._pressed is None or (
            self._selection is None and self._place(event) == self._pressed
        ):
            return
        if not event.button:  # it was let go where nobody heard of it
            self._pressed = None
            return
        self.capture_mouse()
        if not 0 <= event.y < self.size.height:
            self.scroll_relative(y=-1 if event.y < 0 else 1, animate=False, immediate=True)
        self._select(TextSelection(self._pressed, self._place(event)))

    def on_mouse_up(self) -> None:
        self._pressed = None
        self.release_mouse()
        if self._selection is None:
            return
        width = self.text_width
        lines = [
            self._selection.text(line, self._strip(self.line_content(line, ""), width))
            for line in self._selection.lines
        ]
        if text := "\n".join(lines).strip("\n"):
            self.app.copy_to_clipboard(text)
            self.app.notify("Copied what you selected")

    def _place(self, event: events.MouseEvent) -> Place:
        line = event.y + round(self.scroll_offset.y)
        return max(0, min(line, self.row_count - 1)), max(0, min(event.x, self.text_width - 1))

    def _select(self, selection: TextSelection | None) -> None:
        before, self._selection = self._selection, selection
        for lines in {one.lines for one in (before, selection) if one is not None}:
            self.refresh_lines(lines.start, len(lines))

    def draw_ahead(self, lines: Iterable[int]) -> None:
        """Draws lines that come on the screen soon, as they look without the cursor."""
        self._look_at_colours()
        width = self._drawn_width = self.text_width
        try:
            for line in lines:
                if (key := (line, width, "")) not in self._strips:
                    self._strips[key] = self._strip(self.line_content(line, ""), width)
        finally:
            self._drawn_width = None

    def forget_lines(self, lines: Collection[int]) -> None:
        """Forgets how some lines were drawn."""
        for key in [key for key in list(self._strips.keys()) if key[0] in lines]:
            self._strips.discard(key)

    def _look_at_colours(self) -> None:
        """Forgets the strips when the colours changed. Textual tells of each update of styles,
        which most often changes none: the class of a screen, the focus."""
        looks = [self.get_visual_style(name) for name in sorted(self.COMPONENT_CLASSES)]
        colours = self.visual_style, looks, self.app.theme, self.app.theme_variables
        if colours != self._drawn_in:
            self._drawn_in = colours
            self._grounded.clear()
            self.forget_strips()
