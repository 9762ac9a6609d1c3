"""Screen 2, Features."""

from textual.app import ComposeResult
from textual.widgets import Static

from tui.actions import bindings
from tui.screens.base import MiCrowScreen


class FeaturesScreen(MiCrowScreen):
    """The Features screen."""

    NAME = "features"
    CSS_PATH = "features.tcss"
    BINDINGS = bindings("features")

    def compose_body(self) -> ComposeResult:
        yield Static("Features", classes="title", markup=False)
