"""What is under a popup, in the dimmed colours that it has there."""

from functools import lru_cache

from rich.segment import Segment
from rich.style import Style
from textual.color import Color
from textual.renderables.background_screen import BackgroundScreen
from textual.strip import Strip


def dimmed_lines(under: BackgroundScreen, ground: Style) -> list[Strip]:
    """The lines of the screen below. Textual makes a style for each piece of them, several times
    over; a screen has some dozens."""
    colour = under.color
    return [
        Strip(
            [Segment(text, _dimmed(style, colour, ground)) for text, style, _ in strip],
            strip.cell_length,
        )
        for strip in under.screen._compositor.render_strips()
    ]


@lru_cache(1024)
def _dimmed(style: Style | None, colour: Color, ground: Style) -> Style:
    """As `BackgroundScreen` does it for one piece, on the ground of the popup's screen."""
    [(_, dimmed, _)] = BackgroundScreen.process_segments([Segment(" ", style)], colour)
    return ground + dimmed
