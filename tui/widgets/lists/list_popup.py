"""Popups that are one list: as high as its rows are many, with what the keys do to them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, cast

from textual import on
from textual.app import ComposeResult
from textual.widgets import Static

from tui.actions import bindings
from tui.preferences.list_columns import Column
from tui.widgets.frame.popup import Popup, Result
from tui.widgets.lists.row_list import Row, RowList


class ListPopup(Popup[Result]):
    """Shows its rows under the cursor keys. Subclasses say what a chosen row means."""

    BINDINGS = bindings("popup", "close")
    COLUMNS: ClassVar[Sequence[Column]] = ()
    MOST_ROWS: ClassVar[int | None] = 16  # at once; None: as many as the stylesheet has room for
    LIST_ID: ClassVar[str | None] = None

    def columns(self) -> Sequence[Column]:
        return self.COLUMNS

    def list_rows(self) -> Sequence[Row]:
        """What it lists now."""
        raise NotImplementedError

    def empty_words(self) -> str:
        """What it says without rows."""
        return ""

    def hint(self) -> str:
        """The line below the list."""
        return ""

    @property
    def row_list(self) -> RowList:
        return self.query_one(RowList)

    def compose_box(self) -> ComposeResult:
        yield RowList(self.columns(), empty=self.empty_words, id=self.LIST_ID)
        if hint := self.hint():
            yield Static(hint, classes="hint", markup=False)

    def on_mount(self) -> None:
        self.show_rows()
        self.row_list.focus()

    def show_rows(self) -> None:
        rows = self.list_rows()
        self.row_list.set_rows(rows)
        if self.MOST_ROWS is not None:
            self.row_list.styles.height = min(max(len(rows), 1), self.MOST_ROWS)


@dataclass(frozen=True)
class Chosen:
    """What to do, and with which rows of a list, by their keys."""

    action: str
    keys: tuple[str, ...] = ()

    @property
    def key(self) -> str:
        """The first of them; empty for none."""
        return next(iter(self.keys), "")


class SavedPopup(ListPopup[Chosen]):
    """Lists what was saved. Dismisses with an action, `open` for enter, and what it is for: all
    that are marked where the action is one of SEVERAL, else the row under the cursor."""

    SEVERAL: ClassVar[tuple[str, ...]] = ()

    def __init__(self, classes: str = "presets") -> None:
        super().__init__(classes=classes)
        self._marked: list[str] = []

    @on(RowList.Opened)
    def _open(self) -> None:
        self.action_choose("open")

    def action_mark(self) -> None:
        if (key := self.row_list.key) is not None:
            if key in self._marked:
                self._marked.remove(key)
            else:
                self._marked.append(key)
            self.show_rows()
            self.row_list.action_cursor_down()

    def action_choose(self, action: str) -> None:
        here = self.row_list.key
        if here is not None:
            several = self._marked if action in self.SEVERAL else []
            self.choose(action, *(several or [here]))

    def choose(self, action: str, *keys: str) -> None:
        """Closes it with the answer."""
        self.dismiss(cast("Chosen", Chosen(action, keys)))
