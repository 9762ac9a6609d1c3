"""What went wrong in a pane: the sentence and what to do, from the failure to the next success."""

from textual.content import Content
from textual.widgets import Static

from tui.text import brief
from tui.threads import told_words


class Trouble(Static):
    """Takes no room while nothing is wrong. Stands in the pane whose work it is about: a toast is
    gone after some seconds, and whoever comes back would take old or missing rows for the truth."""

    def __init__(self, id: str | None = None) -> None:
        super().__init__("", id=id, markup=False)
        self.display = False

    def show(self, error: Exception) -> None:
        """Keeps the sentence about `error`, and its remedy, on the screen."""
        self.update(trouble_content(error))
        self.display = True

    def clear(self) -> None:
        """The work succeeded, or what it was about is no longer shown."""
        if self.display:
            self.display = False
            self.update("")


def trouble_content(error: Exception) -> Content:
    """The sentence about `error`, and below it what to do."""
    sentence, remedy = told_words(error)
    words = Content.styled(brief(sentence), "$error")
    return Content.assemble(words, "\n", (remedy, "$muted")) if remedy else words
