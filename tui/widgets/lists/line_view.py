"""Ready lines of content that scroll: the base of examples, tokens and streamed text."""

from collections.abc import Sequence

from textual.content import Content

from tui.widgets.lists.strip_view import StripView


class LineView(StripView):
    """Shows lines that are as wide as the view. Subclasses give them to `set_lines`, again after
    each change of the width (`rewrap`), and may give some another look."""

    def __init__(self, id: str | None = None, classes: str | None = None) -> None:
        super().__init__(id=id, classes=classes)
        self._lines: Sequence[Content] = ()
        self._wrapped_for = 0

    def set_lines(self, lines: Sequence[Content], count: int | None = None) -> None:
        """Shows these lines; `count`: how many there will be once the others have come."""
        self._lines = lines
        self.forget_strips()
        self._wrapped_for = self.text_width
        self.set_line_count(len(lines) if count is None else count)
        self.refresh()

    def rewrap(self) -> None:
        """The width changed: make the lines again."""

    @property
    def row_count(self) -> int:
        return len(self._lines)

    def text_to_copy(self) -> tuple[str, str]:
        return "\n".join(line.plain.rstrip() for line in self._lines).strip("\n"), "the text"

    def line_content(self, line: int, look: str) -> Content:
        return self._lines[line]

    def on_resize(self) -> None:
        if self.text_width != self._wrapped_for:
            self._wrapped_for = self.text_width
            self.rewrap()
