"""The app as a program on a terminal: what it sends there, and how it leaves it."""

import asyncio
import os
import signal
from collections.abc import Sequence
from time import monotonic
from typing import Any

from rich.console import RenderableType
from textual import on
from textual._compositor import ChopsUpdate, LayoutUpdate
from textual.driver import Driver
from textual.events import Event, Key, Paste, Resize
from textual.filter import LineFilter, Monochrome, NoColor
from textual.notifications import Notify
from textual.screen import Screen

from mi_crow.visible import visible_lines
from tui.terminal.bursts import Burst
from tui.terminal.changed_cells import ChangedCells, SentFrame
from tui.terminal.erasing import erases_in_colour
from tui.terminal.frames import OneFrame
from tui.terminal.key_order import KeysInOrder
from tui.terminal.keys import takes_key
from tui.terminal.line_filter import WithoutColours, gate
from tui.terminal.scrollbars import draw_scrollbars
from tui.terminal.stylesheet import KeptStylesheet
from tui.text import printable

_PLAIN = WithoutColours()


class TerminalApp(KeysInOrder):
    """The terminal obeys nothing that is drawn, shown or copied; a crash prints no traceback."""

    def __init__(self, *arguments: Any, **settings: Any) -> None:
        super().__init__(*arguments, **settings)
        draw_scrollbars()
        self.sent_frame = SentFrame(erases_in_colour())
        self.last_key_at = monotonic()
        self.stylesheet = KeptStylesheet(variables=self.get_css_variables())

    def _load_screen_css(self, screen: Screen) -> None:
        # Textual would style the widgets of the screen that is left, twice; those of the new one
        # are styled when they are made, in the classes of this size.
        sheet = self.stylesheet
        if isinstance(sheet, KeptStylesheet):
            sheet.read_missing(screen.css_path)
        for size, breakpoints in zip(
            self.size, (self.HORIZONTAL_BREAKPOINTS, self.VERTICAL_BREAKPOINTS), strict=True
        ):
            classes = screen._get_breakpoint_classes(size, breakpoints or [])
            screen.add_class(*classes, update=False)
        sheet.update(screen)
        screen._css_update_count = self._css_update_count

    def _display(self, screen: Screen, renderable: RenderableType | None) -> None:
        if isinstance(renderable, ChopsUpdate | LayoutUpdate):
            size = self.size.width, self.size.height
            changed = ChangedCells(renderable, self.sent_frame, size)
            if self._would_be_sent and changed.is_nothing(self.console):
                position = self.screen.outer_size.clamp_offset(self.cursor_position)
                if position == self._previous_cursor_position:
                    self.post_display_hook()
                    return
            super()._display(screen, changed)  # type: ignore[arg-type]
            return
        if renderable is not None:
            self.sent_frame.forget()
        super()._display(screen, renderable)

    @property
    def _would_be_sent(self) -> bool:
        """Whether Textual writes a frame to the terminal now."""
        silent = self._batch_count or self._closed or self.is_headless or self._driver is None
        return self._running and not silent

    async def on_event(self, event: Event) -> None:
        if isinstance(event, Resize):
            self.sent_frame.forget()  # the terminal may have wrapped its lines anew
        if isinstance(event, Key | Paste | Burst):
            self.last_key_at = monotonic()
            if self._exit:
                return  # the screens are being closed
        await super().on_event(event)

    def key_acted(self) -> None:
        stack = self._screen_stacks.get(self._current_mode)
        screen = stack[-1] if stack else None  # none where the app ends
        if isinstance(screen, OneFrame):
            with screen._context():
                screen.draw_due()

    def get_driver_class(self) -> type[Driver]:
        from textual.drivers.linux_driver import LinuxDriver

        from tui.terminal.driver import TerminalDriver

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

    def action_suspend_process(self) -> None:
        """Stops the app as ctrl+z stops any program, until the shell brings it back."""
        if self._driver is None or not self._driver.can_suspend:
            return
        if os.getpgrp() == os.getsid(0):  # it was started in place of a shell
            self.notify("There is no shell below to go to", severity="warning")
            return
        self._suspend_signal()
        os.kill(0, signal.SIGTSTP)  # to all that the shell counts as this program

    def leave_terminal(self) -> None:
        """Restores the terminal at once; from any thread."""
        from tui.terminal.driver import TerminalDriver

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
        # Textual sends greys, or the colours that the terminal starts with: colours, too.
        filters = [one for one in super().get_line_filters() if not _uncolours(one)]
        if self.no_color:
            filters.append(_PLAIN)
        return gate(*filters)

    async def _check_bindings(self, key: str, priority: bool = False) -> bool:
        if self._exit or not self._screen_stacks.get(self._current_mode):  # the app ends
            return True
        if priority and takes_key(self.focused, key):  # whatever key a user gave the palette
            return False
        return await super()._check_bindings(key, priority)

    def copy_to_clipboard(self, text: str) -> None:
        super().copy_to_clipboard(visible_lines(text))

    def notify(self, message: str, **settings: Any) -> None:
        """Shows `message`, which is never markup."""
        super().notify(printable(message, keep_newlines=True), **{**settings, "markup": False})

    @on(Notify)
    def _show_once(self, event: Notify) -> None:
        """What is said again takes the place of what was said; Textual's own handler shows it."""
        for earlier in list(self._notifications):
            if earlier.message == event.notification.message:
                self._unnotify(earlier, refresh=False)


def _uncolours(line_filter: LineFilter) -> bool:
    return isinstance(line_filter, Monochrome | NoColor)
