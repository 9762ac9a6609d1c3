"""A menu of letters: what a key opens when there are several things that it could mean."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Final, cast

from textual import on

from tui import messages
from tui.actions import BY_ID, scope_actions, shown_keys
from tui.widgets.lists.list_popup import ListPopup
from tui.widgets.lists.row_list import Cell, Column, Row, RowList

if TYPE_CHECKING:
    from tui.workbench import Workbench


_NARROW: Final = 60  # cells of the terminal
_SHORT: Final = 10  # cells of a word


class MenuPopup(ListPopup[str]):
    """Dismisses with the name of what was chosen among the actions of SCOPE. Subclasses take their
    bindings with `bindings(SCOPE)`."""

    OPEN_WORDS = "choose"
    SCOPE = ""
    DOES = ""  # the scope whose actions of the same names say what each does; empty: SCOPE
    COLUMNS = (Column("key", 3), Column("what", 48), Column("why not"))
    LIST_ID = "new-list"

    def __init__(self, why_not: Callable[[str], str], keymap: Mapping[str, str]) -> None:
        """`why_not` says why one is not possible now, or nothing; it is asked again whenever
        something changes."""
        super().__init__(classes="new-menu")
        self._keymap = keymap
        self._names = [action.id.partition(".")[2] for action in scope_actions(self.SCOPE)]
        self._why_not = why_not
        self._says = self.DOES or self.SCOPE

    def columns(self) -> Sequence[Column]:
        """On a narrow terminal a word says what each does, beside why it is not possible."""
        if not self.DOES or self.app.size.width >= _NARROW:
            return self.COLUMNS
        self._says = self.SCOPE
        name, what, why_not = self.COLUMNS
        return name, replace(what, width=_SHORT), why_not

    def on_mount(self) -> None:
        cast("Workbench", self.app).context.subscribe(self)

    def on_unmount(self) -> None:
        cast("Workbench", self.app).context.unsubscribe(self)

    def on_workspace_changed(self, _: messages.WorkspaceChanged) -> None:
        self.show_rows()

    def on_sae_changed(self, _: messages.SaeChanged) -> None:
        self.show_rows()

    def on_session_changed(self, _: messages.SessionChanged) -> None:
        self.show_rows()

    def list_rows(self) -> list[Row]:
        return [self._row(name) for name in self._names]

    def _row(self, name: str) -> Row:
        why_not = self._why_not(name)
        keys = shown_keys(BY_ID[f"{self.SCOPE}.{name}"], self._keymap)
        return Row(
            name,
            (
                Cell(keys, "$faint" if why_not else "bold $primary"),
                Cell(BY_ID[f"{self._says}.{name}"].help, "$faint" if why_not else ""),
                Cell(why_not, "$muted"),
            ),
        )

    @on(RowList.Opened)
    def _opened(self, event: RowList.Opened) -> None:
        self.action_choose(event.key)

    def action_choose(self, name: str) -> None:
        if why_not := self._why_not(name):
            self.notify(f"Not possible now: {why_not}", severity="warning")
        else:
            self.dismiss(name)
