"""Which actions the open app can be asked to do now."""

from typing import TYPE_CHECKING, Any

from textual.actions import parse
from textual.dom import DOMNode
from textual.screen import Screen

from tui.actions import BY_ID, NO_KEY, SCREENS, Action
from tui.screens.base import MiCrowScreen
from tui.widgets.frame.bound import bound_here
from tui.widgets.frame.palette import node_for, offered, possible
from tui.widgets.frame.popup import Popup

if TYPE_CHECKING:
    from tui.app import MiCrowApp

PICTURE = "app.picture"


def open_popup(app: "MiCrowApp") -> str:
    """The heading of what covers the screen; empty while nothing does."""
    screen = app.screen
    if isinstance(screen, MiCrowScreen):
        return ""
    return (screen.heading() if isinstance(screen, Popup) else "") or "a question"


def bound_actions(screen: Screen) -> dict[str, DOMNode]:
    """The actions whose keys act now, each with who does it: the focused widget, what it is
    in, the screen, or, where no popup covers it, the app; which takes a picture of popups too."""
    found = {PICTURE: screen.app, **bound_here(screen)}
    return {name: node for name, node in found.items() if _acts(BY_ID[name], node)}


def offer(app: "MiCrowApp") -> dict[str, Any]:
    """Every action, with whether it is possible now; those of other screens go there first."""
    screen, popup = app.screen, open_popup(app)
    bound = bound_actions(screen)
    known = {} if popup else {action.id: action for action in offered(screen)}
    known |= {name: BY_ID[name] for name in bound}
    return {
        "screen": app.current_mode,
        "popup": popup,
        "actions": [
            {
                "action": name,
                "keys": app.keymap.get(name, action.keys).replace(NO_KEY, ""),
                "help": action.help,
                "possible": name in bound or _is_possible(action, screen),
            }
            for name, action in known.items()
        ],
    }


def _acts(action: Action, node: DOMNode) -> bool:
    _, name, parameters = parse(action.action)
    return node.check_action(name, parameters) is True


def _is_possible(action: Action, screen: Screen) -> bool | None:
    """None where it is not known: on another screen, whose selection decides."""
    if action.scope == "app":
        return True
    if action.scope in SCREENS and action.scope != getattr(screen, "NAME", ""):
        return None
    node = node_for(action, screen, screen.focused) or screen
    return possible(action, node)
