"""The choice of a theme: each is shown while the cursor is on it."""

from textual import on
from textual.app import ComposeResult

from tui.actions import bindings
from tui.widgets.frame.popup import Popup
from tui.widgets.lists.row_list import Cell, Column, Row, RowList


class ThemesPopup(Popup[str]):
    """Dismisses with the name of the chosen theme; escape leaves the one that was there."""

    HEADING = "Themes"
    BINDINGS = bindings("popup", "close")

    def __init__(self, current: str) -> None:
        super().__init__(classes="palette themes")
        self._before = current

    def compose_box(self) -> ComposeResult:
        yield RowList([Column("theme"), Column("", 5)], id="themes-list")

    def on_mount(self) -> None:
        known = self.app.available_themes
        rows = self.query_one(RowList)
        rows.set_rows(
            [
                Row(name, (Cell(name), Cell("dark" if theme.dark else "light", "$muted")))
                for name, theme in known.items()
            ]
        )
        rows.cursor = list(known).index(self._before)
        rows.focus()

    @on(RowList.Highlighted)
    def _preview(self) -> None:
        if (name := self.query_one(RowList).key) is not None:
            self.app.theme = name

    @on(RowList.Opened)
    def _keep(self) -> None:
        self.dismiss(self.query_one(RowList).key)

    def action_close(self) -> None:
        self.app.theme = self._before
        super().action_close()
