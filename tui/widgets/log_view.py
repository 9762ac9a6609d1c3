"""The log of a job, followed while it grows; plain text, never markup."""

from collections.abc import Sequence
from functools import partial

from textual.app import ComposeResult
from textual.content import Content

from mi_crow.store.workspace import Workspace
from tui.actions import bindings
from tui.text import printable
from tui.threads import error_sentence
from tui.widgets.frame.popup import Popup
from tui.widgets.lists.line_view import LineView

_LINES = 1000
_SECONDS = 1.0


class LogText(LineView):
    """Lines that scroll with the keys of a text, and follow the end while it is shown.

    A line that is added is drawn alone. Where the end leaves the screen the view moves by a third
    of its height, so that not every new line draws all others again.
    """

    BINDINGS = bindings("scroll")

    def __init__(self, id: str | None = None) -> None:
        super().__init__(id=id)
        self._texts: list[str] = []

    def follow(self, texts: Sequence[str]) -> None:
        """The last lines of the log as they are now."""
        texts = list(texts)
        if texts == self._texts:
            return
        before, self._texts = self._texts, texts
        height = max(self.size.height, 1)
        at_end = len(before) <= round(self.scroll_offset.y) + height
        grown = bool(before) and texts[: len(before)] == before
        lines = [Content(printable(text)) for text in texts]
        if not grown:
            self.set_lines(lines)
        self._lines = lines
        beyond = len(lines) > round(self.scroll_offset.y) + height
        if at_end and beyond:
            top = len(lines) - height + (height // 3 if grown else 0)
            self.set_line_count(top + height)
            self.scroll_to(y=top, animate=False, force=True, immediate=True)
        elif grown:
            self.set_line_count(max(len(lines), self.virtual_size.height))
            self.refresh_lines(len(before), len(lines) - len(before))


class LogPopup(Popup[None]):
    """The last lines of one job's log; follows the end unless scrolled up."""

    BINDINGS = bindings("popup", "close")

    def __init__(self, workspace: Workspace, job_id: str) -> None:
        super().__init__(classes="log")
        self._workspace = workspace
        self._job_id = job_id
        self._read: list[str] = []

    def heading(self) -> str:
        return f"Log of {self._job_id}"

    def compose_box(self) -> ComposeResult:
        yield LogText(id="log-text")

    def on_mount(self) -> None:
        self.query_one(LogText).focus()
        self.set_interval(_SECONDS, self._start)
        self._start()

    def _start(self) -> None:
        from mi_crow.jobs import tail_log

        work = partial(tail_log, self._workspace, self._job_id, _LINES)
        self.in_thread(work, self._show, group="log", failed=self._not_read)

    def _not_read(self, error: Exception) -> None:
        """What was read before stays: somebody may be in the middle of it."""
        log = self.query_one(LogText)
        words = Content(printable(error_sentence(error))).wrap(max(log.text_width, 1))
        log.follow([*self._read, *(line.plain for line in words)])

    def _show(self, now: list[str]) -> None:
        self._read = now
        self.query_one(LogText).follow(now or ["(nothing logged yet)"])
