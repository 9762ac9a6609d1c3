"""Copying text: through tmux where it runs, since it drops the terminal's own sequence."""

import os
import subprocess
from functools import partial

from textual.app import App

from mi_crow.visible import visible_lines

_TMUX_SECONDS = 2.0


def copy(app: App, text: str, what: str) -> None:
    """Copies `text` and says so; `what` names it in the message.

    Control and invisible characters are copied as symbols: who pastes it into a shell or an editor
    pastes what the screen showed.
    """
    text = visible_lines(text)
    if os.environ.get("TMUX"):
        app.run_worker(
            partial(_through_tmux, app, text, what), thread=True, group="copy", exit_on_error=False
        )
    else:
        app.copy_to_clipboard(text)
        app.notify(f"Copied {what}", markup=False)


def _through_tmux(app: App, text: str, what: str) -> None:
    command = ["tmux", "load-buffer", "-w", "-"]
    try:
        subprocess.run(
            command, input=text.encode(), check=True, capture_output=True, timeout=_TMUX_SECONDS
        )
    except (OSError, subprocess.SubprocessError):
        app.call_from_thread(app.copy_to_clipboard, text)
    app.call_from_thread(app.notify, f"Copied {what}", markup=False)
