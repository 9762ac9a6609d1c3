"""The terminal while the app runs: entered once, left as it was, whatever signal comes."""

import os
import termios
from typing import Final

from textual.drivers.linux_driver import LinuxDriver

from tui.terminal.changed_cells import SentFrame

_STDERR: Final = 2
_MOUSE_PIXELS_OFF: Final = "\x1b[?1016l"
# Bracketed paste, line wrap, resize reports, mouse, keyboard protocol, alternate screen, cursor,
# focus reports: what entering the application mode changed, in the order of leaving it.
_LEAVE: Final = (
    "\x1b[?2004l\x1b[?7h\x1b[?2048l\x1b[?1000l\x1b[?1003l\x1b[?1015l\x1b[?1006l"
    f"{_MOUSE_PIXELS_OFF}\x1b[<u\x1b[?1049l\x1b[?25h\x1b[?1004l"
)


class TerminalDriver(LinuxDriver):
    """Textual's driver, which also survives a SIGSTOP."""

    entered = False

    def start_application_mode(self) -> None:
        sent = getattr(self._app, "sent_frame", None)
        if isinstance(sent, SentFrame):
            sent.forget()
        super().start_application_mode()
        # In the background the terminal is not ours: the process is stopped and enters again.
        self.entered = self._writer_thread is not None and self._writer_thread.is_alive()

    def stop_application_mode(self) -> None:
        if self._mouse_pixels:
            self.write(_MOUSE_PIXELS_OFF)
        super().stop_application_mode()
        self.entered = False

    def leave_at_once(self) -> None:
        """Restores the terminal without the help of the app's threads; from any thread."""
        if not self.entered:
            return
        try:
            if self.attrs_before is not None:
                termios.tcsetattr(self.fileno, termios.TCSANOW, self.attrs_before)
            os.write(_STDERR, _LEAVE.encode())  # where the driver writes
        except (OSError, termios.error):
            return  # the terminal is gone

    def _sigcont_application(self, *_: object) -> None:
        # After a SIGSTOP the app is still in application mode, though the shell used the terminal:
        # entering the mode twice would save raw input as the state to restore.
        if self._auto_restart and self.entered:
            self.suspend_application_mode()
        super()._sigcont_application()
