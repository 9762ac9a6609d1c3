"""Copying text: through tmux where it runs, since it drops the terminal's own sequence."""

import subprocess
from typing import TYPE_CHECKING

from tui.widgets.lists.strip_view import StripView

if TYPE_CHECKING:
    from tui.workbench import Workbench

_TMUX_SECONDS = 2.0


def copy(app: "Workbench", text: str, what: str) -> None:
    """Copies `text` and says so; `what` names it in the message.

    Control and invisible characters are copied as symbols: whoever pastes it into a shell or an
    editor pastes what the screen showed.
    """
    app.copy_to_clipboard(text)
    app.notify(f"Copied {what}")


def copy_focused(app: "Workbench") -> None:
    """Copies the row or the text that has the focus."""
    focused = app.screen.focused
    text, what = focused.text_to_copy() if isinstance(focused, StripView) else ("", "")
    if text:
        copy(app, text, what)
    else:
        app.notify("Nothing to copy here", severity="warning")


def copied_by_tmux(text: str) -> bool:
    """Whether tmux took the text, for its own buffers and for the terminal around it."""
    command = ["tmux", "load-buffer", "-w", "-"]
    try:
        subprocess.run(
            command, input=text.encode(), check=True, capture_output=True, timeout=_TMUX_SECONDS
        )
    except (OSError, subprocess.SubprocessError):
        return False
    return True
