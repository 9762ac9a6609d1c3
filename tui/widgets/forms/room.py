"""How many lines of the screen each part of a form has; pure."""

from collections.abc import Sequence
from dataclasses import dataclass
from textwrap import wrap

from tui.widgets.forms.line import LISTS

_AROUND = 11  # lines beside the fields: borders, hint, note, command, buttons
_NOTE = 4  # lines at most
_HINT, _MOST_HINT = 2, 4
_FIELDS = 2  # at least
_MANY_LINES = 36  # as the screens are tall
_FEW_LINES = 18  # a lower screen has no room for the command
_LOW_AROUND, _LOW_NOTE = 3, 2  # there: lines of borders and buttons, of a note at most


@dataclass(frozen=True)
class Room:
    """Lines at most; on a `low` screen what is expected takes the place of a hint."""

    low: bool
    fields: int
    hint: int  # as many as the longest takes, so that nothing moves from field to field
    note: int
    expected: int
    command: int

    @classmethod
    def of(cls, width: int, height: int, note: str, hints: Sequence[str]) -> "Room":
        """That of a form on a screen of this size, its first line left free."""
        inner = max(width - 8, 1)
        noted = sum(len(wrap(line, inner)) for line in note.splitlines())
        hint = max(len(wrap(f"{one}; {LISTS}", inner)) for one in hints)
        low = height < _FEW_LINES
        if low:
            most = _LOW_NOTE
            noted = min(noted, most)
            hint = max(min(hint, height - _LOW_AROUND - noted - _FIELDS - 1), 1)
            around = _LOW_AROUND + noted + hint
        else:
            most = _NOTE
            hint = min(max(hint, _HINT), _MOST_HINT)
            around = _AROUND + max(min(noted, most) - 2, 0) + hint - _HINT
        command = 3 if height >= _MANY_LINES else 2  # the buttons stay
        fields = max(height - 1 - around, _FIELDS)
        return cls(low, fields, hint, most, hint if low else 3, command)
