"""The log of a job, followed while it grows; plain text, never markup."""

from functools import partial

from textual.app import ComposeResult
from textual.widgets import Log

from mi_crow.store.workspace import Workspace
from tui.actions import bindings
from tui.text import printable
from tui.widgets.frame.popup import Popup

_LINES = 1000
_SECONDS = 1.0


class LogText(Log):
    """Lines that scroll with the keys of a text."""

    BINDINGS = bindings("scroll")


class LogPopup(Popup[None]):
    """The last lines of one job's log; follows the end unless scrolled up."""

    BINDINGS = bindings("popup", "close")

    def __init__(self, workspace: Workspace, job_id: str) -> None:
        super().__init__(classes="log")
        self._workspace = workspace
        self._job_id = job_id
        self._lines: list[str] | None = None

    def heading(self) -> str:
        return f"Log of {self._job_id}"

    def compose_box(self) -> ComposeResult:
        yield LogText(id="log-text", auto_scroll=True)

    def on_mount(self) -> None:
        self.query_one(LogText).focus()
        self.set_interval(_SECONDS, self._start)
        self._start()

    def _start(self) -> None:
        from mi_crow.jobs import tail_log

        work = partial(tail_log, self._workspace, self._job_id, _LINES)
        self.in_thread(work, self._show, group="log", failed=lambda error: self._show([str(error)]))

    def _show(self, now: list[str]) -> None:
        view, before = self.query_one(LogText), self._lines
        if now == before:
            return
        self._lines = now
        if before and now[: len(before)] == before:
            now = now[len(before) :]
        else:
            view.clear()
        view.write_lines([printable(line) for line in now] or ["(nothing logged yet)"])
