"""More characters at once than anybody types: a paste of a terminal that does not mark pastes.

Textual makes a key of each of its characters, and outside of a field each key would act. Scripts
send keys in one piece too, but fewer, and a key that is held down is one key many times.
"""

from collections.abc import Sequence
from typing import Final

from textual.events import Event, Key
from textual.message import Message

LEAST: Final = 100  # characters in one piece, which no script of keys has
_KINDS: Final = 6  # different ones among them: nobody holds so many keys down
_GOES_ON_S: Final = 0.3  # a paste comes in pieces, the last of which may be a short one
_OF_TEXTS: Final = {"enter": "\n", "tab": "\t", "ctrl+j": "\n"}


class Burst(Event, bubble=False):
    """The characters of one piece; `goes_on` after the first piece of a paste."""

    def __init__(self, keys: Sequence[Key], *, goes_on: bool) -> None:
        super().__init__()
        self.keys = tuple(keys)
        self.goes_on = goes_on

    @property
    def text(self) -> str:
        """What was pasted."""
        return "".join(
            _OF_TEXTS.get(key.key, key.character or "") for key in self.keys if _is_text(key)
        )


class BurstReader:
    """Puts the keys together that came as one paste."""

    def __init__(self) -> None:
        self._until = 0.0

    def read(self, found: Sequence[Message], now: float) -> list[Message]:
        """What one piece of the terminal's bytes means, with a Burst in place of the keys of a
        paste; `now` in seconds."""
        keys = [one for one in found if isinstance(one, Key)]
        of_text = [place for place, key in enumerate(keys) if _is_text(key)]
        if not of_text:
            return list(found)
        first, end = of_text[0], of_text[-1] + 1
        goes_on = now < self._until
        kinds = len({keys[place].character for place in of_text})
        few = len(of_text) < LEAST or kinds < _KINDS
        # Between characters there are other keys in a paste only: a bell, the codes of colours.
        mixed, ends = end - first > len(of_text), end - first < len(keys)
        if few and (not goes_on or (ends and not mixed)):
            return list(found)
        if kinds > 1 or len(of_text) >= LEAST:  # else it may be a key that is held down
            self._until = now + _GOES_ON_S
        others = [one for one in found if not isinstance(one, Key)]
        return [*others, *keys[:first], Burst(keys[first:end], goes_on=goes_on), *keys[end:]]


def _is_text(key: Key) -> bool:
    return key.is_printable or key.key in _OF_TEXTS
