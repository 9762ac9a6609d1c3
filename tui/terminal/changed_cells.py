"""Frames for the terminal without the cells that are already there.

Textual sends a whole region whenever something in it may be another. Over a slow line that is what
one waits for: here the cells of what is not drawn as before are compared with those that were sent
last, a colour is sent only where it changes, and a long blank is erased instead of written.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import compress
from operator import ne
from typing import NamedTuple

from rich.cells import cell_len, split_graphemes
from rich.color import ColorSystem
from rich.console import Console
from rich.segment import Segment
from rich.style import Style
from textual._compositor import ChopsUpdate, CompositorUpdate, LayoutUpdate
from textual.strip import Strip

from tui.terminal.scrolling import Scroll, scroll_between

_NEAR = 5  # unchanged cells between two changes that are sent rather than jumped over


class _Look(NamedTuple):
    """What a style is to a terminal: the parts of its escape sequence."""

    attributes: str
    foreground: str
    background: str


_Cell = tuple[str, _Look]
"""What is in a cell; no text where the character to the left is wide."""

_MOST_CHARACTERS = 2048
_LONG = 9  # blanks that are more bytes than the sequences that erase them and pass over them
_PLAIN = _Look("", "39", "49")
_NOWHERE = -1, 0
_ANY = "any"  # of a blank: what it would look like if it were a character
_ENDS = {"1": "22", "3": "23"}  # bold, italic: shorter than all colours anew
_SEEN_ON_BLANKS = frozenset(("4", "7", "9", "21", "53"))  # lines and reversed colours
_FAR = re.compile("[\U0001f000-\U0010ffff]")  # emoji, and what is newer than many terminals
_UNKNOWN: _Cell = "", _Look("unknown", "", "")


@dataclass
class _Line:
    """What is known of one line of the terminal: its cells, and the pieces that they came from, by
    first column and width. A piece that comes again is known without a look at its cells."""

    cells: list[_Cell]
    pieces: dict[tuple[int, int], list[Segment]] = field(default_factory=dict)

    def has(self, x: int, width: int, segments: list[Segment]) -> bool:
        """Whether this piece is there already; from now on it is."""
        if self.pieces.get((x, width)) == segments:
            return True
        for place in [p for p in self.pieces if p[0] < x + width and x < p[0] + p[1]]:
            del self.pieces[place]
        self.pieces[x, width] = segments
        return False


class SentFrame:
    """What the terminal shows, as far as it is known."""

    def __init__(self, erases: bool = True) -> None:
        """`erases`: whether the terminal erases in the background that is set."""
        self._erases = erases
        self._lines: list[_Line] = []
        self._size = 0, 0

    def forget(self) -> None:
        """Something else may be on the terminal now."""
        self._lines = []
        self._size = 0, 0

    def changes(
        self, update: ChopsUpdate | LayoutUpdate, size: tuple[int, int], how: ColorSystem
    ) -> str:
        """The escape sequences that make the terminal show `update` on a screen of that size."""
        if size != self._size or not self._lines:
            self._size = size
            self._lines = [_Line([_UNKNOWN] * size[0]) for _ in range(size[1])]
        drawn: dict[int, list[_Cell]] = {}
        spans: list[tuple[int, int, int]] = []
        for y, x, strip in _pieces(update):
            if not 0 <= y < len(self._lines):
                continue
            if self._lines[y].has(x, strip.cell_length, strip._segments):
                continue
            cells = _cells(strip, how)[: max(size[0] - x, 0)]
            if (line := drawn.get(y)) is None:
                line = drawn[y] = self._lines[y].cells.copy()
            line[x : x + len(cells)] = cells
            spans.append((y, x, x + len(cells)))
        parts: list[str] = []
        scroll = scroll_between([line.cells for line in self._lines], drawn, _UNKNOWN)
        if scroll is not None:
            parts.append(scroll.sequence())
            self._scrolled(scroll)
            inside = range(scroll.top, scroll.bottom + 1)
            spans = [span for span in spans if span[0] not in inside]
            spans += [(y, 0, size[0]) for y in inside]
        look, at = _PLAIN, _NOWHERE
        for y, x, end in spans:
            now = drawn[y][x:end]
            for first, last in _differing(self._lines[y].cells[x:end], now):
                forward = x + first - at[1] if y == at[0] else 0
                parts.append(
                    f"\x1b[{forward}C" if forward > 0 else f"\x1b[{y + 1};{x + first + 1}H"
                )
                last += _behind(drawn[y], x + last)
                look, written = self._write(drawn[y][x + first : x + last], x + first, look, parts)
                at = y, x + first + written
                if at[1] >= size[0]:
                    at = _NOWHERE  # behind the last column terminals differ
            self._lines[y].cells[x:end] = now
        if look != _PLAIN:
            parts.append("\x1b[0m")
        return "".join(parts)

    def _write(
        self, cells: Sequence[_Cell], x: int, look: _Look, parts: list[str]
    ) -> tuple[_Look, int]:
        """Adds what writes `cells` from column `x` on where the terminal writes in `look`; in what
        it does then, and how far it has gone: it stands before what it erased last."""
        gone, passed, at, end = 0, 0, 0, len(cells)
        while at < end:
            first, wanted = at, cells[at][1]
            at += 1
            while at < end and cells[at][1] is wanted:
                at += 1
            if wanted is not look and wanted != look:
                turned = _on(look, wanted)
                if turned != look:
                    parts.append(_turned(look, turned))
                    look = turned
            if passed:
                parts.append(f"\x1b[{passed}C")
            gone, passed, count = gone + passed, 0, at - first
            if wanted.foreground == _ANY and count >= _LONG and self._erases:
                parts.append(f"\x1b[{count}X")
                passed = count
            else:
                parts.append(_written([c[0] for c in cells[first:at]], x + first))
                gone += count
        return look, gone

    def _scrolled(self, scroll: Scroll) -> None:
        """The lines of the terminal as they are after a scroll; nothing is known of new ones."""
        top, bottom, by = scroll
        cells = [line.cells for line in self._lines[top : bottom + 1]]
        new = [[_UNKNOWN] * len(cells[0]) for _ in range(abs(by))]
        moved = [*cells[by:], *new] if by > 0 else [*new, *cells[:by]]
        for line, now in zip(self._lines[top : bottom + 1], moved, strict=True):
            line.cells = now


class ChangedCells(CompositorUpdate):
    """An update of which only the changed cells are sent."""

    def __init__(
        self, update: ChopsUpdate | LayoutUpdate, sent: SentFrame, size: tuple[int, int]
    ) -> None:
        self._update, self._sent, self._size = update, sent, size
        self._sequences: str | None = None

    def is_nothing(self, console: Console) -> bool:
        """Whether the terminal shows it already."""
        return not self.render_segments(console)

    def render_segments(self, console: Console) -> str:
        if self._sequences is None:  # what is asked for is taken as sent
            how = console._color_system or ColorSystem.TRUECOLOR
            self._sequences = self._sent.changes(self._update, self._size, how)
        return self._sequences


def _pieces(update: ChopsUpdate | LayoutUpdate) -> Iterator[tuple[int, int, Strip]]:
    """Line, column and content of each piece of an update."""
    if isinstance(update, LayoutUpdate):
        for y, strips in enumerate(update.strips, update.region.y):
            x = update.region.x
            for strip in strips:
                yield y, x, strip
                x += strip.cell_length
        return
    for y, x1, x2 in update.spans:
        for end, (x, strip) in zip(update.chop_ends[y], update.chops[y].items(), strict=False):
            if strip is not None and x < x2 and end > x1:
                yield y, x, strip.crop(0, min(end, x2) - x) if end > x2 else strip


class _CellsOf(dict[str, _Cell]):
    """The cells in one look, by character: cells that are the same compare at once."""

    def __init__(self, look: _Look) -> None:
        super().__init__()
        self._look = look

    def __missing__(self, character: str) -> _Cell:
        if len(self) >= _MOST_CHARACTERS:
            self.clear()
        look = _of_blanks(self._look) if character == " " else self._look
        cell = (character, look) if look is self._look else _cells_of(look)[character]
        self[character] = cell
        return cell


def _cells(strip: Strip, how: ColorSystem) -> list[_Cell]:
    found: list[_Cell] = []
    for text, style, control in strip:
        if control:
            continue
        cell_of = _cells_of(_look(style, how) if style else _PLAIN).__getitem__
        if text.isascii():
            found += map(cell_of, text)
            continue
        found += map(cell_of, _by_cell(text))
    return found


@lru_cache(4096)
def _by_cell(text: str) -> Sequence[str]:
    """What is written into each cell of a text: nothing to the right of a wide character."""
    widths = [cell_len(character) for character in text]
    whole = cell_len(text)
    if 0 in widths or sum(widths) != whole:  # characters that make one cell together
        spans = split_graphemes(text)[0]
        if all(width for _, _, width in spans):
            return [c for first, end, n in spans for c in (text[first:end], *[""] * (n - 1))]
        return [text, *[""] * (whole - 1)][: max(whole, 1)]
    return [
        cell
        for character, width in zip(text, widths, strict=True)
        for cell in (character, "")[:width]
    ]


def _is_unsure(text: str) -> bool:
    """Whether terminals differ in how wide it is: marks and joined characters, and emoji."""
    return len(text) > 1 or _FAR.match(text) is not None


def _written(texts: Sequence[str], x: int) -> str:
    """The texts of cells from column `x` on as they are sent. Where a terminal may take one for
    wider or narrower, its cells are blanked first, and the place behind it is said."""
    plain = "".join(texts)
    if plain.isascii() or (max(map(len, texts)) < 2 and not _FAR.search(plain)):
        return plain
    parts: list[str] = []
    for place, text in enumerate(texts):
        if not _is_unsure(text):
            parts.append(text)
            continue
        end = place + 1
        while end < len(texts) and not texts[end]:
            end += 1
        blank = " " * (end - place)
        parts.append(f"{blank}\x1b[{x + place + 1}G{text}\x1b[{x + end + 1}G")
    return "".join(parts)


def _behind(line: Sequence[_Cell], end: int) -> int:
    """How many cells from `end` on are sent too: those that a terminal may have written over."""
    start = end - 1
    while start > 0 and not line[start][0]:
        start -= 1
    if not _is_unsure(line[start][0]):
        return 0
    known = [cell for cell in line[end : end + 2] if cell != _UNKNOWN]
    return len(known)


def _differing(before: Sequence[_Cell], now: Sequence[_Cell]) -> Iterator[tuple[int, int]]:
    """The ranges of `now` to send, whole words each: a terminal's log stays readable."""
    if before == now:
        return
    first = last = -1
    blank = [cell[0] == " " for cell in now]
    for place in compress(range(len(now)), map(ne, before, now)):
        if place < last:
            continue  # in a word that is sent
        if first >= 0 and place - last > _NEAR:
            yield first, last
            first = -1
        if first < 0:
            first = place
            while first > max(last, 0) and not (blank[first] or blank[first - 1]):
                first -= 1
        last = place + 1
        while last < len(now) and not (blank[last - 1] or blank[last]):
            last += 1
    if first >= 0:
        yield first, last


@lru_cache(256)
def _cells_of(look: _Look) -> _CellsOf:
    return _CellsOf(look)


@lru_cache(4096)
def _look(style: Style, how: ColorSystem) -> _Look:
    attributes = Style(
        bold=style.bold,
        dim=style.dim,
        italic=style.italic,
        underline=style.underline,
        blink=style.blink,
        reverse=style.reverse,
        strike=style.strike,
        underline2=style.underline2,
        overline=style.overline,
    )
    fore, back = style.color, style.bgcolor
    return _Look(
        attributes._make_ansi_codes(how),
        ";".join(fore.downgrade(how).get_ansi_codes(True)) if fore else "39",
        ";".join(back.downgrade(how).get_ansi_codes(False)) if back else "49",
    )


@lru_cache(256)
def _of_blanks(look: _Look) -> _Look:
    """The look of a blank: but for lines and reversed colours its background is all that is
    seen."""
    if look.foreground != _ANY and _SEEN_ON_BLANKS.isdisjoint(look.attributes.split(";")):
        return _Look(_ANY, _ANY, look.background)
    return look


@lru_cache(4096)
def _on(before: _Look, wanted: _Look) -> _Look:
    """The look to turn to: of a blank, what changes least."""
    if wanted.foreground != _ANY:
        return wanted
    plain = _SEEN_ON_BLANKS.isdisjoint(before.attributes.split(";"))
    return before._replace(
        attributes=before.attributes if plain else "", background=wanted.background
    )


@lru_cache(4096)
def _turned(before: _Look, now: _Look) -> str:
    """The escape sequence from one look to another."""
    ended = _ENDS.get(before.attributes, "") if not now.attributes else ""
    if ended or before.attributes in ("", now.attributes):
        pairs = zip(before, now._replace(attributes=ended or now.attributes), strict=True)
        return f"\x1b[{';'.join(new for old, new in pairs if old != new)}m"
    parts = ("0", now.attributes, *now[1:])
    return f"\x1b[{';'.join(part for part in parts if part and part not in ('39', '49'))}m"
