"""The line under the header about the workspace as a whole: that it is gone, or cannot be read."""

from textual.content import Content
from textual.widgets import Static

from tui.text import printable


class Banner(Static):
    """Takes no room while nothing is wrong; stays until it is over."""

    def __init__(self) -> None:
        super().__init__("", markup=False)
        self._shown = ("", "")
        self.display = False

    def show(self, sentence: str, remedy: str) -> None:
        """Says what is wrong with the workspace, and what follows; empty: nothing is."""
        if (sentence, remedy) == self._shown:
            return
        self._shown = sentence, remedy
        self.display = bool(sentence)
        parts = [(printable(sentence), "bold $error"), (f"; {printable(remedy)}", "$foreground")]
        self.update(Content.assemble(*parts[: 1 + bool(remedy)]))
