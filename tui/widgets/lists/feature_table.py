"""The table of all features: virtual, so that 131,072 rows cost what a screenful costs.

It holds the sorted permutation of feature ids and reads only the rows on the screen, in blocks, in
a thread. Painted lines are kept; a move repaints the two lines that changed.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from textual import events
from textual.cache import LRUCache
from textual.content import Content
from textual.geometry import Region, Size
from textual.message import Message
from textual.reactive import reactive
from textual.scroll_view import ScrollView
from textual.strip import Strip
from textual.visual import Visual

from tui.actions import bindings
from tui.threads import ThreadWork
from tui.widgets.lists.feature_columns import row_content

if TYPE_CHECKING:
    from mi_crow.mechanistic.features.records import FeatureRow

BLOCK_ROWS = 64
_KEPT_BLOCKS = 64
_KEPT_STRIPS = 1024

Fetch = Callable[[Sequence[int]], "Sequence[FeatureRow]"]


class FeatureTable(ThreadWork, ScrollView, can_focus=True):
    """Features under the cursor keys, in the order of the ids that `show` was given."""

    BINDINGS = bindings("list")
    COMPONENT_CLASSES = {"feature-table--cursor", "feature-table--cursor-blurred"}
    cursor: reactive[int] = reactive(0, init=False)

    @dataclass
    class Highlighted(Message):
        """The cursor stands on another feature (None: the table is empty)."""

        feature: int | None

    @dataclass
    class Opened(Message):
        """Enter, or a click on the row that already had the cursor."""

        feature: int

    def __init__(self, id: str | None = None, classes: str | None = None) -> None:
        super().__init__(id=id, classes=classes)
        self._ids: Sequence[int] = ()
        self._fetch: Fetch | None = None
        self._generation = 0
        self._blocks: LRUCache[int, tuple[FeatureRow, ...]] = LRUCache(_KEPT_BLOCKS)
        self._stale: set[int] = set()
        self._strips: LRUCache[tuple[int, int, int], Strip] = LRUCache(_KEPT_STRIPS)
        self._empty = ""

    # What is shown.

    def show(self, ids: Sequence[int], fetch: Fetch, empty: str = "No features") -> None:
        """Shows `ids` in this order; the cursor stays on its feature where that is still there.

        `fetch` gives the rows of some ids in their order; it is called in a thread.
        """
        before = self.feature
        self._ids, self._fetch, self._empty = ids, fetch, empty
        self._generation += 1
        self._blocks.clear()
        self._strips.clear()
        self._stale.clear()
        self.virtual_size = Size(0, len(ids))
        place = None if before is None else self.place_of(before)
        self.set_reactive(FeatureTable.cursor, place or 0)
        self._keep_cursor_visible()
        self.refresh()
        self._read_visible()
        if self.feature != before:
            self.post_message(self.Highlighted(self.feature))

    def reread(self) -> None:
        """Reads the shown rows again (a concept changed); the old ones stay until then."""
        self._stale = set(self._blocks.keys())
        self._read_visible()

    @property
    def feature(self) -> int | None:
        """The feature under the cursor."""
        return self._ids[self.cursor] if self._ids else None

    @property
    def row_count(self) -> int:
        return len(self._ids)

    def place_of(self, feature: int) -> int | None:
        """The row of a feature, None when the filter hides it."""
        try:
            return self._ids.index(feature)
        except ValueError:
            return None

    def go_to(self, feature: int) -> bool:
        """Puts the cursor on a feature; False when the filter hides it."""
        place = self.place_of(feature)
        if place is not None:
            self.cursor = place
        return place is not None

    def row_at(self, place: int) -> "FeatureRow | None":
        """The row at a place, None while it is not read."""
        block = self._blocks.get(place // BLOCK_ROWS)
        offset = place % BLOCK_ROWS
        return block[offset] if block is not None and offset < len(block) else None

    # Reading rows.

    def _read_visible(self) -> None:
        """Starts the next read that the screen needs. One at a time: a fast scroll skips blocks."""
        fetch = self._fetch
        if self.is_working("rows") or fetch is None or not self._ids:
            return
        first = max(round(self.scroll_offset.y), 0)
        last = min(first + max(self.size.height, 1), len(self._ids)) - 1
        for block in range(first // BLOCK_ROWS, last // BLOCK_ROWS + 1):
            if block in self._stale or block not in self._blocks:
                start = block * BLOCK_ROWS
                ids = list(self._ids[start : start + BLOCK_ROWS])
                self.in_thread(
                    partial(fetch, ids),
                    partial(self._rows_read, self._generation, block),
                    group="rows",
                    failed=partial(self._rows_failed, self._generation),
                )
                return

    def _rows_read(self, generation: int, block: int, rows: "Sequence[FeatureRow]") -> None:
        if generation == self._generation:
            self._stale.discard(block)
            self._blocks.discard(block)  # the cache never overwrites
            self._blocks[block] = tuple(rows)
            self._strips.clear()
            self.refresh_lines(block * BLOCK_ROWS, BLOCK_ROWS)
        self._read_visible()

    def _rows_failed(self, generation: int, error: Exception) -> None:
        if generation == self._generation:
            self.tell(error)
        else:
            self._read_visible()

    # Drawing.

    def render_line(self, y: int) -> Strip:
        place = y + round(self.scroll_offset.y)
        width = self.scrollable_content_region.width
        if not self._ids and y == 0 and self._empty:
            return self._strip(Content.assemble(" ", (self._empty, "$muted")), width, "")
        if place >= len(self._ids):
            return Strip.blank(width, self.rich_style)
        look = 0 if place != self.cursor else 1 if self.has_focus else 2
        key = (place, width, look)
        strip = self._strips.get(key)
        if strip is None:
            name = ("", "feature-table--cursor", "feature-table--cursor-blurred")[look]
            marker = "▌" if look == 1 else " "
            row = self.row_at(place)
            strip = self._strip(row_content(self._ids[place], row, width, marker), width, name)
            self._strips[key] = strip
        return strip

    def _strip(self, content: Content, width: int, component: str) -> Strip:
        style = self.get_visual_style(component) if component else self.visual_style
        strips = Visual.to_strips(self, content, width, 1, style)
        return strips[0].adjust_cell_length(width, style.rich_style)

    def notify_style_update(self) -> None:
        self._strips.clear()
        super().notify_style_update()

    def watch_scroll_y(self, old_value: float, new_value: float) -> None:
        super().watch_scroll_y(old_value, new_value)
        self._read_visible()

    def on_resize(self) -> None:
        self._keep_cursor_visible()
        self._read_visible()

    def on_focus(self) -> None:
        self.refresh_line(self.cursor)

    def on_blur(self) -> None:
        self.refresh_line(self.cursor)

    # Moving.

    def validate_cursor(self, cursor: int) -> int:
        return max(0, min(cursor, len(self._ids) - 1))

    def watch_cursor(self, before: int, now: int) -> None:
        if before == now:
            return
        self._keep_cursor_visible()
        self.refresh_line(before)
        self.refresh_line(now)
        self.post_message(self.Highlighted(self.feature))

    def _keep_cursor_visible(self) -> None:
        self.scroll_to_region(Region(0, self.cursor, 1, 1), animate=False, force=True)

    def action_cursor_down(self) -> None:
        self.cursor += 1

    def action_cursor_up(self) -> None:
        self.cursor -= 1

    def action_page_down(self) -> None:
        self.cursor += max(self.size.height - 1, 1)

    def action_page_up(self) -> None:
        self.cursor -= max(self.size.height - 1, 1)

    def action_first(self) -> None:
        self.cursor = 0

    def action_last(self) -> None:
        self.cursor = len(self._ids) - 1

    def action_select_row(self) -> None:
        if self.feature is not None:
            self.post_message(self.Opened(self.feature))

    def on_click(self, event: events.Click) -> None:
        place = event.y + round(self.scroll_offset.y)
        if 0 <= place < len(self._ids):
            if place == self.cursor:
                self.action_select_row()
            self.cursor = place
