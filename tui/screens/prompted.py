"""A screen with a line at its foot that asks for one text."""

from collections.abc import Callable

from mi_crow.errors import UserError
from tui.screens.base import MiCrowScreen
from tui.widgets.prompt_line import PromptLine


class PromptScreen(MiCrowScreen):
    """Its body ends with a PromptLine, which escape closes."""

    @property
    def prompt(self) -> PromptLine:
        return self.query_one(PromptLine)

    def close_popup(self) -> bool:
        return self.prompt.close()


def wrong_in(read: Callable[[str], object], text: str) -> str:
    """What `read` has against a text, for a line that refuses it; empty for nothing."""
    try:
        read(text)
    except UserError as error:
        return str(error)
    return ""
