"""The app as a program on a terminal: what it sends there, and how it leaves it."""

import asyncio
from collections.abc import Sequence
from typing import Any

from textual.app import App
from textual.driver import Driver
from textual.filter import LineFilter

from mi_crow.visible import visible_lines
from tui.line_filter import CONTROL_FILTER
from tui.text import printable


class TerminalApp(App[None]):
    """The terminal obeys nothing that is drawn, shown or copied; a crash prints no traceback."""

    def get_driver_class(self) -> type[Driver]:
        from textual.drivers.linux_driver import LinuxDriver

        from tui.terminal_driver import TerminalDriver

        found = super().get_driver_class()
        return TerminalDriver if found is LinuxDriver else found

    @property
    def running_loop(self) -> asyncio.AbstractEventLoop | None:
        """The event loop while the app runs."""
        return self._loop

    @property
    def fault(self) -> Exception | None:
        """The uncaught error that ended the app."""
        return self._exception

    def leave_terminal(self) -> None:
        """Restores the terminal at once; from any thread."""
        from tui.terminal_driver import TerminalDriver

        if isinstance(self._driver, TerminalDriver):
            self._driver.leave_at_once()

    def _fatal_error(self) -> None:
        # Textual would print the stack with the values of all variables, texts among them; the
        # command line prints one sentence, and the traceback with --debug.
        self._close_messages_no_wait()

    def _print_error_renderables(self) -> None:
        self._exit_renderables.clear()

    # The gates that text passes on its way to the terminal, whoever sends it.

    def get_line_filters(self) -> Sequence[LineFilter]:
        return [*super().get_line_filters(), *CONTROL_FILTER]

    def copy_to_clipboard(self, text: str) -> None:
        super().copy_to_clipboard(visible_lines(text))

    def notify(self, message: str, **settings: Any) -> None:
        """Shows `message`, which is never markup."""
        super().notify(printable(message, keep_newlines=True), **{**settings, "markup": False})
