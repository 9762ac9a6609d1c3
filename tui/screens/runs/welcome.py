"""What an empty workspace shows: three ways to begin, and what each of them takes."""

import shutil
from dataclasses import dataclass
from pathlib import Path

from textual.app import ComposeResult, RenderResult
from textual.containers import Vertical
from textual.content import Content
from textual.message import Message
from textual.widget import Widget
from textual.widgets import Static

from mi_crow.jobs.demo import DISK, DURATION
from mi_crow.store.free_space import nearest_existing
from tui.actions import bindings
from tui.preferences.key_words import key
from tui.text import printable, size
from tui.threads import ThreadWork

_WAYS: dict[str, tuple[str, str, str]] = {  # a title, what it does, what it takes
    "demo": (
        "Run the demo",
        "A small language model, its activations, an SAE and named features",
        f"{DURATION}; {DISK} on the disk; no network",
    ),
    "library": (
        "Choose a published SAE",
        "By model, layer and L0 from 13,000 on the hub; {} imports your own",
        "usually 0.1 to 2 GB to download, and as much on the disk",
    ),
    "capture": (
        "Capture activations of a model",
        "Of any causal language model, on your texts, to train an SAE on them",
        "minutes to hours; the form says how long, and how much disk",
    ),
}


class Way(Widget, can_focus=True):
    """One way to begin: enter or a click chooses it."""

    BINDINGS = bindings("list", "up", "down", "open")

    def __init__(self, name: str) -> None:
        super().__init__(id=f"way-{name}")
        self._way = name

    def render(self) -> RenderResult:
        title, does, takes = _WAYS[self._way]
        letter = key(f"new.{self._way}")
        marker = "▌" if self.has_focus else " "
        width = max(self.size.width, 1)
        bar = (marker, "$primary")
        lines = (
            Content.assemble(bar, (f" {letter}  ", "bold $primary"), (title, "bold $foreground")),
            Content.assemble(bar, f"    {does.format(key('new.import'))}"),
            Content.assemble(bar, "    ", (takes, "$muted")),
        )
        return Content("\n").join(line.truncate(width, ellipsis=True) for line in lines)

    def action_select_row(self) -> None:
        self.post_message(Welcome.Chosen(self._way))

    def on_click(self) -> None:
        self.action_select_row()

    def action_cursor_up(self) -> None:
        self._go(-1)

    def action_cursor_down(self) -> None:
        self._go(1)

    def _go(self, step: int) -> None:
        """Gives the focus to another way; stops at the ends."""
        ways = list(self.screen.query(Way))
        at = min(max(ways.index(self) + step, 0), len(ways) - 1)
        ways[at].focus()


class Welcome(ThreadWork, Vertical):
    """Shown while the workspace is empty."""

    BINDINGS = bindings("new", *_WAYS, "import")

    @dataclass
    class Chosen(Message):
        """One way was chosen: X for the action `runs.X`."""

        name: str

    def __init__(self, root: Path) -> None:
        super().__init__(id="welcome", classes="stays")
        self._root = root

    def compose(self) -> ComposeResult:
        yield Static("Looking at the workspace…", id="welcome-looking")
        with Vertical(id="welcome-box"):
            yield Static("This workspace is empty. How to begin?", id="welcome-title")
            for name in _WAYS:
                yield Way(name)
            yield Static(self._place(), id="welcome-place", markup=False)

    def on_mount(self) -> None:
        self.in_thread(self._free, self._show_free, failed=lambda _: None)

    def _free(self) -> int:
        return shutil.disk_usage(nearest_existing(self._root)).free

    def _show_free(self, free: int) -> None:
        self.query_one("#welcome-place", Static).update(f"{size(free)} free in {self._place()}")

    def _place(self) -> str:
        return printable(str(self._root))

    def show_ways(self) -> None:
        """The workspace has been looked at, and is empty."""
        if not self.has_class("-looked"):
            self.add_class("-looked")
            self.call_after_refresh(self.query(Way).first().focus)

    def action_choose(self, name: str) -> None:
        self.post_message(self.Chosen(name))
