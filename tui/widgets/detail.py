"""The pane at the right: a text that scrolls, wrapped by its owner to its width."""

from dataclasses import dataclass

from textual.containers import VerticalScroll
from textual.message import Message

from tui.actions import bindings


class DetailScroll(VerticalScroll, can_focus=True):
    """A pane of text that scrolls with the keys of a text."""

    BINDINGS = bindings("scroll")

    @dataclass
    class WidthChanged(Message):
        """The pane got another width: what is wrapped by hand must be drawn again."""

        pane: "DetailScroll"

    def __init__(self, id: str | None = None) -> None:
        super().__init__(id=id)
        self._width = 0

    @property
    def text_width(self) -> int:
        """Cells for a line of text; the scrollbar's cell is always kept free."""
        return max(self.outer_size.width - self.styles.gutter.width - 1, 10)

    def on_resize(self) -> None:
        if self.text_width != self._width:
            self._width = self.text_width
            self.post_message(self.WidthChanged(self))
