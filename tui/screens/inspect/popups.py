"""What opens over Inspect: the causes of an answer, and grids of rows by tokens."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

from textual import on
from textual.app import ComposeResult
from textual.content import Content
from textual.widgets import Static

from tui.actions import bindings
from tui.preferences.key_words import key
from tui.screens.inspect.explained import (
    CAUSES,
    Cause,
    answer_line,
    causes_of,
    check_lines,
    says_line,
)
from tui.widgets.frame.popup import Popup
from tui.widgets.lists.row_list import ListHeading, Row, RowList
from tui.widgets.token_grid import GridRow, TokenGrid


class Wanted(NamedTuple):
    """What to do once the popup is closed."""

    what: str  # open, steer or attribute
    sae_id: str | None = None
    feature: int | None = None
    token: int | None = None
    target: str | None = None  # the next token to explain; None: that of the text


Ablate = Callable[[Sequence[tuple[str, int]], int], dict[str, Any]]
"""Asks the session what it says without features (SAE, number) after a token; blocks."""


class CausesPopup(Popup[Wanted]):
    """The features that made the model say it, with what ablating them did. Dismisses with the
    feature to open or to steer."""

    BINDINGS = bindings("popup", "close") + bindings("causes")

    def __init__(self, found: Mapping[str, Any], ablate: Ablate) -> None:
        super().__init__(classes="map causes")
        self._found, self._ask = found, ablate
        self._causes = {one.row.key: one for one in causes_of(found)}
        self._ablated: list[tuple[str, int]] = []

    def heading(self) -> str:
        names = ", ".join(one["sae_id"] for one in self._found["saes"])
        return f"Why: features of {names}"

    def compose_box(self) -> ComposeResult:
        rows = RowList(CAUSES, empty="no feature fires on this text", id="causes-list")
        yield Static(answer_line(self._found), id="causes-answer", markup=False)
        yield Static(id="causes-says", markup=False)
        yield ListHeading("Feature", rows, id="causes-heading")
        yield rows
        yield Static(check_lines(self._found), id="causes-check", markup=False)

    def on_mount(self) -> None:
        rows = self.query_one("#causes-list", RowList)
        rows.set_rows(self._rows())
        rows.focus()
        self._show_says(None)

    def _rows(self) -> list[Row]:
        return [
            one.row if (one.sae_id, one.feature) not in self._ablated else _struck(one)
            for one in self._causes.values()
        ]

    def _show_says(self, without: Mapping[str, Any] | None) -> None:
        lines = [says_line(self._found["predictions"], "says   ")]
        if without is None:
            lines.append(Content.styled(f"{key('causes.ablate')} ablates a feature here", "$faint"))
        else:
            lines.append(says_line(without["predictions_without"], "without"))
        self.query_one("#causes-says", Static).update(Content("\n").join(lines))

    @property
    def _cause(self) -> Cause | None:
        return self._causes.get(self.query_one("#causes-list", RowList).key or "")

    @on(RowList.Opened)
    def _open(self) -> None:
        self._leave("open")

    def action_steer(self) -> None:
        self._leave("steer")

    def _leave(self, what: str) -> None:
        if (cause := self._cause) is not None:
            self.dismiss(Wanted(what, cause.sae_id, cause.feature))

    def action_ablate(self) -> None:
        """Ablates the feature on the whole text, or lets it be again."""
        if (cause := self._cause) is None:
            return
        pair = (cause.sae_id, cause.feature)
        if pair in self._ablated:
            self._ablated.remove(pair)
        else:
            self._ablated.append(pair)
        self.query_one("#causes-list", RowList).set_rows(self._rows())
        if not self._ablated:
            self._show_says(None)
            return
        asked = partial(self._ask, tuple(self._ablated), self._found["target"]["position"])
        self.in_thread(asked, self._answered, group="without")

    def _answered(self, without: Mapping[str, Any]) -> None:
        if self._ablated:
            self._show_says(without)


def _struck(one: Cause) -> Row:
    """The row of a feature that is ablated: by a sign, not by colour alone."""
    first, *rest = one.row.cells
    shown = type(first)(f"✗ {first.text.strip()}", "$warning", first.more)
    return Row(one.row.key, (shown, *rest))


class GridPopup(Popup[Wanted]):
    """Rows by tokens, as large as the screen, with a line about the cell under the cursor. Enter
    dismisses with the row's key as `open`, `a` with the token as `attribute`."""

    BINDINGS = bindings("popup", "close") + bindings("grid")

    def __init__(
        self,
        title: str,
        tokens: Sequence[str],
        rows: Sequence[GridRow],
        line: Callable[[str, int], Content],
        *,
        cell: int,
        column: int = 0,
        opens_feature: bool = False,
        explains_cell: bool = False,
    ) -> None:
        """`opens_feature`: the keys are features; `explains_cell`: the cells are next tokens."""
        super().__init__(classes="map grid")
        self._explains_cell = explains_cell
        self._title, self._tokens, self._rows, self._line = title, tokens, rows, line
        self._grid = TokenGrid(cell, id="grid")
        self._column, self._opens_feature = column, opens_feature

    def heading(self) -> str:
        return self._title

    def compose_box(self) -> ComposeResult:
        yield self._grid
        yield Static(id="grid-line", markup=False)

    def on_mount(self) -> None:
        self._grid.show(self._tokens, self._rows, self._column)
        self._grid.focus()
        self._moved()

    @on(TokenGrid.Moved)
    def _moved(self) -> None:
        key = self._grid.key
        line = self._line(key, self._grid.column) if key is not None else Content("nothing fires")
        self.query_one("#grid-line", Static).update(line)

    @on(TokenGrid.Opened)
    def _opened(self) -> None:
        key, token = self._grid.key, self._grid.column
        if key is None:
            return
        if self._opens_feature:
            self.dismiss(Wanted("open", None, int(key), token))
        else:
            self.dismiss(Wanted("choose", key, None, token))

    def action_attribute(self) -> None:
        """Asks for the causes of the cell's token, or of what follows the token in the text."""
        token = self._grid.column
        row = next((one for one in self._rows if one.key == self._grid.key), None)
        target = row.texts[token] if row is not None and self._explains_cell else None
        self.dismiss(Wanted("attribute", token=token, target=target))
