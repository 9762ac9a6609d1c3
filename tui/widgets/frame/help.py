"""The help overlay: every key that works on the screen below, in groups."""

from collections.abc import Callable, Mapping, Sequence
from textwrap import wrap
from typing import Any, Final

from textual.app import ComposeResult
from textual.containers import Horizontal, VerticalScroll
from textual.content import Content
from textual.widgets import Static

from tui.actions import BY_ID, Action, bindings, scope_actions, shown_keys
from tui.preferences.key_words import key
from tui.widgets.frame.bound import bound_within
from tui.widgets.frame.popup import Popup

_KEYS: Final = 20  # cells
_LEAST: Final = 24  # for what a key does beside a column of keys; else it follows its key
_INDENT: Final = "    "
_TWO_COLUMNS: Final = 160  # cells of the terminal
# As the stylesheet has it: the width of the box, its border, padding and scrollbar, a column's gap.
_NARROW, _WIDE, _AROUND, _GAP = 76, 156, 7, 2

_AT_THE_END = ("tokens", "list", "sorting", "scroll", "popup", "app")
_TITLES = {
    "popup": "Here",
    "app": "Everywhere",
    "list": "In lists",
    "sorting": "In lists with columns",
    "scroll": "In texts",
    "tokens": "On tokens",
}
# What else can have the focus or opens there.
_ALSO = {
    "runs": ("sorting", "new", "scroll"),
    "features": ("map",),
    "inspect": ("tokens", "sources"),
    "steer": ("scroll",),
    "concepts": ("sorting",),
}


def screen_scopes(screen_name: str) -> tuple[str, ...]:
    """What has keys on a screen: itself first, then lists, then the app."""
    return (screen_name, "list", *_ALSO.get(screen_name, ()), "app")


def help_blocks(
    scopes: Sequence[str],
    keymap: Mapping[str, str],
    room: int | None = None,
    possible: Callable[[Action], bool] = lambda _: True,
) -> list[Content]:
    """The keys of all actions that are possible, each scope under its title. `keymap` overrides
    keys; what a key does stays beside it, in `room` cells, or follows it where they are few."""
    blocks = []
    for scope in scopes:
        actions = [one for one in scope_actions(scope) if shown_keys(one, keymap) and possible(one)]
        if actions:
            title = _title(scope)
            lines = [Content.styled(title, "bold $primary")]
            lines += [_line(action, keymap, room) for action in actions]
            blocks.append(Content("\n").join(lines))
    return blocks


def _title(scope: str) -> str:
    opened_by = {
        "map": ("On the map", "features.map"),
        "new": ("New", "runs.new"),
        "sources": ("New text", "inspect.new"),
    }
    if scope in opened_by:
        title, action = opened_by[scope]
        return f"{title} ({key(action)})"
    return _TITLES.get(scope, scope.title())


def _line(action: Action, keymap: Mapping[str, str], room: int | None) -> Content:
    keys = shown_keys(action, keymap)
    if action.scope == "new":  # a row of the menu stands for what the screen does
        action = BY_ID["runs." + action.id.partition(".")[2]]
    if room is not None and room < _LEAST:
        return _in_a_row(keys, action.help, room + _KEYS + 1)
    lines = wrap(action.help, room) if room is not None else [action.help]
    words = ("\n" + " " * (_KEYS + 1)).join(lines)
    return Content.assemble((f"{keys:<{_KEYS}} ", "bold $foreground"), (words, "$muted"))


def _in_a_row(keys: str, words: str, width: int) -> Content:
    """The keys, and what they do right after them."""
    first = " " * (len(keys) + 2)
    below = width - len(first) < len(first)
    lines = wrap(
        words, width, initial_indent=_INDENT if below else first, subsequent_indent=_INDENT
    )
    rest = "\n".join(lines)
    rest = f"\n{rest}" if below else rest[len(keys) :]
    return Content.assemble((keys, "bold $foreground"), (rest, "$muted"))


def in_columns(blocks: Sequence[Content], columns: int) -> list[Content]:
    """The blocks in columns of about one height, none of them torn."""
    heights = [len(block.split("\n")) + 1 for block in blocks]
    most = max(max(heights), -(-sum(heights) // columns))
    while True:
        filled: list[list[Content]] = [[]]
        height = 0
        for block, lines in zip(blocks, heights, strict=True):
            if filled[-1] and height + lines > most:
                filled.append([])
                height = 0
            filled[-1].append(block)
            height += lines
        if len(filled) <= columns:
            return [Content("\n\n").join(column) for column in filled]
        most += 1


class HelpPopup(Popup[None]):
    """`?`: the keys of a screen or of what is open over it."""

    HEADING = "Keys"
    BINDINGS = bindings("popup", "close")

    def __init__(
        self,
        scopes: Sequence[str],
        keymap: Mapping[str, str],
        possible: Callable[[Action], bool] = lambda _: True,
    ) -> None:
        super().__init__(classes="help")
        self._scopes, self._keymap, self._possible = scopes, keymap, possible

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        return action != "help"  # that is what it shows

    def compose_box(self) -> ComposeResult:
        width = self.app.size.width
        columns = 2 if width >= _TWO_COLUMNS else 1
        box = _WIDE if columns > 1 else min(_NARROW, width * 96 // 100)
        room = (box - _AROUND) // columns - _GAP - _KEYS - 1
        blocks = help_blocks(self._scopes, self._keymap, room, self._possible)
        self.set_class(columns > 1, "-two-columns")
        with HelpScroll(), Horizontal():
            for column in in_columns(blocks, columns):
                yield Static(column)


def help_over(popup: Popup[Any], keymap: Mapping[str, str]) -> HelpPopup:
    """The keys that act over a popup: what only it has first."""
    known = {*(own := bound_within(popup)), "app.palette", "app.picture"}
    scopes = list(dict.fromkeys(name.partition(".")[0] for name in own))
    scopes.sort(key=lambda one: _AT_THE_END.index(one) if one in _AT_THE_END else -1)
    return HelpPopup(scopes, keymap, lambda one: one.id in known and popup.listed_in_help(one))


class HelpScroll(VerticalScroll):
    """Scrolls with the keys of a text."""

    BINDINGS = bindings("scroll")
