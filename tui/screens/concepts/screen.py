"""Screen 5, Concepts."""

from textual.app import ComposeResult
from textual.widgets import Static

from tui.actions import bindings
from tui.screens.base import MiCrowScreen


class ConceptsScreen(MiCrowScreen):
    """The Concepts screen."""

    NAME = "concepts"
    CSS_PATH = "concepts.tcss"
    BINDINGS = bindings("concepts")

    def compose_body(self) -> ComposeResult:
        yield Static("Concepts", classes="title", markup=False)
