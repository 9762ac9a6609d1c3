"""What `n` opens on Runs: everything that can be started, one letter each."""

from collections.abc import Callable, Mapping

from tui.actions import BY_ID, bindings
from tui.widgets.frame.menu import MenuPopup


class NewMenu(MenuPopup):
    """Dismisses with the name of what was chosen: X for the action `runs.X`."""

    HEADING = "New"
    SCOPE = "new"
    BINDINGS = bindings("new") + bindings("popup", "close")

    def __init__(self, why_not: Callable[[str], str], keymap: Mapping[str, str]) -> None:
        super().__init__(why_not, keymap, lambda name: BY_ID[f"runs.{name}"].help)
