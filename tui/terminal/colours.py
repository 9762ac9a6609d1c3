"""How many colours the terminal has."""

import os

from rich.console import Console
from textual import constants


def has_few_colours() -> bool:
    """Whether the terminal has at most sixteen colours, which its user chose: themes are drawn in
    those, whatever their own colours are."""
    environ = {name: value for name, value in os.environ.items() if name != "NO_COLOR"}
    console = Console(
        color_system=constants.COLOR_SYSTEM,  # type: ignore[arg-type]
        force_terminal=True,
        legacy_windows=False,
        _environ=environ,
    )
    return console.color_system in (None, "standard", "windows")
