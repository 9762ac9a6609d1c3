"""What opens over Inspect: the causes of an answer, and grids of rows by tokens."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, cast

from textual import on
from textual.app import ComposeResult
from textual.content import Content
from textual.screen import Screen
from textual.widgets import Static

from mi_crow.mechanistic.concepts.inspection_words import without_causes
from tui.actions import Action, bindings
from tui.preferences.key_words import key
from tui.screens.inspect.explained import (
    Cause,
    answer_line,
    cause_columns,
    causes_of,
    check_lines,
    says_line,
)
from tui.screens.inspect.keeping import Found, ask_to_save
from tui.widgets.frame.popup import Popup
from tui.widgets.lists.row_list import ListHeading, Row, RowList
from tui.widgets.token_grid import GridRow, TokenGrid
from tui.widgets.trouble import trouble_content
from tui.widgets.words import Words

if TYPE_CHECKING:
    from tui.workbench import Workbench


class Wanted(NamedTuple):
    """What to do once the popup is closed."""

    # open, steer, steer group, choose, vectors, remove vector, another patching
    what: str
    sae_id: str | None = None
    feature: int | None = None
    token: int | None = None
    target: str | None = None  # a group, or a vector


Explain = Callable[[int, str | None], None]
"""Asks what made the model say the next token (None: that of the text) after a token."""

Ablate = Callable[[Sequence[tuple[str, int]], int], dict[str, Any]]
"""Asks the session what it says without features (SAE, number) after a token; blocks."""


class FoundPopup(Popup[Wanted]):
    """Shows what was found out about a text, which can be saved. More keys act on it than a narrow
    footer has room for; SCOPE is theirs."""

    SCOPE: ClassVar[str] = ""

    def __init__(self, found: Found | None, classes: str) -> None:
        super().__init__(classes=classes)
        self._kept = found

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        return self._kept is not None if action == "save" else True

    def say(self, words: str) -> None:
        """Says in the border what goes on."""
        self.query_one(".popup-box").border_subtitle = words

    def listed_in_help(self, action: Action) -> bool:
        own = action.scope == self.SCOPE
        return not own or self.check_action(action.action, ()) is not False

    def action_save(self) -> None:
        if self._kept is not None:
            ask_to_save(cast("Workbench", self.app), self._kept)


def opened_over(screen: Screen[Any]) -> list[FoundPopup]:
    """What is open over a screen of what was found, the uppermost first."""
    over = screen.app.screen_stack if screen.app.screen_stack[0] is screen else ()
    return [one for one in reversed(over) if isinstance(one, FoundPopup)]


class CausesPopup(FoundPopup):
    """The features that made the model say it, with what ablating them did. Dismisses with the
    feature to open or to steer."""

    BINDINGS = bindings("popup", "close") + bindings("causes")
    SCOPE = "causes"

    def __init__(
        self,
        found: Mapping[str, Any],
        ablate: Ablate,
        kept: Found | None,
        ask: "Callable[[CausesPopup], None]",
    ) -> None:
        """`ask` puts the question again, otherwise."""
        super().__init__(kept, "map causes")
        self._ask_otherwise = ask
        self._found, self._ask = found, ablate
        self._looks: list[str | None] = [one["sae_id"] for one in found["saes"]]
        if len(self._looks) > 1:
            self._looks.insert(0, None)
        elif any(one["children"] for one in found["tree"]):  # through features of the same SAE
            self._looks.append(None)
        self._look = 0
        self._causes = self._listed()
        self._ablated: list[tuple[str, int]] = []

    def heading(self) -> str:
        only = self._looks[self._look]
        if only is not None:
            return f"Why: features of {only}"
        names = ", ".join(one["sae_id"] for one in self._found["saes"])
        return f"Why: what acts through what, {names}"

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        if action == "next_look":
            return len(self._looks) > 1
        return super().check_action(action, parameters)

    def _listed(self) -> dict[str, Cause]:
        return {one.row.key: one for one in causes_of(self._found, self._looks[self._look])}

    def action_next_look(self) -> None:
        """The tree, and the causes of each SAE."""
        self._look = (self._look + 1) % len(self._looks)
        self._causes = self._listed()
        self.query_one(".popup-box").border_title = self.heading()
        self.query_one("#causes-list", RowList).set_rows(self._rows())

    def action_ask(self) -> None:
        """Puts the question over the answer, which stays until there is another."""
        self._ask_otherwise(self)

    def compose_box(self) -> ComposeResult:
        rows = RowList(cause_columns(self._found), empty=self._no_causes, id="causes-list")
        yield Static(answer_line(self._found), id="causes-answer", markup=False)
        yield Words(id="causes-says", markup=False)
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

    def _no_causes(self) -> str:
        only, saes = self._looks[self._look], self._found["saes"]
        return without_causes(next((one for one in saes if one["sae_id"] == only), saes[-1]))

    def _show_says(self, without: Mapping[str, Any] | None) -> None:
        lines = [says_line(self._found["predictions"], "says   ")]
        if without is None:
            lines.append(Content.styled(f"{key('causes.ablate')} ablates a feature here", "$faint"))
        else:
            lines.append(says_line(without["predictions_without"], "without"))
        self.query_one("#causes-says", Words).update(Content("\n").join(lines))

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
        """Ablates the feature on the whole text, or restores it."""
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
        self.in_thread(asked, self._answered, group="without", failed=self._not_ablated)

    def _not_ablated(self, error: Exception) -> None:
        self.tell(error)
        says = says_line(self._found["predictions"], "says   ")
        trouble = Content.assemble(says, "\n", trouble_content(error))
        self.query_one("#causes-says", Words).update(trouble)

    def _answered(self, without: Mapping[str, Any]) -> None:
        if self._ablated:
            self._show_says(without)


def _struck(one: Cause) -> Row:
    """The row of a feature that is ablated: by a sign, not by colour alone."""
    first, *rest = one.row.cells
    shown = type(first)(f"✗ {first.text.strip()}", "$warning", first.more)
    return Row(one.row.key, (shown, *rest))


@dataclass(frozen=True)
class Look:
    """One way to show a grid: its title, its rows, and the width of their cells."""

    title: str
    rows: Sequence[GridRow]
    cell: int


class GridPopup(FoundPopup):
    """Rows by tokens, as large as the screen, with a line about the cell under the cursor. Enter
    dismisses with the row's key as `open` or `choose`; `a`, or enter where rows mean nothing,
    explains the token over the grid."""

    BINDINGS = bindings("popup", "close") + bindings("grid")
    SCOPE = "grid"

    def __init__(
        self,
        tokens: Sequence[str],
        looks: Sequence[Look],
        line: Callable[[str, int], Content],
        *,
        column: int = 0,
        row: int = 0,
        explain: "Explain | None" = None,
        opens_feature: bool = False,
        explains_cell: bool = False,
        chooses_row: bool = False,
        other: str = "",
        found: Found | None = None,
    ) -> None:
        """`explain` is asked why the model said a token; `explains_cell`: the cells are next
        tokens; `opens_feature`: the keys are features; `chooses_row`: enter dismisses with the row.
        After the last of the looks comes `other`, which is dismissed with, or the first again."""
        super().__init__(found, "map grid")
        self._explains_cell, self._explain = explains_cell, explain
        self._chooses_row = chooses_row
        self._tokens, self._looks, self._line = tokens, tuple(looks), line
        self._grid = TokenGrid(looks[0].cell, id="grid")
        self._at, self._look, self._other = (column, row), 0, other
        self._opens_feature = opens_feature

    @property
    def _rows(self) -> Sequence[GridRow]:
        return self._looks[self._look].rows

    def heading(self) -> str:
        return self._looks[self._look].title

    def compose_box(self) -> ComposeResult:
        yield self._grid
        yield Words(id="grid-line", markup=False)

    def on_mount(self) -> None:
        self._grid.show(self._tokens, self._rows, *self._at)
        self._grid.focus()
        self._moved()

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        if action == "next_look":
            return len(self._looks) > 1 or bool(self._other)
        if action == "attribute":
            return self._explain is not None
        if action in ("vectors", "remove"):
            return self._opens_feature and (action == "vectors" or not self._on_feature)
        return super().check_action(action, parameters)

    @property
    def _on_feature(self) -> bool:
        return (self._grid.key or "0").isdecimal()

    def action_vectors(self) -> None:
        """The vectors, at the one under the cursor."""
        self.dismiss(Wanted("vectors", target=None if self._on_feature else self._grid.key))

    def action_remove(self) -> None:
        self.dismiss(Wanted("remove vector", target=self._grid.key))

    @on(TokenGrid.Moved)
    def _moved(self) -> None:
        self.refresh_bindings()
        key = self._grid.key
        line = self._line(key, self._grid.column) if key is not None else Content("nothing fires")
        self.query_one("#grid-line", Words).update(line)

    @on(TokenGrid.Opened)
    def _opened(self) -> None:
        key, token = self._grid.key, self._grid.column
        if key is None:
            return
        if self._opens_feature and not key.isdecimal():
            self.action_vectors()
        elif self._opens_feature:
            self.dismiss(Wanted("open", None, int(key), token))
        elif self._chooses_row:
            self.dismiss(Wanted("choose", key, None, token))
        else:
            self.action_attribute()

    def action_next_look(self) -> None:
        """Shows the same cells another way."""
        if self._other and self._look == len(self._looks) - 1:
            self.dismiss(Wanted(self._other))
            return
        self._look = (self._look + 1) % len(self._looks)
        self.query_one(".popup-box").border_title = self.heading()
        column, row, cell = self._grid.column, self._grid.row, self._looks[self._look].cell
        self._grid.show(self._tokens, self._rows, column, row, cell)
        self._moved()

    def action_attribute(self) -> None:
        """Asks for the causes of the cell's token, or of what follows the token in the text; they
        open over the grid."""
        if self._explain is None:
            return
        token = self._grid.column
        row = next((one for one in self._rows if one.key == self._grid.key), None)
        target = row.texts[token] if row is not None and self._explains_cell else None
        self._explain(token, target)
