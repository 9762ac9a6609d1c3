"""What `n` opens on Runs: everything that can be started, one letter each."""

from tui.actions import bindings
from tui.widgets.frame.menu import MenuPopup


class NewMenu(MenuPopup):
    """Dismisses with the name of what was chosen: X for the action `runs.X`."""

    HEADING = "New"
    SCOPE = "new"
    DOES = "runs"
    BINDINGS = bindings("new") + bindings("popup", "close")
