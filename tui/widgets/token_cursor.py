"""A cursor on the tokens of a text, moved with the keys of the action table."""

from textual.message import Message

from tui.actions import bindings
from tui.widgets.lists.strip_view import StripView


class TokenCursor(StripView):
    """Left and right by token, up and down by line. Subclasses say how far that is (`move_by`)."""

    BINDINGS = bindings("tokens")

    class Opened(Message):
        """Enter."""

    def move_by(self, *, tokens: int = 0, lines: int = 0) -> None:
        """Moves the cursor, at most to the ends."""
        raise NotImplementedError

    @property
    def page(self) -> int:
        """Lines of a page."""
        raise NotImplementedError

    @property
    def token_count(self) -> int:
        raise NotImplementedError

    def action_token_left(self) -> None:
        self.move_by(tokens=-1)

    def action_token_right(self) -> None:
        self.move_by(tokens=1)

    def action_token_up(self) -> None:
        self.move_by(lines=-1)

    def action_token_down(self) -> None:
        self.move_by(lines=1)

    def action_page_down(self) -> None:
        self.move_by(lines=self.page)

    def action_page_up(self) -> None:
        self.move_by(lines=-self.page)

    def action_first(self) -> None:
        self.move_by(tokens=-self.token_count)

    def action_last(self) -> None:
        self.move_by(tokens=self.token_count)

    def action_select_row(self) -> None:
        if self.token_count:
            self.post_message(self.Opened())
