"""The last gate before the terminal: no drawn line contains a control character.

Widgets make foreign text visible themselves, where they know how wide it may be. What slips
through (a placeholder, a completion, the title of a popup) loses control characters here.
Every line of every widget passes, whoever wrote the widget.
"""

import re
from collections.abc import Sequence
from functools import lru_cache
from typing import Final

from rich.segment import Segment
from rich.style import Style
from textual.color import Color
from textual.filter import ANSIToTruecolor, LineFilter
from textual.strip import Strip

# C0 and C1 controls, bidi marks, embeddings, overrides and isolates, and the line separators. They
# take no cell, so that a line without them is as wide as before.
_OBEYED: Final = re.compile(
    "[\x00-\x1f\x7f-\x9f\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\U000e0000-\U000e007f]"
)


class ControlFilter(LineFilter):
    """Removes from a line every character that a terminal would obey."""

    def apply(self, segments: list[Segment], background: Color) -> list[Segment]:
        if "".join([text for text, _, _ in segments]).isprintable():
            return segments
        return [
            segment if segment.control else Segment(_OBEYED.sub("", segment.text), segment.style)
            for segment in segments
        ]


class WithoutColours(LineFilter):
    """Leaves bold, reversed and underlined text, and no colour at all: what NO_COLOR asks for."""

    def apply(self, segments: list[Segment], background: Color) -> list[Segment]:
        return [Segment(text, _plain(style), control) for text, style, control in segments]


@lru_cache(4096)
def _plain(style: Style | None) -> Style | None:
    return style.without_color if style is not None else None


class Gate(LineFilter):
    """Several filters as one: Textual makes a line anew for each."""

    def __init__(self, filters: tuple[LineFilter, ...]) -> None:
        super().__init__()
        self._filters = filters

    def apply(self, segments: list[Segment], background: Color) -> list[Segment]:
        """The same list where no filter would change anything."""
        for line_filter in self._filters:
            if type(line_filter) is ANSIToTruecolor and _have_true_colours(segments):
                continue
            segments = line_filter.apply(segments, background)
        return segments


def _have_true_colours(segments: Sequence[Segment]) -> bool:
    """Whether there is no colour of a palette, nor one to be dimmed."""
    return all(map(_has_true_colours, [style for _, style, _ in segments]))


@lru_cache(4096)
def _has_true_colours(style: Style | None) -> bool:
    if style is None:
        return True
    colours = [one for one in (style.color, style.bgcolor) if one is not None]
    return not style.dim and all(one.triplet is not None for one in colours)


def filtered(
    strips: Sequence[Strip], filters: Sequence[LineFilter], background: Color
) -> list[Strip]:
    """Lines that have passed; those in which nothing was changed are the same objects."""
    found: list[Strip] = []
    done: dict[int, Strip] = {}
    for strip in strips:
        if id(strip) not in done:
            segments = before = strip._segments
            for line_filter in filters:
                segments = line_filter.apply(segments, background)
            same = segments is before
            done[id(strip)] = strip if same else Strip(segments, strip.cell_length)
        found.append(done[id(strip)])
    return found


@lru_cache(maxsize=8)
def gate(*filters: LineFilter) -> Sequence[LineFilter]:
    """These filters, and last the one that lets no control character through."""
    return (Gate((*filters, ControlFilter())),)
