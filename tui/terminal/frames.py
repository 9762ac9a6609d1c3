"""How many times a screen is drawn for one key: once, where that can be."""

from collections.abc import Callable
from typing import Any, Final, TypeVar

from textual.screen import Screen
from textual.timer import Timer

from tui.terminal.compositor import PieceCompositor

Result = TypeVar("Result")

HELD_S: Final = 0.09  # at most: a mark that something takes long shows after 100 ms


class OneFrame(Screen[Result]):
    """Draws what belongs together in one frame, and of that the pieces that changed."""

    def __init__(self, *arguments: Any, **settings: Any) -> None:
        super().__init__(*arguments, **settings)
        self._compositor = PieceCompositor()
        self._held: Timer | None = None
        self._after_frame: set[Callable[[], object]] = set()

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
            self.check_idle()
            waiting, self._after_frame = self._after_frame, set()
            for then in waiting:
                self.call_after_refresh(then)

    def _on_timer_update(self) -> None:
        # Textual draws what a new layout changed, and then the whole screen where all of it waits
        # for that: the same lines twice.
        ready = self.is_current and not self.app._batch_count
        if ready and self._layout_required and self._repaint_required:
            self._repaint_required = False
            self._compositor._dirty_regions.add(self.size.region)
        super()._on_timer_update()
