"""What a terminal shows in which nothing fits: one sentence."""

from typing import Final

from textual.widgets import Static

LEAST_COLUMNS: Final = 40
LEAST_LINES: Final = 10


class TooSmall(Static):
    """Covers the screen while it has fewer columns or lines than the least. What is below stays as
    it is, with its focus, and is there again when the terminal has grown."""

    def __init__(self) -> None:
        words = f"The terminal is too small: it needs {LEAST_COLUMNS} by {LEAST_LINES} (q quits)"
        super().__init__(words, markup=False)
