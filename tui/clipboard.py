"""Copying text: through tmux where it runs, since it drops the terminal's own sequence."""

import os
import subprocess
from functools import partial
from typing import TYPE_CHECKING

from mi_crow.visible import visible_lines

if TYPE_CHECKING:
    from tui.workbench import Workbench

_TMUX_SECONDS = 2.0


def copy(app: "Workbench", text: str, what: str) -> None:
    """Copies `text` and says so; `what` names it in the message.

    Control and invisible characters are copied as symbols: whoever pastes it into a shell or an
    editor pastes what the screen showed.
    """
    text = visible_lines(text)

    def done(through_tmux: bool) -> None:
        if not through_tmux:
            app.copy_to_clipboard(text)
        app.notify(f"Copied {what}")

    if os.environ.get("TMUX"):
        app.in_thread(partial(_copied_by_tmux, text), done)
    else:
        done(False)


def _copied_by_tmux(text: str) -> bool:
    command = ["tmux", "load-buffer", "-w", "-"]
    try:
        subprocess.run(
            command, input=text.encode(), check=True, capture_output=True, timeout=_TMUX_SECONDS
        )
    except (OSError, subprocess.SubprocessError):
        return False
    return True
