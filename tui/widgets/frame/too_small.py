"""What a terminal shows in which nothing fits: one sentence."""

from typing import Final

from textual.widgets import Static

from tui.preferences.key_words import key

LEAST_COLUMNS: Final = 40
LEAST_LINES: Final = 10


class TooSmall(Static):
    """Covers the screen while it has fewer columns or lines than the least. What is below stays as
    it is, with its focus, and is there again when the terminal has grown."""

    def __init__(self) -> None:
        super().__init__(markup=False)

    def render(self) -> str:
        size = f"{LEAST_COLUMNS} by {LEAST_LINES}"
        return f"The terminal is too small: it needs {size} ({key('app.quit')} quits)"
