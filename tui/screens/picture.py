"""A picture of the app in a file: an SVG with its colours, or plain text."""

import os
import time
from functools import partial
from pathlib import Path
from typing import cast

from textual import on
from textual.app import App, ComposeResult
from textual.widgets import Static

from mi_crow.errors import UserError
from mi_crow.store.atomic import write_bytes
from tui.actions import bindings
from tui.screens.concepts.typed_path import typed_path
from tui.widgets.field import Field
from tui.widgets.frame.popup import Popup
from tui.widgets.trouble import Trouble


class PicturePopup(Popup[str]):
    """Asks for a file, writes the picture that was taken, and dismisses with where it went."""

    HEADING = "Save a picture"
    BINDINGS = bindings("popup", "close")

    def __init__(self, svg: str, text: str, name: str) -> None:
        super().__init__(classes="asking")
        self._forms = {".svg": svg, ".txt": text}
        self._name = name

    def compose_box(self) -> ComposeResult:
        yield Field(self._name, placeholder="a .svg or .txt file", compact=True)
        yield Trouble()
        yield Static("enter writes · esc cancels · .txt writes it without colours", classes="hint")

    def on_mount(self) -> None:
        field = self.query_one(Field)
        field.focus()
        field.action_select_all()

    @on(Field.Submitted)
    def _write(self, event: Field.Submitted) -> None:
        event.stop()
        work = partial(_written, event.value.strip(), self._forms)
        trouble = self.query_one(Trouble)
        self.in_thread(work, self._done, group="write", failed=trouble.show)

    def _done(self, path: Path) -> None:
        self.dismiss(cast("str", str(path)))


def _written(name: str, forms: dict[str, str]) -> Path:
    """Writes the form that the ending of `name` asks for. Raises UserError, OSError."""
    path = typed_path(name).absolute() if name else Path()
    if path.suffix.lower() not in forms:
        raise UserError("give a file that ends in .svg or .txt")
    if not path.parent.is_dir():
        raise UserError(f"the folder {str(path.parent)!r} does not exist")
    if os.path.lexists(path):
        raise UserError(f"{str(path)!r} already exists", hint="give another name")
    write_bytes(path, forms[path.suffix.lower()].encode())
    return path


def taken(app: App[None]) -> tuple[str, str]:
    """What is on the screen now, as SVG and as plain text."""
    strips = app.screen._compositor.render_strips()
    lines = ("".join(segment.text for segment in strip).rstrip() for strip in strips)
    return app.export_screenshot(simplify=True), "\n".join(lines) + "\n"


def picture_name(screen: str) -> str:
    """A file name that says which screen and when."""
    return f"mi-crow-{screen}-{time.strftime('%Y%m%d-%H%M%S')}.svg"
