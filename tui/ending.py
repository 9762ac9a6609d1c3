"""How the app ends: by a key, a signal or an error; the terminal is restored each time."""

import os
import signal
import termios
import threading
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import TYPE_CHECKING, Final

from mi_crow.errors import MiCrowError

if TYPE_CHECKING:
    from tui.terminal.app import TerminalApp

SIGNALS: Final = (signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGINT)
_PATIENCE_S = 8.0  # longer than the model session is given to end
_EXIT_SIGNAL = 128  # a shell's exit code for the signal n is 128 + n


class EndsBySignal:
    """While it is open, a signal quits the app as `q` does; a second one quits at once. A hang-up
    comes from the kernel, the shell and the driver alike: it is one however often it is told.

    An app that cannot quit within some seconds, because one of its threads hangs, is ended with the
    terminal restored. The model session ends with the end of its input. Jobs keep running.
    """

    def __init__(self, app: "TerminalApp", leave: Callable[[], object]) -> None:
        self._app = app
        self._leave = leave
        self._before: dict[signal.Signals, object] = {}
        self._timer: threading.Timer | None = None
        self.number: int | None = None

    @property
    def exit_code(self) -> int | None:
        """What the process ends with when a signal came."""
        return None if self.number is None else _EXIT_SIGNAL + self.number

    def __enter__(self) -> "EndsBySignal":
        self._before = {number: signal.signal(number, self._asked) for number in SIGNALS}
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool:
        """After a hang-up there is no terminal to write to: errors from then on are dropped."""
        if self._timer is not None:
            self._timer.cancel()
        for number, handler in self._before.items():
            signal.signal(number, handler)  # type: ignore[arg-type]
        return self.number is not None and isinstance(error, OSError | termios.error)

    def _asked(self, number: int, frame: FrameType | None) -> None:
        if self.number is not None:
            if number != signal.SIGHUP:
                self._end_now()
            return
        self.number = number
        loop = self._app.running_loop
        if loop is None:
            raise SystemExit(self.exit_code)
        self._timer = threading.Timer(_PATIENCE_S, self._end_now)
        self._timer.daemon = True
        self._timer.start()
        loop.call_soon_threadsafe(self._app.exit)

    def _end_now(self) -> None:
        self._app.leave_terminal()
        self._leave()
        os._exit(self.exit_code or 1)


def run_to_its_end(app: "TerminalApp", leave: Callable[[], object] = lambda: None) -> int:
    """Runs the app and gives its exit code: 0 after `q`, 128 + n after the signal n.

    `leave` is called before a process is ended that cannot end by itself. Raises what broke the
    app, once the terminal is as it was before.
    """
    with EndsBySignal(app, leave) as ends:
        app.run()
    if ends.exit_code is not None:
        return ends.exit_code
    if app.fault is not None:
        raise app.fault
    if app.return_code:
        raise MiCrowError("the app ended because the terminal failed", hint="start mi-crow again")
    return 0
