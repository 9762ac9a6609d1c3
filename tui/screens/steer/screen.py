"""Screen 4, Steer."""

from textual.app import ComposeResult
from textual.widgets import Static

from tui.actions import bindings
from tui.screens.base import MiCrowScreen


class SteerScreen(MiCrowScreen):
    """The Steer screen."""

    NAME = "steer"
    CSS_PATH = "steer.tcss"
    BINDINGS = bindings("steer")

    def compose_body(self) -> ComposeResult:
        yield Static("Steer", classes="title", markup=False)
