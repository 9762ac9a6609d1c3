"""A pane of text whose unchanged lines are not drawn again: what follows something that changes."""

from dataclasses import dataclass

from textual.content import Content
from textual.message import Message

from tui.actions import bindings
from tui.widgets.lists.line_view import LineView

_LEAST_WIDTH = 10


class DetailLines(LineView):
    """Shows a text, and with the next one draws the lines that differ."""

    BINDINGS = bindings("scroll")

    @dataclass(eq=False, repr=False)
    class WidthChanged(Message):
        """The pane got another width: its text must be made again."""

        pane: "DetailLines"

    def __init__(self, id: str | None = None) -> None:
        super().__init__(id=id)
        self._subject: object = None

    @property
    def width(self) -> int:
        """Cells that a line of text has."""
        return max(self.text_width, _LEAST_WIDTH)

    def show(self, content: Content, subject: object) -> None:
        """Shows `content`; from its top where the text before was about another `subject`."""
        lines = self._wrapped(content)
        if subject != self._subject:
            self._subject = subject
            self.scroll_to(y=0, animate=False, force=True, immediate=True)
        before, self._lines = self._lines, lines
        self._wrapped_for = self.text_width
        shared = min(len(before), len(lines))
        changed = [at for at in range(shared) if not before[at].is_same(lines[at])]
        changed += range(shared, max(len(before), len(lines)))
        self.forget_lines(set(changed))  # of every width: a scrollbar comes and goes
        if len(lines) != len(before):
            self.set_line_count(len(lines))
        top = round(self.scroll_offset.y)
        for line in changed:
            if top <= line < top + self.size.height:
                self.refresh_line(line)

    def _wrapped(self, content: Content) -> list[Content]:
        lines: list[Content] = []
        for line in content.split("\n", allow_blank=True):
            fits = line.cell_length <= self.width
            lines += [line] if fits else line.wrap(self.width)
        return lines

    def rewrap(self) -> None:
        self.forget_strips()
        self.post_message(self.WidthChanged(self))
