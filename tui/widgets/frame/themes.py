"""The choice of a theme: each is shown while the cursor is on it."""

from textual import on

from tui.widgets.lists.list_popup import ListPopup
from tui.widgets.lists.row_list import Cell, Column, Row, RowList


class ThemesPopup(ListPopup[str]):
    """Dismisses with the name of the chosen theme; escape leaves the one that was there."""

    OPEN_WORDS = "keep"
    HEADING = "Themes"
    COLUMNS = (Column("theme"), Column("", 5))
    MOST_ROWS = None
    LIST_ID = "themes-list"

    def __init__(self, current: str) -> None:
        super().__init__(classes="palette themes")
        self._before = current

    def list_rows(self) -> list[Row]:
        return [
            Row(name, (Cell(name), Cell("dark" if theme.dark else "light", "$muted")))
            for name, theme in self.app.available_themes.items()
        ]

    def show_rows(self) -> None:
        super().show_rows()
        self.row_list.select(self._before)

    @on(RowList.Highlighted)
    def _preview(self) -> None:
        if (name := self.row_list.key) is not None:
            self.app.theme = name

    @on(RowList.Opened)
    def _keep(self) -> None:
        self.dismiss(self.row_list.key)

    def action_close(self) -> None:
        self.app.theme = self._before
        super().action_close()
