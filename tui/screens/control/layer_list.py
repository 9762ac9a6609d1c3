"""The list of a model's layers, and what is below it where it leaves room."""

from textual.content import Content

from tui.screens.beginnings import beginnings
from tui.widgets.lists.row_list import RowList


class LayerList(RowList):
    """The rows of a layer tree; their keys are the full names."""

    def text_to_copy(self) -> tuple[str, str]:
        """The row with the layer's full name, which the tree shortens and marks."""
        _, *others = self.shown_texts() or [""]
        return "\t".join([self.key or "", *others]).strip(), "the row"

    def below(self, lines: int) -> Content:
        """What can be done here, where the layers leave room for it in their height and `lines`
        more; empty otherwise."""
        content = beginnings("control", (), max(self.size.width - 2, 1), 0)
        needed = content.plain.count("\n") + 2  # with the line between
        return content if self.row_count + needed <= self.size.height + lines else Content("")
