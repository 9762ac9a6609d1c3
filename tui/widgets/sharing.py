"""How panes under one another share the lines of a screen; pure."""

from collections.abc import Sequence


def share_heights(available: int, needs: Sequence[int]) -> list[int]:
    """Lines for each pane: what it needs where that fits, else a fair share; all of it is used.

    Left-over lines go to the last pane.
    """
    heights = [0] * len(needs)
    open_ones = list(range(len(needs)))
    left = available
    while open_ones:
        share = left // len(open_ones)
        small = [index for index in open_ones if needs[index] <= share]
        if not small:
            for index in open_ones:
                heights[index] = share
                left -= share
            break
        for index in small:
            heights[index] = needs[index]
            left -= needs[index]
            open_ones.remove(index)
    heights[-1] += max(left, 0)
    return heights
