"""Which actions have a key on a screen, or on what is open over one, and who does each."""

from collections.abc import Iterable

from textual.binding import BindingsMap
from textual.dom import DOMNode
from textual.screen import Screen

from tui.actions import BY_ID

# Of the app, what can be done over a popup without ending what is asked there; what a popup has
# itself is not among it.
OVER_POPUPS = frozenset(
    f"app.{name}"
    for name in (
        "palette",
        "theme",
        "themes",
        "settings",
        "picture",
        "undo",
        "redo",
        "quit",
    )
)


def bound_here(screen: Screen) -> dict[str, DOMNode]:
    """Those whose keys act now: of the focused widget, what it is in, the screen and, where no
    popup covers it, the app."""
    return _bound(screen._modal_binding_chain)


def bound_around(popup: Screen, focused: DOMNode | None) -> dict[str, DOMNode]:
    """Those of a widget, of what it is in and of the popup, also whose keys a field takes."""
    nodes = focused.ancestors_with_self if focused is not None else [popup]
    return _bound([(node, node._bindings) for node in nodes if popup in node.ancestors_with_self])


def bound_within(popup: Screen) -> dict[str, DOMNode]:
    """Those of the popup and of everything in it that can have the focus, its own first."""
    inside = [node for node in popup.query("*") if node.can_focus]
    return _bound([(node, node._bindings) for node in (popup, *inside)])


def ids_of(node: object, action: object) -> set[str]:
    """The ids of what a node does as the Textual action `action`."""
    if not isinstance(node, DOMNode):
        return set()
    several = node._bindings.key_to_bindings.values()
    return {one.id or "" for each in several for one in each if one.action == action}


def _bound(chain: Iterable[tuple[DOMNode, BindingsMap]]) -> dict[str, DOMNode]:
    found: dict[str, DOMNode] = {}
    for node, bindings in chain:
        for several in bindings.key_to_bindings.values():
            for binding in several:
                if binding.id in BY_ID:
                    found.setdefault(binding.id, node)
    return found
