"""The one action table: it feeds bindings, footer, help, palette and key map.

An action's id is `<scope>.<name>`. A widget or screen gets its bindings from `bindings(scope)` and
has a method `action_<action>`; what is shown to people comes from here and nowhere else. A key
means the same in every scope: `key_meanings` says what.
"""

from collections.abc import Iterator, Mapping

from textual.binding import Binding, BindingType

from tui.action_tables.action import Action
from tui.action_tables.concepts import CHECKED, CONCEPTS, CONFLICTS, IMPORTS, PAST
from tui.action_tables.control import CONTROL
from tui.action_tables.inspect import (
    CAUSES,
    DIFFERENCES,
    GRID,
    INSPECT,
    KEPT_INSPECTIONS,
    SOURCES,
)
from tui.action_tables.steer import ARMS, KEPT, MEASUREMENTS, PRESETS, STEER, TURNS, VECTORS

NO_KEY = "no-key"  # what the binding of an action has that is reached by the palette only
SCREENS = ("runs", "features", "inspect", "steer", "concepts", "control")


APP = (
    *(
        Action(
            f"app.{name}", str(digit), f"go('{name}')", name.title(), f"Go to {name.title()}", False
        )
        for digit, name in enumerate(SCREENS, start=1)
    ),
    Action("app.help", "question_mark", "help", "keys", "Show all keys of this screen"),
    Action("app.palette", "colon,ctrl+p", "palette", "actions", "Search every action", False, True),
    Action(
        "app.escape",
        "escape",
        "escape",
        "close",
        "Stop, close, leave the field, or clear the filter",
        False,
    ),
    Action("app.back", "backspace,alt+left", "back", "back", "Back to where you were", False),
    Action(
        "app.forward", "shift+backspace,alt+right", "forward", "forward", "Forward again", False
    ),
    Action("app.zoom", "plus", "zoom", "zoom", "This pane alone, or all panes again", False),
    Action("app.jump", "apostrophe", "jump", "jump", "Jump to a pane or field by letter", False),
    Action("app.copy", "y", "copy", "copy", "Copy the row or the text with the focus", False),
    Action("app.theme", "", "next_theme", "theme", "Dark, light or high contrast"),
    Action("app.themes", "", "themes", "themes", "Choose a theme, with a preview"),
    Action("app.settings", "", "settings", "settings", "Edit the settings in your editor"),
    Action("app.messages", "exclamation_mark", "messages", "messages", "Messages", False),
    Action("app.picture", "f8", "picture", "picture", "Save a picture of the screen", False, True),
    Action("app.undo", "u,z", "undo", "undo", "Undo your latest change in this session", False),
    Action("app.redo", "ctrl+y", "redo", "redo", "Redo the change you undid last", False),
    Action("app.suspend", "ctrl+z", "suspend_process", "shell", "To the shell; fg returns", False),
    Action("app.quit", "q", "quit", "quit", "Quit; jobs keep running"),
)

LIST = (
    Action("list.down", "j,down", "cursor_down", "down", "Next row", False),
    Action("list.up", "k,up", "cursor_up", "up", "Previous row", False),
    Action("list.page_down", "ctrl+d,pagedown", "page_down", "page down", "Down a page", False),
    Action("list.page_up", "ctrl+u,pageup", "page_up", "page up", "Up a page", False),
    Action("list.first", "g,home", "first", "first", "First row", False),
    Action("list.last", "G,end", "last", "last", "Last row", False),
    Action("list.open", "enter", "select_row", "open", "Open the row"),
)

SORTING = (
    Action("sorting.order", "o", "next_order", "order", "Order by the next column"),
    Action("sorting.reverse", "O", "reverse_order", "reverse", "Reverse the order", False),
    Action("sorting.columns", "vertical_line", "columns", "columns", "Choose the columns", False),
)

SCROLL = (
    Action("scroll.down", "j,down", "scroll_down", "down", "Scroll down", False),
    Action("scroll.up", "k,up", "scroll_up", "up", "Scroll up", False),
    Action("scroll.page_down", "ctrl+d,pagedown", "page_down", "page down", "Down a page", False),
    Action("scroll.page_up", "ctrl+u,pageup", "page_up", "page up", "Up a page", False),
    Action("scroll.first", "g,home", "scroll_home", "top", "To the top", False),
    Action("scroll.last", "G,end", "scroll_end", "end", "To the end", False),
)

POPUP = (
    Action("popup.yes", "y", "yes", "yes", "Yes"),
    Action("popup.no", "n", "close", "no", "No"),
    Action("popup.close", "escape", "close", "close", "Close"),
)

COLUMNS = (
    Action("columns.toggle", "space", "switch", "show", "Show the column, or hide it"),
    Action("columns.later", "J,shift+down", "move(1)", "later", "Move the column to the right"),
    Action("columns.earlier", "K,shift+up", "move(-1)", "earlier", "Move the column to the left"),
    Action("columns.default", "D", "default", "default", "The columns of a new table"),
    Action("columns.keep", "enter", "select_row", "keep", "Keep these columns"),
)

COMPARING = (
    Action("comparing.left", "h,left", "column(-1)", "left", "The feature to the left"),
    Action("comparing.right", "l,right", "column(1)", "right", "The feature to the right"),
)

MAP = (
    Action("map.left", "h,left", "move(-1, 0)", "left", "To the left", False),
    Action("map.right", "l,right", "move(1, 0)", "right", "To the right", False),
    Action("map.down", "j,down", "move(0, 1)", "down", "Down", False),
    Action("map.up", "k,up", "move(0, -1)", "up", "Up", False),
    Action("map.pan_left", "H,shift+left", "pan(-1, 0)", "", "Half a screen left", False),
    Action("map.pan_right", "L,shift+right", "pan(1, 0)", "", "Half a screen right", False),
    Action("map.pan_down", "J,shift+down", "pan(0, 1)", "", "Half a screen down", False),
    Action("map.pan_up", "K,shift+up", "pan(0, -1)", "", "Half a screen up", False),
    Action("map.open", "enter", "open", "open", "Open the nearest feature"),
    Action("map.tag", "t", "tag", "tag", "Name the feature at the cursor"),
    Action("map.colour", "d", "colour", "colours", "By label, name, density, crowd or marks"),
    Action("map.mark", "space", "region", "region", "Begin a region; end it: mark, or unmark"),
    Action("map.more", "greater_than_sign", "zoom(1)", "closer", "Zoom in at the cursor"),
    Action("map.less", "less_than_sign", "zoom(-1)", "wider", "Zoom out"),
    Action("map.whole", "0", "whole", "whole", "The whole map"),
    Action("map.turn", "tab", "turn(1)", "next", "To the next of the nearest features"),
    Action("map.turn_back", "shift+tab", "turn(-1)", "", "Back to the one before", False),
)

FORM = (
    Action("form.submit", "ctrl+r", "submit", "submit", "Submit the form"),
    Action("form.copy", "y", "copy", "copy", "Copy the command that does the same"),
    Action("form.anew", "ctrl+n", "anew", "anew", "Forget what was typed; begin the form anew"),
    Action("form.close", "escape", "close", "cancel", "Leave the field; close the form"),
)

SECTION = (
    Action("section.toggle", "enter,space", "open_close", "open", "Open or close these fields"),
)

RUNS = (
    Action("runs.new", "n", "menu", "new", "New: a capture, a training, an index, an evaluation"),
    Action("runs.cancel", "c", "cancel_job", "cancel", "Cancel the selected job"),
    Action("runs.resume", "R", "resume_job", "resume", "Resume the selected job"),
    Action("runs.again", "E", "again", "edit", "Edit a job's values and start it again"),
    Action("runs.log", "l", "show_log", "log", "Show the log of the selected job"),
    Action("runs.remove", "x", "remove", "remove", "Remove the selected run, SAE or ended job"),
    Action("runs.rename", "r", "rename", "rename", "Give the selected run or SAE another name"),
    Action("runs.note", "e", "note", "note", "Write a note on the selected run or SAE"),
    Action("runs.mark", "space", "mark", "mark", "Mark the SAE, to compare it with others"),
    Action("runs.mark_range", "v", "mark_range", "to here", "Mark from the last mark", False),
    Action("runs.mark_all", "asterisk", "mark_all", "all", "Mark all SAEs, or none", False),
    Action(
        "runs.compare",
        "equals_sign",
        "compare",
        "compare",
        "Compare marked SAEs, or all on a layer",
    ),
    Action("runs.capture", "", "new('capture')", "capture", "Capture activations of a model"),
    Action("runs.train", "", "new('train')", "train", "Train an SAE on a run"),
    Action("runs.index", "", "new('index')", "index", "Build the feature index of an SAE"),
    Action("runs.explain", "", "new('explain')", "names", "Propose names for an SAE's features"),
    Action("runs.explanations", "", "new('explanations')", "explain", "Explain by a chat model"),
    Action("runs.scores", "", "new('steer-scores')", "scores", "Score how each feature steers"),
    Action("runs.evaluate", "", "new('evaluate')", "evaluate", "Evaluate an SAE"),
    Action("runs.import", "", "new('import')", "import", "Import an SAE: hub, folder or file"),
    Action("runs.library", "", "library", "library", "Choose among published SAEs, and import"),
    Action("runs.export", "w", "new('export')", "export", "Export an SAE for other tools"),
    Action("runs.demo", "", "run_demo", "demo", "Run the demo: two to four minutes on two cores"),
)

# The menu that `n` opens on Runs. A row `new.X` stands for the action `runs.X`.
NEW = (
    Action("new.capture", "c", "choose('capture')", "capture", "Capture", False),
    Action("new.train", "t", "choose('train')", "train", "Train", False),
    Action("new.index", "i", "choose('index')", "index", "Index", False),
    Action("new.explain", "n", "choose('explain')", "names", "Names", False),
    Action("new.explanations", "p", "choose('explanations')", "explanations", "Explain", False),
    Action("new.scores", "s", "choose('scores')", "scores", "Scores", False),
    Action("new.evaluate", "e", "choose('evaluate')", "evaluate", "Evaluate", False),
    Action("new.library", "l", "choose('library')", "library", "Library", False),
    Action("new.import", "m", "choose('import')", "import", "Import", False),
    Action("new.export", "x", "choose('export')", "export", "Export", False),
    Action("new.demo", "d", "choose('demo')", "demo", "Demo", False),
)

TOKENS = (
    Action("tokens.left", "h,left", "token_left", "left", "Previous token", False),
    Action("tokens.right", "l,right", "token_right", "right", "Next token", False),
    Action("tokens.down", "j,down", "token_down", "down", "Line below", False),
    Action("tokens.up", "k,up", "token_up", "up", "Line above", False),
    Action("tokens.page_down", "ctrl+d,pagedown", "page_down", "page down", "Down a page", False),
    Action("tokens.page_up", "ctrl+u,pageup", "page_up", "page up", "Up a page", False),
    Action("tokens.first", "g,home", "first", "first", "First token", False),
    Action("tokens.last", "G,end", "last", "last", "Last token", False),
    Action("tokens.open", "enter", "select_row", "open", "Open the feature shown on the text"),
)

FEATURES = (
    Action("features.filter", "slash", "filter", "filter", "Filter: words, density<1%, label:, …"),
    Action(
        "features.tag",
        "t",
        "tag",
        "tag",
        "Name the feature; + before a name keeps the others, none removes it",
    ),
    Action("features.steer", "s", "steer", "steer", "Send the feature to Steer"),
    Action("features.inspect", "i", "inspect", "inspect", "Inspect the feature on a text"),
    Action(
        "features.order", "o", "next_sort", "order", "Order by the next column, or by relevance"
    ),
    Action("features.reverse", "O", "reverse", "reverse", "Reverse the order", False),
    Action("features.show", "f", "next_filter", "show", "Show firing, named, unnamed or all"),
    Action("features.number", "number_sign", "jump", "go to", "Go to a feature by its number"),
    Action("features.band", "b", "next_band", "band", "Examples from the next activation band"),
    Action("features.texts", "d", "next_look", "texts", "Windows, lines, aligned, documents"),
    Action("features.explain", "", "explain", "names", "Propose names for all features", False),
    Action("features.unnamed", "n", "unnamed(1)", "unnamed", "Next unnamed feature", False),
    Action("features.unnamed_back", "N", "unnamed(-1)", "", "Previous unnamed feature", False),
    Action("features.sort_by", "", "sort_by", "sort by", "Sort by any column", False),
    Action("features.columns", "vertical_line", "columns", "columns", "Choose and order columns"),
    Action("features.map", "m", "map", "map", "The map of all features"),
    Action("features.mark", "space", "mark", "mark", "Mark the feature, or unmark it"),
    Action("features.mark_range", "v", "mark_range", "to here", "Mark from the last mark"),
    Action("features.mark_all", "asterisk", "mark_all", "all", "Mark all shown, or none"),
    Action("features.unmark", "", "unmark", "unmark", "Unmark every feature", False),
    Action("features.tags", "T", "tags", "tags", "Tag the marked features; -tag untags", False),
    Action("features.note", "e", "note", "note", "Write a note on the marked features", False),
    Action("features.remove", "x", "remove", "remove", "Remove names of the marked", False),
    Action("features.export", "w", "export", "export", "Report on the marked: .html or .json"),
    Action("features.compare", "equals_sign", "compare", "compare", "Compare 2 to 4 marked"),
    Action("features.next", "right_square_bracket", "step(1)", "next", "Next feature", False),
    Action("features.previous", "left_square_bracket", "step(-1)", "back", "Previous", False),
    Action("features.copy", "y", "copy", "copy", "Copy the feature or the selected example", False),
)

ACTIONS: tuple[Action, ...] = (
    *APP,
    *LIST,
    *SORTING,
    *SCROLL,
    *POPUP,
    *COLUMNS,
    *COMPARING,
    *MAP,
    *FORM,
    *SECTION,
    *TOKENS,
    *RUNS,
    *NEW,
    *FEATURES,
    *INSPECT,
    *CAUSES,
    *GRID,
    *DIFFERENCES,
    *KEPT_INSPECTIONS,
    *SOURCES,
    *STEER,
    *TURNS,
    *KEPT,
    *PRESETS,
    *MEASUREMENTS,
    *ARMS,
    *VECTORS,
    *CONCEPTS,
    *CONFLICTS,
    *IMPORTS,
    *CHECKED,
    *PAST,
    *CONTROL,
)

BY_ID = {action.id: action for action in ACTIONS}
# What moves within a list or a text, and nothing else.
MOVES = frozenset(
    f"{of}.{where}"
    for of in ("list", "scroll")
    for where in ("down", "up", "page_down", "page_up", "first", "last")
)


def scope_actions(scope: str) -> Iterator[Action]:
    """The actions of one scope, in the order of the table."""
    return (action for action in ACTIONS if action.scope == scope)


def key_names(action: Action) -> tuple[str, ...]:
    """The keys of an action by default, as Textual calls them."""
    return tuple(key.strip() for key in action.keys.split(",") if key.strip())


def bindings(scope: str, *names: str) -> list[BindingType]:
    """The Textual bindings of a scope, or of the actions called `names` in it."""
    return [
        Binding(
            action.keys or NO_KEY,
            action.action,
            action.label,
            show=action.footer and bool(action.keys),
            priority=action.priority,
            tooltip=action.help,
            id=action.id,
        )
        for action in scope_actions(scope)
        if not names or action.id.partition(".")[2] in names
    ]


_KEY_LABELS = {
    "question_mark": "?",
    "colon": ":",
    "slash": "/",
    "escape": "esc",
    "left_square_bracket": "[",
    "right_square_bracket": "]",
    "pagedown": "pgdn",
    "pageup": "pgup",
    "plus": "+",
    "apostrophe": "'",
    "exclamation_mark": "!",
    "vertical_line": "|",
    "backspace": "bksp",
    "shift+backspace": "shift+bksp",
    "minus": "-",
    "space": "space",
    "full_stop": ".",
    "comma": ",",
    "equals_sign": "=",
    "number_sign": "#",
    "percent_sign": "%",
    "asterisk": "*",
    "less_than_sign": "<",
    "greater_than_sign": ">",
    "up": "↑",
    "down": "↓",
    "left": "←",
    "right": "→",
}


def key_label(key: str) -> str:
    """A key as people read it: `question_mark` is `?`, `ctrl+r` is `ctrl+r`."""
    if key.startswith("upper_"):
        return key.removeprefix("upper_").upper()
    return _KEY_LABELS.get(key, key)


def shown_keys(action: Action, keymap: Mapping[str, str]) -> str:
    """The keys of an action as people read them; `keymap` overrides those of the table."""
    return keys_label(keymap.get(action.id, action.keys))


def keys_label(keys: str) -> str:
    """Several keys as people read them: `j ↓`."""
    return " ".join(key_label(key) for key in map(str.strip, keys.split(",")) if key != NO_KEY)
