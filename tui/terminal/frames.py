"""How many times a screen is drawn for one key: once, where that can be."""

import asyncio
from collections.abc import Callable
from time import monotonic
from typing import Any, Final, TypeVar

from textual.geometry import Size
from textual.reactive import Reactive
from textual.renderables.background_screen import BackgroundScreen
from textual.screen import UPDATE_PERIOD, Screen
from textual.timer import Timer
from textual.widget import Widget, _RenderCache

from tui.terminal.compositor import PieceCompositor
from tui.terminal.dimmed import dimmed_lines

Result = TypeVar("Result")

_TURNS: Final = 4  # until a focus that moves has been told to both, and by them to the screen
HELD_S: Final = 0.09  # at most: a mark that something takes long shows after 100 ms
KEPT_S: Final = 0.03  # at most, for the rest of what a key does


class OneFrame(Screen[Result]):
    """Draws what belongs together in one frame, and of that the pieces that changed."""

    # Textual would draw all of the screen for another focus; what looks different with it is drawn
    # by those that get and lose it.
    focused: Reactive[Widget | None] = Reactive(None, repaint=False)

    def __init__(self, *arguments: Any, **settings: Any) -> None:
        super().__init__(*arguments, **settings)
        self._compositor = PieceCompositor()
        self._held: Timer | None = None
        self._after_frame: set[Callable[[], object]] = set()
        self._drawn_at = 0.0
        self._kept_since: float | None = None  # the first of the frames that a key keeps back

    @property
    def holds_frame(self) -> bool:
        return self._held is not None

    def call_with_frame(self, then: Callable[[], object]) -> None:
        """Calls `then` once, when the frame that is held has gone."""
        self._after_frame.add(then)

    def hold_frame(self) -> None:
        """Draws nothing until `let_frame_go`, or for HELD_S: what a key changes in several steps,
        some of them answers of threads, is one frame."""
        if self._held is None:
            self.app._begin_batch()
            self._held = self.set_timer(HELD_S, self.let_frame_go)

    def let_frame_go(self) -> None:
        """Draws what was held back; without effect where nothing is."""
        held, self._held = self._held, None
        if held is not None:
            held.stop()
            self.app._end_batch()
            self._update_timer.resume()
            waiting, self._after_frame = self._after_frame, set()
            for then in waiting:
                self.call_after_refresh(then)

    async def let_frame_go_soon(self) -> None:
        """Lets it go with what is under way, such as a focus that moves."""
        for _ in range(_TURNS if self.holds_frame else 0):
            await asyncio.sleep(0)
        self.call_later(self.let_frame_go)

    def lay_out(self) -> None:
        """Gives what is shown in the frame that is held the room that it will have: it is wrapped
        for that once."""
        if self._held is None:
            return
        for one in self.walk_children(Widget):
            if one._layout_required:
                one._layout_required = False
                for ancestor in one.ancestors:
                    if isinstance(ancestor, Widget):
                        ancestor._clear_arrangement_cache()
                        ancestor._layout_updates += 1
        batch, self.app._batch_count = self.app._batch_count, 0  # else it is drawn a little later
        try:
            self._refresh_layout()
        finally:
            self.app._batch_count = batch
        self._layout_required = False

    def draw_now(self, widget: Widget) -> None:
        """Draws what changed of a widget where it stands, also while the frame is held: what was
        waited for need not wait for a layout that comes of it."""
        if not self.is_current:
            return
        regions = self._compositor._dirty_regions.copy()
        widgets, batch = self._dirty_widgets - {widget}, self.app._batch_count
        self._compositor._dirty_regions.clear()
        self._compositor.update_widgets({widget})
        self.app._batch_count = 0
        try:
            super()._compositor_refresh()
        finally:
            self.app._batch_count = batch
        self._compositor._dirty_regions |= regions
        self._dirty_widgets |= widgets

    def draw_due(self) -> None:
        """Draws what changed, as long after the frame before it as Textual's timer would. That one
        is late by most of a sixtieth of a second where nothing was drawn before it."""
        waits = self._layout_required or self._scroll_required or self._repaint_required
        due = monotonic() - self._drawn_at >= UPDATE_PERIOD
        if due and self._held is None and (waits or self._dirty_widgets):
            self._on_timer_update()

    def _waits_for_key(self) -> bool:
        """Whether more comes of the last key soon: the focus that goes from one list to another is
        told to one after the other, and drawn once."""
        if not getattr(self.app, "keys_act", False):
            return False
        if self._kept_since is None:
            self._kept_since = monotonic()
        return monotonic() - self._kept_since < KEPT_S

    def _refresh_layout(self, size: Size | None = None, scroll: bool = False) -> None:
        # Textual lays everything out once more when the room for what a pane holds changed, which
        # is what it has just found out: only a scrollbar that comes or goes takes room from it.
        bars = {one: one.scrollbars_enabled for one in self.walk_children(Widget)}
        wait = {one for one in (*bars, *self._compositor._full_map) if one._layout_required}
        super()._refresh_layout(size, scroll)
        if all(one.scrollbars_enabled == before for one, before in bars.items()):
            for one in {*bars, *self._compositor._full_map} - wait:
                one._layout_required = False
        for one in wait:
            # Its size is kept by this number, which Textual leaves alone for one that waits
            # already: what is written into it before its turn would keep the size of before.
            one._layout_updates += 1

    def _render_content(self) -> None:
        under = self.render()
        if not isinstance(under, BackgroundScreen):
            super()._render_content()
            return
        strips = dimmed_lines(under, self.visual_style.rich_style)
        self._render_cache = _RenderCache(self.size, strips)
        self._dirty_regions.clear()

    def _compositor_refresh(self) -> None:
        if self._held is None:
            super()._compositor_refresh()

    def _on_timer_update(self) -> None:
        if self._waits_for_key():
            return  # the timer goes on, and asks again
        self._drawn_at, self._kept_since = monotonic(), None
        # Textual draws what a new layout changed, and then the whole screen where all of it waits
        # for that: the same lines twice.
        ready = self.is_current and not self.app._batch_count
        if ready and self._layout_required and self._repaint_required:
            self._repaint_required = False
            self._compositor._dirty_regions.add(self.size.region)
        super()._on_timer_update()
        if ready and self._compositor._dirty_regions:  # what was laid out while it was held
            self._compositor_refresh()
