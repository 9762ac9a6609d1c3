"""The table of all features: virtual, so that 131,072 rows cost what a screenful costs.

It holds the sorted permutation of feature ids and reads only the rows on the screen and on the
pages beside it, in blocks, in a thread. Painted lines are kept; a move repaints the two lines that
changed.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

from textual.cache import LRUCache
from textual.content import Content
from textual.message import Message

from mi_crow.mechanistic.features.catalogue import DEFAULT
from tui.terminal.frames import OneFrame
from tui.threads import ThreadWork
from tui.widgets.lists.cursor_list import CursorList
from tui.widgets.lists.feature_columns import Layout, column_of, layout, needs_of, row_content
from tui.widgets.lists.feature_marks import FeatureMarks

if TYPE_CHECKING:
    from mi_crow.mechanistic.features.records import FeatureRow

BLOCK_ROWS = 64
_IN_EVERY_ROW = frozenset(
    ["feature", "density", "fires", "max_act", "mean_act", "meaning", "top_label", "top_auroc"]
)
_KEPT_BLOCKS = 64

Fetch = Callable[[Sequence[int], Sequence[str]], "Sequence[FeatureRow]"]
"""Rows of some features, with what the columns of these names say."""


class FeatureTable(ThreadWork, CursorList):
    """Features under the cursor keys, in the order of the ids that `show` was given."""

    @dataclass(eq=False, repr=False)
    class Highlighted(Message):
        """The cursor is on another feature (None: the table is empty)."""

        feature: int | None

    @dataclass(eq=False, repr=False)
    class Opened(Message):
        """Enter, or a click on the row that already had the cursor."""

        feature: int

    @dataclass(eq=False, repr=False)
    class RowsFailed(Message):
        """Rows on the screen cannot be read."""

        error: Exception

    @dataclass(eq=False, repr=False)
    class LaidOut(Message):
        """The columns or their widths are others."""

    def __init__(self, id: str | None = None, classes: str | None = None) -> None:
        super().__init__(id=id, classes=classes)
        self._ids: Sequence[int] = ()
        self._fetch: Fetch | None = None
        self._generation = 0
        self._blocks: LRUCache[int, tuple[FeatureRow, ...]] = LRUCache(_KEPT_BLOCKS)
        self._stale: set[int] = set()
        self._expected: int | None = None  # the row that the cursor may go to next
        self._to_draw: int | None = None  # that, until what is around it is drawn
        self._found_last = 0  # the row of the feature that was looked for last
        self.columns: tuple[str, ...] = DEFAULT
        self._needs: dict[str, int] = {}  # the widest cell of each column so far
        self._layout: tuple[int, Layout] | None = None  # and the width it is for
        self.marks = FeatureMarks()

    # What is shown.

    def show(
        self, ids: Sequence[int], fetch: Fetch, empty: str = "No features", *, first: bool = False
    ) -> None:
        """Shows `ids` in this order; the cursor stays on its feature where that is still there, or
        goes to the `first`.

        `fetch` gives the rows of some ids in their order; it is called in a thread.
        """
        before = self.feature
        if fetch != self._fetch:
            self._needs, self._layout = {}, None  # another index
        self._ids, self._fetch, self._empty = ids, fetch, empty
        self._generation += 1
        self._expected = self._to_draw = None
        self._blocks.clear()
        self._stale.clear()
        place = None if before is None or first else self.place_of(before)
        self.rows_changed(place or 0)
        self._read_visible()
        if self.feature != before:
            self.tell_highlighted()

    def reread(self) -> None:
        """Reads the shown rows again (a concept changed); the old ones stay until then."""
        self._stale = set(self._blocks.keys())
        self._read_visible()

    def say_name(self, feature: int, name: str) -> None:
        """Shows a name that is being written, at once, until the row is read again."""
        place = self.place_of(feature)
        row = self.row_at(place) if place is not None else None
        if place is None or row is None:
            return
        block, offset = divmod(place, BLOCK_ROWS)
        rows = list(self._blocks[block])
        rows[offset] = replace(row, concept=name or None)
        self._blocks.discard(block)
        self._blocks[block] = tuple(rows)
        self.forget_lines(range(place, place + 1))
        self.refresh_lines(place, 1)
        if isinstance(self.screen, OneFrame):
            self.screen.draw_now(self)

    @property
    def shown_ids(self) -> Sequence[int]:
        """All features in the table, in its order."""
        return self._ids

    def marks_changed(self) -> None:
        """Draws the rows again: others are marked."""
        self.forget_strips()
        self.refresh()
        self.post_message(self.LaidOut())

    def set_columns(self, columns: Sequence[str]) -> None:
        """Shows other columns, whose rows are read again."""
        if tuple(columns) != self.columns:
            self.columns = tuple(columns)
            self._generation += 1
            self._blocks.clear()
            self._needs = {name: need for name, need in self._needs.items() if name in columns}
            self._lay_out()
            self._read_visible()

    @property
    def layout_now(self) -> Layout:
        """The columns that fit, and their widths."""
        width = self.text_width
        if self._layout is None or self._layout[0] != width:
            self._layout = width, layout(self.columns, self._needs, width)
        return self._layout[1]

    def _lay_out(self) -> None:
        self._layout = None
        self.forget_strips()
        self.refresh()
        self.post_message(self.LaidOut())

    @property
    def feature(self) -> int | None:
        """The feature under the cursor."""
        return self._ids[self.cursor] if self._ids else None

    @property
    def row_count(self) -> int:
        return len(self._ids)

    def place_of(self, feature: int) -> int | None:
        """The row of a feature, None when the filter hides it."""
        place = self._found_last  # a feature is asked for several times; a look takes milliseconds
        if place >= len(self._ids) or self._ids[place] != feature:
            try:
                place = self._found_last = self._ids.index(feature)
            except ValueError:
                return None
        return place

    def go_to(self, feature: int) -> bool:
        """Puts the cursor on a feature; False when the filter hides it."""
        place = self.place_of(feature)
        if place is not None:
            self.cursor = place
        return place is not None

    def expect(self, feature: int) -> None:
        """Reads and draws what is around a feature that the cursor may go to next."""
        self._expected = self._to_draw = self.place_of(feature)
        self._draw_expected()
        self._read_visible()

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
        for block in self._wanted_blocks():
            if block in self._stale or block not in self._blocks:
                start = block * BLOCK_ROWS
                ids = list(self._ids[start : start + BLOCK_ROWS])
                self.in_thread(
                    partial(fetch, ids, self._more()),
                    partial(self._rows_read, self._generation, block),
                    group="rows",
                    failed=partial(self._rows_failed, self._generation),
                )
                return

    def _wanted_blocks(self) -> list[int]:
        """The blocks on the screen, then those of the pages below and above it: the next page
        shows its rows at once."""
        height, count = max(self.size.height, 1), len(self._ids)
        first = max(round(self.scroll_offset.y), 0)
        last = min(first + height, count) - 1
        below, above = min(last + height, count - 1), max(first - height, 0)
        ends = [(first, last), (last, below), (above, first)]
        if (place := self._expected) is not None:
            ends.append((max(place - height, 0), min(place + height, count - 1)))
        if isinstance(self.screen, OneFrame) and self.screen.holds_frame:
            ends = ends[:1]  # the frame waits for what it shows
            self.screen.call_with_frame(self._read_visible)
        wanted = [range(a // BLOCK_ROWS, b // BLOCK_ROWS + 1) for a, b in ends]
        return list(dict.fromkeys(block for blocks in wanted for block in blocks))

    def _draw_expected(self) -> None:
        """Draws the screenful that the cursor brings when it goes to the expected row, once it is
        read: the row is the first of it or the last, or it is on the screen already."""
        place, height = self._to_draw, self.size.height
        first = round(self.scroll_offset.y)
        if place is None or first <= place < first + height:
            return
        begin = place if place < first else max(place - height + 1, 0)
        lines = range(begin, min(begin + height, len(self._ids)))
        if lines and all(self.row_at(line) is not None for line in (lines[0], lines[-1])):
            self._to_draw = None
            self.draw_ahead(lines)

    def _more(self) -> tuple[str, ...]:
        return tuple(n for n in self.columns if column_of(n).key not in _IN_EVERY_ROW)

    def _rows_read(self, generation: int, block: int, rows: "Sequence[FeatureRow]") -> None:
        if generation == self._generation:
            self._stale.discard(block)
            self._blocks.discard(block)  # the cache never overwrites
            self._blocks[block] = tuple(rows)
            needs = needs_of(self.columns, rows)
            wider = {name: n for name, n in needs.items() if n > self._needs.get(name, 0)}
            self._needs |= wider
            if wider and layout(self.columns, self._needs, self.text_width) != self.layout_now:
                self._lay_out()
            else:
                lines = range(block * BLOCK_ROWS, (block + 1) * BLOCK_ROWS)
                self.forget_lines(lines)
                self.refresh_lines(lines.start, len(lines))
            self._draw_expected()
        self._read_visible()

    def _rows_failed(self, generation: int, error: Exception) -> None:
        if generation == self._generation:
            self.post_message(self.RowsFailed(error))
        else:
            self._read_visible()

    # Drawing.

    def row_content(self, index: int, width: int, marker: str) -> Content:
        feature = self._ids[index]
        row = self.row_at(index)
        marked = feature in self.marks
        return row_content(feature, row, self.layout_now, marker, marked=marked)

    def watch_scroll_y(self, old_value: float, new_value: float) -> None:
        super().watch_scroll_y(old_value, new_value)
        self._read_visible()

    def on_resize(self) -> None:
        self.post_message(self.LaidOut())
        self._keep_cursor_visible()
        self._read_visible()

    def tell_highlighted(self) -> None:
        self.post_message(self.Highlighted(self.feature))

    def action_select_row(self) -> None:
        if self.feature is not None:
            self.post_message(self.Opened(self.feature))
