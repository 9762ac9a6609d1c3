"""Token heat: texts with each token on a ramp of discrete steps; pure.

Never by colour only: each step has an explicit text colour, a terminal without colours gets plain,
underlined, bold and reversed tokens, and callers write out the peak token and its value as well.
"""

import re
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Literal

from rich.cells import cell_len
from textual.app import App
from textual.content import Content

from tui.text import printable
from tui.themes.readable import HEAT_STEPS

HeatMode = Literal["colour", "attributes"]

_NEWLINE = "⏎"
_UNITS = re.compile(rf"[^ {_NEWLINE}]* *{_NEWLINE}|[^ {_NEWLINE}]+ *| +")


@dataclass(frozen=True)
class Piece:
    """A part of one token on one line. `index` is the token's, `text` is safe to show."""

    index: int
    text: str


Line = tuple[Piece, ...]


@dataclass(frozen=True)
class HeatMarks:
    """What stands out beside the heat: the peak, the token under a cursor, tokens to dim, tokens
    that another text does not have."""

    peak: int | None = None
    cursor: int | None = None
    dimmed: frozenset[int] = frozenset()
    differing: frozenset[int] = frozenset()


def heat_mode(app: App) -> HeatMode:
    """How this terminal can show heat: `attributes` without colours or with only sixteen."""
    return "attributes" if app.no_color or app.current_theme.ansi else "colour"


def heat_step(value: float, peak: float) -> int:
    """The step of `value` when `peak` has the highest: 0 for nothing, else 1..HEAT_STEPS."""
    if not (value > 0 and peak > 0):  # also False for values that are no numbers
        return 0
    return min(max(-int(-value * HEAT_STEPS // peak), 1), HEAT_STEPS)


def heat_style(step: int, mode: HeatMode = "colour") -> str:
    """The style of a step, in theme variables."""
    if mode == "colour":
        return f"$heat-{step}-text on $heat-{step}" if step else ""
    share = step / HEAT_STEPS
    if share > 0.75:
        return "bold reverse"
    if share > 0.4:
        return "bold"
    return "underline" if step else ""


def wrap_tokens(texts: Sequence[str], width: int) -> tuple[Line, ...]:
    """Tokens in lines of at most `width` cells, broken between words and after line feeds.

    The pieces of a line, joined, are its text; spaces that would overhang a line's end are cut.
    """
    shown = [printable(text) for text in texts]
    whole = "".join(shown)
    ends = list(accumulate(map(len, shown)))
    return tuple(_pieces(whole, start, end, ends) for start, end in _broken(whole, width))


def _broken(text: str, width: int) -> Iterator[tuple[int, int]]:
    """Where each line begins and ends, without the spaces that overhang it."""
    cells = len if text.isascii() else cell_len
    begin = end = 0  # of the line
    room = width  # negative: the line is full, spaces of it are cut
    for unit in _UNITS.finditer(text):
        start, stop = unit.span()
        word = unit.group().rstrip(" ")
        needed = cells(word)
        if end > begin and needed > room:
            yield begin, end
            begin = end = start
            room = width
        if needed > room:  # a word wider than the line
            full: int | None = None  # where the line ends when spaces overhang it
            for place in range(start, start + len(word)):
                wide = cells(text[place])
                if full is None and wide > room:
                    full = place
                if full is not None:
                    if text[place] == " ":
                        continue
                    if full > begin:
                        yield begin, full
                    begin, room, full = place, width, None
                room -= wide
        else:
            room -= needed
        spaces = stop - start - len(word)
        end = start + len(word) + min(spaces, max(room, 0))
        if end == begin:  # a line starts behind the spaces that were cut
            begin = end = stop
        room -= spaces
        if word.endswith(_NEWLINE):
            yield begin, end
            begin = end = stop
            room = width
    if end > begin:
        yield begin, end


def _pieces(text: str, start: int, end: int, ends: Sequence[int]) -> Line:
    """A line's characters as pieces of tokens, which end at `ends`; spaces at its end go, unless
    the line is made of them."""
    end = max(start + len(text[start:end].rstrip(" ")), min(start + 1, end))
    pieces: list[Piece] = []
    index = bisect_right(ends, start)
    while start < end:
        stop = min(ends[index], end)
        if stop > start:
            pieces.append(Piece(index, text[start:stop]))
        start, index = max(stop, start), index + 1
    return tuple(pieces)


def heat_line(
    line: Iterable[Piece],
    values: Sequence[float],
    top: float,
    mode: HeatMode = "colour",
    marks: HeatMarks | None = None,
) -> Content:
    """One line of tokens. `values[piece.index]` is the heat; `top` is the value of the last step.

    The space around a word is left plain, so that words stay words.
    """
    marks = marks or HeatMarks()
    parts: list[str | tuple[str, str]] = []
    for piece in line:
        text = piece.text
        word = text.strip(" ") or text
        before = text[: text.index(word)]
        after = text[len(before) + len(word) :]
        value = values[piece.index] if piece.index < len(values) else 0.0
        style = _marked(heat_style(heat_step(value, top), mode), piece.index, marks)
        parts += [before, (word, style) if style else word, after]
    return Content.assemble(*(part for part in parts if part))


def _marked(style: str, index: int, marks: HeatMarks) -> str:
    if index in marks.differing:
        style = f"{style} underline italic"
    if index in marks.dimmed:
        style = "$faint italic"
    if index == marks.peak:
        style = f"bold underline {style}"
    if index == marks.cursor:
        style = f"{style} reverse" if "reverse" not in style else f"{style} underline"
    return style.strip()


def peak_index(values: Sequence[float]) -> int | None:
    """The token with the greatest value, None when none is above zero."""
    best = max(range(len(values)), key=values.__getitem__, default=None)
    return best if best is not None and values[best] > 0 else None


def quoted(token: str) -> str:
    """A token as one word in quotes: the space that many tokens start with does not count."""
    text = printable(token)
    return f"“{text.strip() or text}”"


def exact(token: str) -> str:
    """A token in quotes with the space that it starts with, as a target is given."""
    return f"“{printable(token)}”"


def token_window(texts: Sequence[str], peak: int, cells: int) -> tuple[int, int]:
    """The tokens (start, stop) around `peak` that fit into `cells`, two thirds of them before it.

    What comes before the peak is what made it fire, so it gets the larger share.
    """
    widths = [max(cell_len(printable(text)), 1) for text in texts]
    start, stop = peak, min(peak + 1, len(texts))
    room = cells - sum(widths[start:stop])
    after = room // 3
    while stop < len(texts) and widths[stop] <= after:
        after -= widths[stop]
        room -= widths[stop]
        stop += 1
    while start > 0 and widths[start - 1] <= room:
        start -= 1
        room -= widths[start]
    while stop < len(texts) and widths[stop] <= room:
        room -= widths[stop]
        stop += 1
    return start, stop
