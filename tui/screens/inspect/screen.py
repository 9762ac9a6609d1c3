"""Screen 3, Inspect."""

from textual.app import ComposeResult
from textual.widgets import Static

from tui.actions import bindings
from tui.screens.base import MiCrowScreen


class InspectScreen(MiCrowScreen):
    """The Inspect screen."""

    NAME = "inspect"
    CSS_PATH = "inspect.tcss"
    BINDINGS = bindings("inspect")

    def compose_body(self) -> ComposeResult:
        yield Static("Inspect", classes="title", markup=False)
