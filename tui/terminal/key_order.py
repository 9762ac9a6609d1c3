"""Keys act in the order in which they were typed, however quickly they came.

Textual gives a key to the widget that has the focus when the key arrives. A key that opens a field
moves the focus some messages later, and what was typed right behind it would go to the list below.
So what is typed waits for the end of what the key before it set off. A key that comes when that is
over, as keys do that a hand types, waits for nothing; nor do the characters of a word in a field,
or the moves of a key that is held down.
"""

import asyncio
from collections import deque
from functools import partial
from typing import Any, Final

from textual.app import App, ScreenStackError
from textual.events import Event, Key, Paste
from textual.message_pump import MessagePump
from textual.timer import Timer
from textual.widget import Widget

from tui.terminal.bursts import Burst
from tui.terminal.keys import is_field, takes_key

_MOST_LOOKS: Final = 2000  # a key is not lost because something never ends
_LOOK_AT_OPENING: Final = 1 / 8  # of a look: what a thread opens may take long, on a busy machine
_LOOK_S: Final = 0.002
OPENS_LATE_S: Final = 0.1


class _Look(Event, bubble=False):
    """Asks whether the last key has acted: in turn with everything else that the app has to do."""


class KeysInOrder(App[None]):
    """Holds back keys and pasted text until the ones before them have acted."""

    def __init__(self, *arguments: Any, **settings: Any) -> None:
        super().__init__(*arguments, **settings)
        self._keys_waiting: deque[Key | Paste | Burst] = deque()
        self._key_acts = False  # until what the last key set off is over
        self._looks_left = 0.0
        self._key_heard_by: tuple[MessagePump, ...] = ()  # those that heard of the last key
        self._stayed_in: Widget | None = None  # the field or the list that took it
        self.opens_late = False  # what a thread will open has not come for a moment
        self._late: Timer | None = None
        self._answers_opening = 0  # threads whose answer opens something that takes keys

    async def on_event(self, event: Event) -> None:
        if isinstance(event, _Look):
            await self._release()
        elif not isinstance(event, Key | Paste | Burst) or event.is_forwarded:
            await super().on_event(event)
        elif not self._key_acts or (not self._keys_waiting and self._goes_on(event)):
            await self._act_on(event)
        else:
            self._keys_waiting.append(event)

    @property
    def keys_act(self) -> bool:
        """Whether what was typed so far has not all acted yet."""
        return self._key_acts

    def opening(self, change: int) -> None:
        """Says that a thread has started (1) whose answer opens a popup, or that it is over
        (-1)."""
        self._answers_opening += change
        if self._answers_opening == change == 1:
            self._late = self.set_timer(OPENS_LATE_S, partial(self._opens_late, True))
        elif not self._answers_opening:
            if self._late is not None:
                self._late.stop()
            self._opens_late(False)

    def _opens_late(self, late: bool) -> None:
        if late != self.opens_late:
            self.opens_late = late
            self.opening_changed()

    def opening_changed(self) -> None:
        """What opens is late, or it has opened. Subclasses show it."""

    async def _act_on(self, event: Key | Paste | Burst) -> None:
        focused = self.focused
        if not isinstance(event, Key) and not is_field(focused):
            if isinstance(event, Paste) or not event.goes_on:
                self.pasted_nowhere()
            return
        if isinstance(event, Burst):
            text, last = event.text, event.keys[-1]
            if text.find("\n") == len(text) - 1:  # one line, which a script may have entered
                text = text[:-1]
                self._keys_waiting.appendleft(last)
            event = Paste(text)
        try:
            self._key_heard_by = _path(focused or self.screen)
        except ScreenStackError:  # the app ends
            return
        stays = isinstance(event, Key) and self.stays_in(focused, event.key)
        self._stayed_in = focused if stays else None
        self._looks_left = _MOST_LOOKS
        if not self._key_acts:
            self._key_acts = True
            self._release_soon()
        await super().on_event(event)

    def stays_in(self, focused: Widget | None, key: str) -> bool:
        """Whether a key leaves the focus where it is, so that the next one of this kind need not
        wait for it: a character for a field."""
        return takes_key(focused, key)

    def pasted_nowhere(self) -> None:
        """A text was pasted where nothing takes it. Subclasses say so."""

    def _goes_on(self, event: Key | Paste | Burst) -> bool:
        """Whether the key before this one left the focus where it is, and this one will."""
        field = self._stayed_in
        same = field is not None and field is self.focused
        return same and isinstance(event, Key) and self.stays_in(field, event.key)

    def _release_soon(self) -> None:
        self._looks_left -= _LOOK_AT_OPENING if self._answers_opening else 1
        asyncio.get_running_loop().call_later(_LOOK_S, self.post_message, _Look())

    async def _release(self) -> None:
        """Lets keys that wait act where those before them have."""
        if self._exit:
            self._keys_waiting.clear()
        waiting = self._keys_waiting
        while waiting and (self._key_is_over() or self._goes_on(waiting[0])):
            await self._act_on(waiting.popleft())
        if waiting or not self._key_is_over():
            self._release_soon()
        else:
            self._key_acts = False
            self.key_acted()

    def key_acted(self) -> None:
        """What the last key set off is over. Subclasses show it."""

    def _key_is_over(self) -> bool:
        """Whether nothing is left to do of what the last key set off: no message to the app, to
        those that heard it or to those that have the keys now, and no popup still being made."""
        if self._looks_left <= 0:
            return True
        try:
            screen = self.screen
            pumps = {self, *self._key_heard_by, *_path(self.focused or screen)}
        except ScreenStackError:
            return True
        idle = not any(_has_messages(pump) for pump in pumps if pump.is_running)
        return idle and screen.is_mounted and not self._answers_opening


def _has_messages(pump: MessagePump) -> bool:
    # The message after the one that is handled may be out of the queue already.
    return pump._pending_message is not None or not pump._message_queue.empty()


def _path(widget: Widget) -> tuple[MessagePump, ...]:
    """Those that hear of a key that a widget gets."""
    return tuple(widget.ancestors_with_self)
