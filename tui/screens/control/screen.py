"""Screen 6, Control: the layer tree, hooks and live statistics."""

from textual.app import ComposeResult
from textual.widgets import Static

from tui.actions import bindings
from tui.screens.base import MiCrowScreen


class ControlScreen(MiCrowScreen):
    """What the workspace holds and what control on it."""

    NAME = "control"
    CSS_PATH = "control.tcss"
    BINDINGS = bindings("control")

    def compose_body(self) -> ComposeResult:
        yield Static("Control", classes="title", markup=False)
