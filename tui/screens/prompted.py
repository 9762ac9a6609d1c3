"""A screen with a line at its foot that asks for one text."""

from tui.screens.base import MiCrowScreen
from tui.widgets.prompt_line import PromptLine


class PromptScreen(MiCrowScreen):
    """Its body ends with a PromptLine, which escape closes."""

    @property
    def prompt(self) -> PromptLine:
        return self.query_one(PromptLine)

    def close_popup(self) -> bool:
        return self.prompt.close()
