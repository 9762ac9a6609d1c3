"""What a screen writes to a file that somebody names, and the question before one is replaced."""

import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from mi_crow.errors import UserError
from tui.text import printable

if TYPE_CHECKING:
    from tui.screens.prompted import PromptScreen as _Screen
else:
    _Screen = object


class WritesFiles(_Screen):
    """Mixed into screens with a prompt line, on which the purpose `export` names a file."""

    def ask_where(self, label: str, proposed: str, *endings: str, hint: str = "") -> None:
        """Asks for a file to write, with one of these endings; the line stays open while the text
        names no place for one."""
        from tui.screens.concepts.typed_path import either, wrong_target

        hint = hint or f"{either(endings)} · enter writes"
        refuse = partial(wrong_target, endings)
        self.prompt.ask("export", label, proposed, hint=hint, refuse=refuse, select=True)

    def path_in(self, text: str) -> Path | None:
        """The path that `text` names; None where it cannot be one, which is said, or is empty."""
        from tui.screens.concepts.typed_path import typed_path

        try:
            return typed_path(text) if text else None
        except UserError as error:
            self.tell(error)
            return None

    def ask_to_replace(self, path: Path, then: Callable[[bool], None]) -> None:
        """Calls `then(False)`; where there is a file already, `then(True)` once somebody agreed."""
        if not os.path.lexists(path):
            then(False)
            return
        from tui.widgets.frame.popup import Confirm

        popup = Confirm(f"Replace {path.name}?", "The file already exists.")
        self.app.push_screen(popup, lambda yes: then(True) if yes else None)

    def write_file(self, text: str, write: Callable[[Path], str]) -> None:
        """Calls `write` in a thread with the path that `text` names, and shows its sentence."""
        path = self.path_in(text)
        if path is not None:
            work = partial(write, path)
            self.ask_to_replace(path, lambda _: self.in_thread(work, self._say_written))

    def _say_written(self, sentence: str) -> None:
        self.notify(printable(sentence))
