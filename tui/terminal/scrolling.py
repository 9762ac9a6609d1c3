"""Lines of a frame that are on the terminal already, only further up or down."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple, TypeVar

Cell = TypeVar("Cell")
_LEAST = 4  # lines that are worth a scroll
_SHARE = 0.6  # of the lines between the first and the last that moves


class Scroll(NamedTuple):
    """The lines `top` to `bottom` go up by `lines`, or down where that is negative."""

    top: int
    bottom: int
    lines: int

    def sequence(self) -> str:
        """What makes a terminal do it: lines are deleted or inserted within a region."""
        how = f"{abs(self.lines)}{'M' if self.lines > 0 else 'L'}"
        return f"\x1b[{self.top + 1};{self.bottom + 1}r\x1b[{self.top + 1};1H\x1b[{how}\x1b[r"


def scroll_between(
    before: Sequence[Sequence[Cell]], now: Mapping[int, Sequence[Cell]], unknown: Cell
) -> Scroll | None:
    """The scroll that brings most of the lines `now`, by their place, where they belong; of a line
    with an `unknown` cell it cannot be said what would be there."""
    if len(now) < _LEAST:
        return None
    changed = [y for y, line in now.items() if line != before[y]]
    best: list[int] = []
    lines = 0
    for distance in range(1, len(now) // 2 + 1):
        for by in (distance, -distance):
            moved = [y for y in changed if y + by in now and now[y] == before[y + by]]
            if len(moved) > len(best):
                best, lines = moved, by
    if len(best) < _LEAST:
        return None
    top, bottom = min(min(best), min(best) + lines), max(max(best), max(best) + lines)
    if len(best) < _SHARE * (bottom - top + 1):
        return None
    # Whole lines move: each of them has to be drawn, and all of what it showed has to be known.
    known = all(y in now and unknown not in before[y] for y in range(top, bottom + 1))
    return Scroll(top, bottom, lines) if known else None
