"""What is pasted is text: nothing in it acts as a key.

Some terminals, tmux among them, hand on escape characters within a bracketed paste. Textual takes
the first of them for the end of the paste, and what follows for keys.
"""

from typing import Final

_BEGIN: Final = "\x1b[200~"
_END: Final = "\x1b[201~"
_ESCAPE: Final = "\N{SYMBOL FOR ESCAPE}"


class PasteReader:
    """Reads what a terminal sends, in pieces of any length, and gives it back with the escape
    characters of pastes as symbols."""

    def __init__(self) -> None:
        self._within = False
        self._held = ""  # within a paste: what may be the beginning of its end
        self._last = ""  # outside: what was given last, which may be the beginning of a paste's

    def feed(self, text: str) -> str:
        """The next piece. Keys are never held back."""
        given = []
        while text:
            if self._within:
                text = self._held + text
                before, end, text = text.partition(_END)
                self._held = "" if end else _beginning(before)
                self._within = not end
                shown = before.removesuffix(self._held).replace("\x1b", _ESCAPE)
                given.append(shown + end)
            else:
                known = len(self._last)
                before, begin, after = (self._last + text).partition(_BEGIN)
                whole = before + begin
                given.append(whole[known:])
                self._within, self._last = bool(begin), "" if begin else whole[-len(_BEGIN) + 1 :]
                text = after
        return "".join(given)


def _beginning(text: str) -> str:
    """The end of `text` that the mark of a paste's end begins with."""
    lengths = range(min(len(_END) - 1, len(text)), 0, -1)
    return next((_END[:n] for n in lengths if text.endswith(_END[:n])), "")
