"""The command palette: type a few letters of any action, enter does it."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, cast

from textual import events, on
from textual.actions import parse
from textual.app import ComposeResult
from textual.fuzzy import FuzzySearch
from textual.screen import Screen
from textual.widget import Widget

from tui.actions import ACTIONS, SCREENS, Action, bindings, shown_keys
from tui.widgets.field import Field
from tui.widgets.frame.bound import OVER_POPUPS, bound_around
from tui.widgets.frame.popup import Popup
from tui.widgets.lists.row_list import Cell, Column, Row, RowList

if TYPE_CHECKING:
    from tui.workbench import Workbench

Choice = tuple[str, Widget | None]
_HIDDEN = ("popup", "form", "new", "map", "app.palette", "app.escape")


def offered(screen: Screen) -> list[Action]:
    """Every action that can be done from `screen`: its own first, then everywhere, then others'.
    Over a popup those of the popup, and of the app what leaves it open."""
    if screen.is_modal:
        return _offered_over(screen)
    here = getattr(screen, "NAME", "")
    ranked = []
    for position, action in enumerate(ACTIONS):
        if action.scope in _HIDDEN or action.id in _HIDDEN:
            continue
        if action.scope in (here, "app") or action.scope in SCREENS:
            rank = 0 if action.scope == here else 1 if action.scope == "app" else 3
        elif node_for(action, screen, screen.focused) is not None:
            rank = 2
        else:
            continue
        ranked.append((rank, position, action))
    return [action for _, _, action in sorted(ranked, key=lambda entry: entry[:2])]


def _offered_over(popup: Screen) -> list[Action]:
    own = bound_around(popup, popup.focused)
    elsewhere = [f"app.{name}" for name in SCREENS if name != popup.app.current_mode]
    known = {*own, *OVER_POPUPS, *elsewhere} - set(_HIDDEN)
    moves = ("list", "scroll", "tokens", "app")  # after what only this popup can do
    found = [action for action in ACTIONS if action.id in known]

    def place(one: Action) -> tuple[int, bool]:
        # Enter alone does the first: of a question never what it asks about.
        return moves.index(one.scope) if one.scope in moves else -1, one.id == "popup.yes"

    return sorted(found, key=place)


def node_for(action: Action, screen: Screen, focused: Widget | None) -> Widget | None:
    """Who does `action`: the focused widget or what it is in, or the screen itself."""
    method = "action_" + action.action.partition("(")[0]
    if screen.is_modal and action.scope != "app":
        found = bound_around(screen, focused).get(action.id)
        return found if isinstance(found, Widget) else None
    for node in focused.ancestors_with_self if focused is not None else (screen,):
        if isinstance(node, Widget) and hasattr(node, method):
            return node
    return None


def possible(action: Action, node: Widget) -> bool:
    """Whether `node` would do `action` now."""
    _, name, parameters = parse(action.action)
    return node.check_action(name, parameters) is True


class PaletteField(Field):
    """The search line; up and down move in the list below it."""

    def on_key(self, event: events.Key) -> None:
        rows = self.screen.query_one(RowList)
        moves = {
            "up": rows.action_cursor_up,
            "down": rows.action_cursor_down,
            "pageup": rows.action_page_up,
            "pagedown": rows.action_page_down,
        }
        if event.key in moves:
            event.stop()
            event.prevent_default()
            moves[event.key]()


class PalettePopup(Popup[Choice]):
    """Dismisses with the id of the chosen action and the widget that had the focus."""

    HEADING = "Actions"
    BINDINGS = bindings("popup", "close")

    def __init__(self, below: Screen, keymap: Mapping[str, str]) -> None:
        super().__init__(classes="palette")
        self._keymap = keymap
        self._below = below
        self._focused = below.focused
        self._actions = offered(below)
        self._here = getattr(below, "NAME", "")
        self._bound = bound_around(below, below.focused)
        self._search = FuzzySearch()

    def compose_box(self) -> ComposeResult:
        yield PaletteField(placeholder="Type to search", id="palette-search", compact=True)
        yield RowList(
            [
                Column("action"),
                Column("screen", 9, from_width=50),
                Column("keys", 12, "right", from_width=40),
            ],
            empty="No matching action",
            id="palette-list",
            classes="-lit",
        )

    def on_mount(self) -> None:
        self._show("")
        self.query_one(PaletteField).focus()

    @on(Field.Changed)
    def _typed(self, event: Field.Changed) -> None:
        self._show(event.value)

    def _show(self, query: str) -> None:
        actions = self._actions
        if query.strip():
            actions = self._with_words(query.lower().split()) or self._alike(query)
        rows = self.query_one(RowList)
        rows.set_rows([self._row(action) for action in actions])
        rows.cursor = 0

    def _with_words(self, words: list[str]) -> list[Action]:
        """The actions in whose text all `words` occur; first those where words begin with them."""
        texts = {action.id: f" {_searched(action).lower()}" for action in self._actions}
        found = [one for one in self._actions if all(word in texts[one.id] for word in words)]
        found.sort(key=lambda one: sum(f" {word}" not in texts[one.id] for word in words))
        return found

    def _alike(self, query: str) -> list[Action]:
        """The actions that hold the letters of `query` in their order, the most alike first."""
        scored = [
            (self._search.match(query, _searched(action))[0], action) for action in self._actions
        ]
        scored.sort(key=lambda pair: -pair[0])
        return [action for score, action in scored if score > 0]

    def _row(self, action: Action) -> Row:
        where = action.scope.title() if action.scope in SCREENS else ""
        style = "" if action.scope in (self._here, "app") else "$muted"
        acts = not self._below.is_modal or action.priority or action.id in self._bound
        if self._below.is_modal:
            node = node_for(action, self._below, self._focused)
            style = "" if node is None or possible(action, node) else "$faint"
        if action.scope == self._here and not possible(action, self._below):
            style = "$faint"
        if cast("Workbench", self.app).context.why_refused(action.id):
            style = "$faint"
        return Row(
            action.id,
            (
                Cell(action.help, style),
                Cell(where, "$faint"),
                Cell(shown_keys(action, self._keymap) if acts else "", "$primary"),
            ),
        )

    @on(Field.Submitted)
    @on(RowList.Opened)
    def _choose(self) -> None:
        key = self.query_one(RowList).key
        if key is not None:
            self.dismiss((key, self._focused))


def _searched(action: Action) -> str:
    return f"{action.help} {action.scope} {action.label}"
