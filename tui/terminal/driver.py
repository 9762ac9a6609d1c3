"""The terminal while the app runs: entered once, left as it was, whatever signal comes."""

import os
import selectors
import signal
import sys
import termios
from codecs import getincrementaldecoder
from collections.abc import Iterable
from contextlib import suppress
from time import monotonic
from typing import Any, Final, TextIO, cast

from textual import events
from textual._parser import ParseError
from textual._xterm_parser import XTermParser
from textual.drivers.linux_driver import LinuxDriver

from tui.terminal.bursts import BurstReader
from tui.terminal.changed_cells import SentFrame
from tui.terminal.pasting import PasteReader

_READ_S: Final = 0.1  # after which the thread that reads looks whether it shall end
_MOST_READ: Final = 4096
_MOUSE_PIXELS_OFF: Final = "\x1b[?1016l"
# Bracketed paste, line wrap, resize reports, mouse, keyboard protocol, alternate screen, cursor,
# focus reports: what entering the application mode changed, in the order of leaving it.
_LEAVE: Final = (
    "\x1b[?2004l\x1b[?7h\x1b[?2048l\x1b[?1000l\x1b[?1003l\x1b[?1015l\x1b[?1006l"
    f"{_MOUSE_PIXELS_OFF}\x1b[<u\x1b[?1049l\x1b[?25h\x1b[?1004l"
)


class _UntilGone:
    """A file to write to that drops what a terminal does not take any more.

    Textual's thread that writes would die of the first error, and the app wait for it for ever.
    """

    def __init__(self, file: TextIO) -> None:
        self._file = file

    def write(self, text: str) -> None:
        with suppress(OSError):
            self._file.write(text)

    def flush(self) -> None:
        with suppress(OSError):
            self._file.flush()

    def fileno(self) -> int:
        return self._file.fileno()


class KeyParser(XTermParser):
    """Textual's parser, which also knows alt+enter where it comes as escape and enter, as most
    terminals send it: Textual drops the escape."""

    def _sequence_to_key_events(self, sequence: str, alt: bool = False) -> Iterable[events.Key]:
        if alt and sequence == "\r":
            return [events.Key("alt+enter", None)]
        return super()._sequence_to_key_events(sequence, alt)


class TerminalDriver(LinuxDriver):
    """Textual's driver, which also survives a SIGSTOP, and ends the app with its terminal."""

    entered: bool = False

    def __init__(self, *arguments: Any, **settings: Any) -> None:
        super().__init__(*arguments, **settings)
        # Textual draws on stderr, which may be the file of a log.
        drawn_on = self._file if self._file.isatty() else sys.__stdout__
        self._file: TextIO = cast(TextIO, _UntilGone(cast(TextIO, drawn_on)))

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
            os.write(self._file.fileno(), _LEAVE.encode())
        except (OSError, termios.error):
            return  # the terminal is gone

    def run_input_thread(self) -> None:
        """Hands on what is typed until the app ends. The end of the terminal is a hang-up: the
        kernel tells it to the first process of the terminal only, which may keep it to itself."""
        parser = KeyParser(self._debug)
        decode = getincrementaldecoder("utf-8")("replace").decode  # a paste may be of anything
        pastes, bursts = PasteReader(), BurstReader()
        with selectors.SelectSelector() as selector:
            selector.register(self.fileno, selectors.EVENT_READ)
            while not self.exit_event.is_set():
                if selector.select(_READ_S):
                    read = self._read()
                    if not read:
                        os.kill(os.getpid(), signal.SIGHUP)
                        return
                    found = list(parser.feed(pastes.feed(decode(read))))
                    for message in bursts.read(found, monotonic()):
                        self.process_message(message)
                for message in parser.tick():
                    self.process_message(message)
        with suppress(EOFError, ParseError):
            list(parser.feed(""))

    def _read(self) -> bytes:
        try:
            return os.read(self.fileno, _MOST_READ)
        except OSError:  # what some systems say instead of the end
            return b""

    def _sigcont_application(self, *_: object) -> None:
        # After a SIGSTOP the app is still in application mode, though the shell used the terminal:
        # entering the mode twice would save raw input as the state to restore.
        if self._auto_restart and self.entered:
            self.suspend_application_mode()
        super()._sigcont_application()
        if self._auto_restart and self.entered:  # the terminal shows nothing of the app any more
            self._app.call_later(self._app.refresh, layout=True)
