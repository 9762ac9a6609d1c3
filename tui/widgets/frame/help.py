"""The help overlay: every key that works on the screen below, in groups."""

from collections.abc import Mapping, Sequence
from typing import Final

from textual.app import ComposeResult
from textual.containers import Horizontal, VerticalScroll
from textual.content import Content
from textual.widgets import Static

from tui.actions import BY_ID, Action, bindings, scope_actions, shown_keys
from tui.preferences.key_words import key
from tui.widgets.frame.popup import Popup

_KEYS: Final = 20  # cells
_TWO_COLUMNS: Final = 160  # cells of the terminal

_TITLES = {
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


def help_blocks(screen_name: str, keymap: Mapping[str, str]) -> list[Content]:
    """All keys of a screen, each scope under its title: its own first, then lists, then everywhere.
    `keymap` overrides keys."""
    blocks = []
    for scope in (screen_name, "list", *_ALSO.get(screen_name, ()), "app"):
        actions = [one for one in scope_actions(scope) if shown_keys(one, keymap)]
        if actions:
            title = _title(scope)
            lines = [Content.styled(title, "bold $primary")]
            lines += [_line(action, keymap) for action in actions]
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


def _line(action: Action, keymap: Mapping[str, str]) -> Content:
    keys = shown_keys(action, keymap)
    if action.scope == "new":  # a row of the menu stands for what the screen does
        action = BY_ID["runs." + action.id.partition(".")[2]]
    return Content.assemble((f"{keys:<{_KEYS}} ", "bold $foreground"), (action.help, "$muted"))


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
    """`?`: the keys of one screen."""

    HEADING = "Keys"
    BINDINGS = bindings("popup", "close")

    def __init__(self, screen_name: str, keymap: Mapping[str, str]) -> None:
        super().__init__(classes="help")
        self._blocks = help_blocks(screen_name, keymap)

    def compose_box(self) -> ComposeResult:
        columns = 2 if self.app.size.width >= _TWO_COLUMNS else 1
        self.set_class(columns > 1, "-two-columns")
        with HelpScroll(), Horizontal():
            for column in in_columns(self._blocks, columns):
                yield Static(column)


class HelpScroll(VerticalScroll):
    """Scrolls with the keys of a text."""

    BINDINGS = bindings("scroll")
