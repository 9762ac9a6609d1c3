"""The log of a job, followed while it grows; plain text, never markup."""

from textual.app import ComposeResult
from textual.message import Message
from textual.widgets import Log

from mi_crow.errors import MiCrowError
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
    """The last lines of one job's log; stays at the end until somebody scrolls up."""

    BINDINGS = bindings("popup", "close")

    class Read(Message):
        def __init__(self, lines: list[str]) -> None:
            super().__init__()
            self.lines = lines

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
        self.run_worker(self._read, thread=True, group="log", exit_on_error=False)

    def _read(self) -> None:
        from mi_crow.jobs import tail_log

        try:
            lines = tail_log(self._workspace, self._job_id, _LINES)
        except (MiCrowError, OSError) as error:
            lines = [str(error)]
        if lines != self._lines:
            self.post_message(self.Read(lines))

    def on_log_popup_read(self, message: Read) -> None:
        view = self.query_one(LogText)
        before, now = self._lines, message.lines
        self._lines = now
        if before and now[: len(before)] == before:
            now = now[len(before) :]
        else:
            view.clear()
        view.write_lines([printable(line) for line in now] or ["(nothing was logged yet)"])
