"""A field of several lines; what it holds and what it shows are kept apart as in `Field`.

A module of its own: the editor behind it takes a tenth of the time until a screen without one.
"""

from collections.abc import Sequence
from typing import cast

from rich.cells import cell_len
from rich.text import Text
from textual.document._document import DocumentBase
from textual.document._document_navigator import DocumentNavigator
from textual.document._wrapped_document import WrappedDocument
from textual.widgets import TextArea

from tui.text import printable


class _Shown:
    """A document as it is shown: what wraps the lines measures this."""

    def __init__(self, document: DocumentBase) -> None:
        self._document = document

    @property
    def lines(self) -> Sequence[str]:
        return [_shown(line) for line in self._document.lines]

    @property
    def line_count(self) -> int:
        return self._document.line_count

    def get_line(self, index: int) -> str:
        return _shown(self._document.get_line(index))

    def __getitem__(self, index: int) -> str:
        return self.get_line(index)


class Area(TextArea):
    """A field of several lines; tab leaves it."""

    def __init__(self, text: str = "", **settings) -> None:
        super().__init__(text, tab_behavior="focus", soft_wrap=True, **settings)
        self.cursor_blink = False

    def put(self, text: str) -> None:
        """Replaces the whole text, as one change that undoing takes back."""
        self.history.checkpoint()
        self.replace(text, (0, 0), self.document.end, maintain_selection_offset=False)
        self.history.checkpoint()
        self.move_cursor((0, 0))

    def begin_with(self, text: str) -> None:
        """Another text, which is gone on with at its end."""
        self.text = text
        self.move_cursor(self.document.end)

    def get_line(self, line_index: int) -> Text:
        return Text(_shown(self.document.get_line(line_index)), end="", no_wrap=True)

    def get_column_width(self, row: int, column: int) -> int:
        return cell_len(_shown(self.document.get_line(row)[:column]))

    def _set_document(self, text: str, language: str | None) -> None:
        super()._set_document(text, language)
        shown = cast("DocumentBase", _Shown(self.document))
        self.wrapped_document = WrappedDocument(shown, tab_width=self.indent_width)
        self.navigator = DocumentNavigator(self.wrapped_document)
        self._rewrap_and_refresh_virtual_size()


def _shown(line: str) -> str:
    return printable(line)
