"""Where a text for Inspect comes from: a file, the index, a saved generation, a conversation."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from textual import on

from mi_crow.clean_text import clean_text
from mi_crow.errors import NotFoundError, UserError
from tui.actions import bindings
from tui.preferences.key_words import key
from tui.screens.concepts.typed_path import typed_path
from tui.screens.inspect.explaining import Explains
from tui.text import printable
from tui.widgets.area import Area
from tui.widgets.frame.menu import MenuPopup
from tui.widgets.lists.list_popup import ListPopup
from tui.widgets.lists.row_list import Cell, Column, Row, RowList

if TYPE_CHECKING:
    from mi_crow.mechanistic.concepts.annotations import SavedGeneration
    from mi_crow.mechanistic.features.documents import IndexedDocument

_MOST_BYTES = 1 << 20  # of a file that is read
_LISTED = 200


class SourceMenu(MenuPopup):
    """Dismisses with file, document, generation or chat."""

    HEADING = "Text from"
    SCOPE = "sources"
    BINDINGS = bindings("sources") + bindings("popup", "close")


class TextsPopup(ListPopup[str]):
    """A list of texts; dismisses with the chosen one's."""

    OPEN_WORDS = "take"
    COLUMNS = (Column("which", 20), Column("text"))

    def __init__(self, heading: str, rows: Sequence[tuple[str, str, str]]) -> None:
        """`rows`: what it is, what is shown of it, the text."""
        super().__init__(classes="presets")
        self._heading, self._found = heading, rows

    def heading(self) -> str:
        return self._heading

    def list_rows(self) -> list[Row]:
        return [
            Row(str(place), (Cell(printable(what), "$accent"), Cell(printable(shown))))
            for place, (what, shown, _) in enumerate(self._found)
        ]

    @on(RowList.Opened)
    def _opened(self, event: RowList.Opened) -> None:
        self.dismiss(self._found[int(event.key)][2])


class TakesTexts(Explains):
    """The part of Inspect that gets texts from elsewhere. Its body has `#inspect-text`."""

    def action_sources(self) -> None:
        """Opens the menu of where a text may come from."""
        menu = SourceMenu(self._why_not, self.mi_crow.keymap)
        self.app.push_screen(menu, self._from)

    def _why_not(self, name: str) -> str:
        if name == "document" and self.context.features is None:
            return "the open SAE has no index"
        if name == "chat" and not self.query_one("#inspect-text", Area).text.strip():
            return "write lines that begin with user: or assistant: first"
        return ""

    def _from(self, name: str | None) -> None:
        prompt = self.prompt
        if name == "file":
            prompt.ask("file", "the text of", placeholder="a text file", hint="enter reads it")
        elif name == "document":
            hint = "enter finds it"
            prompt.ask("document", "document", placeholder="a number, or its words", hint=hint)
        elif name == "generation":
            self.in_thread(self._generations, self._list_generations, group="texts", opens=True)
        elif name == "chat":
            chat = self.query_one("#inspect-text", Area).text
            self.ask_session("render", lambda found: self.take_text(found["text"]), chat=chat)

    def answered_source(self, purpose: str, value: str) -> None:
        """What was typed for a file or a document."""
        if purpose == "file" and value:
            self.in_thread(partial(_text_of_file, value), self.take_text, group="texts")
        elif purpose == "document":
            store = self.context.features
            if store is not None:
                from mi_crow.mechanistic.features.documents import find_documents  # with NumPy

                find = partial(find_documents, store.connection, value, _LISTED)
                self.in_thread(find, partial(self._list_documents, value), group="texts")

    def take_text(self, text: str) -> None:
        """Puts a text into the field, and reads it. Undoing in the field brings back what was
        typed."""
        self.query_one("#inspect-text", Area).put(text)
        self.action_run()

    def _list_documents(self, wanted: str, found: "Sequence[IndexedDocument]") -> None:
        if not found:
            self.tell(NotFoundError(f"no indexed document has {wanted!r}", hint="try fewer words"))
        elif len(found) == 1:
            self.take_text(found[0].text)
        else:
            rows = [(f"{one.number} {one.label or ''}", one.text, one.text) for one in found]
            title = f"{len(found):,} documents"
            self.app.push_screen(TextsPopup(title, rows), self._chosen_text)

    def _generations(self) -> "list[SavedGeneration]":
        return self.context.annotations.generations(_LISTED, readings=False)

    def _list_generations(self, found: "Sequence[SavedGeneration]") -> None:
        rows = [
            (f"{one.id} {side}", text, one.prompt + text)
            for one in found
            for side, text in (("steered", one.steered), ("baseline", one.baseline))
            if text
        ]
        if not rows:
            keys = key("steer.save")
            self.notify(f"No generation is saved yet: {keys} on Steer saves one")
            return
        self.app.push_screen(TextsPopup("Saved generations", rows), self._chosen_text)

    def _chosen_text(self, text: Any) -> None:
        if text is not None:
            self.take_text(str(text))


def _text_of_file(name: str) -> str:
    """The text of a file. Raises UserError for one that is none, and OSError."""
    path: Path = typed_path(name)
    if not path.is_file():
        raise UserError(f"there is no file {name!r}", hint="give the path of a text file")
    with path.open("rb") as file:
        data = file.read(_MOST_BYTES + 1)
    if len(data) > _MOST_BYTES:
        raise UserError(f"{path.name!r} has more than 1 MiB", hint="cut the part to be inspected")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        text = "\0"
    if "\0" in text:
        raise UserError(f"{path.name!r} is not a text file", hint="it has to be UTF-8")
    if not text.strip():
        raise UserError(f"{path.name!r} is empty")
    return clean_text(text)
