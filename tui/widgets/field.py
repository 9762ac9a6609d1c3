"""Text fields that behave: no blinking cursor, and every key that is not ours is typing."""

from textual.widgets import Input, TextArea


class Field(Input):
    """A one-line field. Nothing it shows is markup, and its cursor never blinks."""

    def __init__(self, value: str = "", placeholder: str = "", **settings) -> None:
        super().__init__(value, placeholder, **settings)
        self.cursor_blink = False


class Area(TextArea):
    """A field of several lines; tab leaves it."""

    def __init__(self, text: str = "", **settings) -> None:
        super().__init__(text, tab_behavior="focus", soft_wrap=True, **settings)
        self.cursor_blink = False
