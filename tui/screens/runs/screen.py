"""Screen 1, Runs: activation runs, SAEs and jobs."""

from textual.app import ComposeResult
from textual.widgets import Static

from tui.actions import bindings
from tui.screens.base import MiCrowScreen


class RunsScreen(MiCrowScreen):
    """What the workspace holds and what runs on it."""

    NAME = "runs"
    CSS_PATH = "runs.tcss"
    BINDINGS = bindings("runs")

    def compose_body(self) -> ComposeResult:
        yield Static("Runs", classes="title", markup=False)
