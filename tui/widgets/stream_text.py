"""Text that grows while a model writes it; follows its end unless somebody scrolled up."""

from dataclasses import dataclass, replace

from textual.content import Content

from tui.actions import bindings
from tui.text import printable
from tui.widgets.lists.line_view import LineView
from tui.widgets.token_heat import wrap_tokens


@dataclass(frozen=True)
class Passage:
    """One piece of text: the prompt that it continues, and a title when there are several."""

    prompt: str = ""
    text: str = ""
    title: str = ""


class StreamText(LineView):
    """Passages under one another; the last one grows."""

    BINDINGS = bindings("scroll")

    def __init__(self, id: str | None = None, empty: str = "") -> None:
        super().__init__(id=id)
        self._passages: list[Passage] = []
        self._empty = empty

    def say_empty(self, sentence: str) -> None:
        """Shows `sentence` while there is no text."""
        if sentence != self._empty:
            self._empty = sentence
            self.rewrap()

    @property
    def text(self) -> str:
        """What was written so far; several passages with their titles."""
        if len(self._passages) == 1:
            return self._passages[0].text
        return "\n\n".join(f"{passage.title}\n{passage.text}" for passage in self._passages)

    def start(self, prompt: str, title: str = "", *, keep: bool = False) -> None:
        """Begins a passage; the earlier ones go unless `keep`."""
        self._passages = [*(self._passages if keep else ()), Passage(prompt, "", title)]
        self.rewrap()
        self.scroll_end(animate=False, force=True)

    def append(self, text: str) -> None:
        """Adds text to the last passage."""
        if self._passages:
            self.put(self._passages[-1].text + text)

    def put(self, text: str) -> None:
        """Replaces the last passage's text."""
        if not self._passages or self._passages[-1].text == text:
            return
        at_end = self.scroll_offset.y >= self.max_scroll_y - 1
        self._passages[-1] = replace(self._passages[-1], text=text)
        self.rewrap()
        if at_end:
            self.scroll_to(y=self.max_scroll_y, animate=False, force=True)

    def retitle(self, title: str) -> None:
        """Gives the last passage another title."""
        if self._passages and self._passages[-1].title != title:
            self._passages[-1] = replace(self._passages[-1], title=title)
            self.rewrap()

    def clear(self) -> None:
        self._passages = []
        self.rewrap()

    def rewrap(self) -> None:
        lines: list[Content] = []
        for passage in self._passages:
            if lines:
                lines.append(Content(""))
            if passage.title:
                lines.append(Content.styled(printable(passage.title), "bold $accent"))
            for line in wrap_tokens([passage.prompt, passage.text], self.text_width):
                lines.append(
                    Content.assemble(
                        *((piece.text, "" if piece.index else "$muted") for piece in line)
                    )
                )
        if not self._passages and self._empty:
            lines = [Content.styled(self._empty, "$muted")]
        self.set_lines(lines)
