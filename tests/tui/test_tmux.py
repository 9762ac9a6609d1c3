"""The real program in a real terminal: tmux, a pseudo-terminal, keys in, the pane out."""

import os
import re
import shutil
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from mi_crow.store.workspace import Workspace

pytestmark = [
    pytest.mark.slow,
    pytest.mark.tmux,
    pytest.mark.skipif(shutil.which("tmux") is None, reason="tmux is not installed"),
]

WAIT_S = 60.0


class Terminal:
    """One tmux server of its own with one pane of 80 x 24."""

    def __init__(self, folder: Path) -> None:
        self._socket = f"mi-crow-{uuid.uuid4().hex[:8]}"
        self._folder = folder

    def tmux(self, *arguments: str) -> str:
        environment = {key: value for key, value in os.environ.items() if key != "TMUX"}
        done = subprocess.run(
            ["tmux", "-L", self._socket, "-f", "/dev/null", *arguments],
            capture_output=True,
            text=True,
            check=True,
            env=environment | {"TMUX_TMPDIR": str(self._folder), "LC_ALL": "C.UTF-8"},
        )
        return done.stdout

    def start(self, *command: str) -> None:
        self.tmux("new-session", "-d", "-x", "80", "-y", "24", "-s", "app", *command)
        self.tmux("set-option", "-g", "remain-on-exit", "on")
        self.tmux("set-option", "-sg", "escape-time", "10")

    def send(self, *keys: str) -> None:
        self.tmux("send-keys", "-t", "app", *keys)

    def text(self) -> str:
        return self.tmux("capture-pane", "-p", "-t", "app")

    def wait_for(self, *words: str, gone: str = "\0") -> str:
        """The pane as soon as it shows all `words`, and `gone` no more."""
        deadline = time.monotonic() + WAIT_S
        while time.monotonic() < deadline:
            text = self.text()
            if all(word in text for word in words) and gone not in text:
                return text
            time.sleep(0.05)  # polling another process: there is nothing to wait on
        raise AssertionError(f"{words} did not appear in {WAIT_S:.0f} s:\n{self.text()}")

    def is_dead(self) -> bool:
        return self.tmux("display-message", "-p", "-t", "app", "#{pane_dead}").strip() == "1"


@pytest.fixture
def terminal(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Terminal]:
    one = Terminal(tmp_path_factory.mktemp("tmux"))
    yield one
    subprocess.run(
        ["tmux", "-L", one._socket, "kill-server"],
        env=os.environ | {"TMUX_TMPDIR": str(one._folder)},
        capture_output=True,
        check=False,
    )


def test_the_real_program_in_tmux(terminal: Terminal, app_workspace: Workspace):
    program = "import sys; from mi_crow.cli import main; sys.exit(main())"
    terminal.start(sys.executable, "-c", program, "--workspace", str(app_workspace.root))

    text = terminal.wait_for("Activation runs", "smol-l15", "train 41%", "n new")
    assert len(text.splitlines()) <= 24
    assert max(map(len, text.splitlines())) <= 80

    terminal.send("j")
    terminal.wait_for("took 15s", "bf16 in 2 parts")
    terminal.send("6")
    terminal.wait_for("Layers", "not loaded yet; l loads")
    terminal.send("?")
    terminal.wait_for("Keys", "Measure the layers on the text")
    terminal.send("Escape")
    terminal.wait_for("l loads", gone="Keys")
    terminal.send("1")
    terminal.wait_for("Activation runs")
    terminal.send("n")
    terminal.wait_for("New", "Train an SAE on a run")
    terminal.send("c")
    terminal.wait_for("Capture activations", "hub id, folder")  # the first field has the focus
    terminal.send("Tab")
    terminal.wait_for("a comma between several")
    terminal.send("-l", "resid_post.3")
    terminal.wait_for("resid_post.3")
    terminal.send("Tab", "Tab")
    terminal.wait_for("how many at most")
    terminal.send("-l", "7q")  # typed, neither a screen nor the end
    terminal.send("C-r")
    terminal.wait_for("documents must be a whole number, not '7q'")
    terminal.send("Escape")  # first leaves the field that was edited
    terminal.wait_for("Capture activations", gone="how many at most")
    terminal.send("Escape")
    terminal.wait_for("n new", "q quit", gone="whole number")
    terminal.send("n")
    terminal.send("c")
    terminal.wait_for("As it was left; ctrl+n begins anew", "7q", "resid_post.3")
    terminal.send("C-n")
    terminal.wait_for("Capture activations", "all of them", gone="7q")
    terminal.send("Escape")
    terminal.wait_for("n new", "q quit")
    terminal.send("q")

    deadline = time.monotonic() + WAIT_S
    while not terminal.is_dead() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert terminal.is_dead()


def test_keys_at_the_first_frame_open_the_form(terminal: Terminal, app_workspace: Workspace):
    program = "import sys; from mi_crow.cli import main; sys.exit(main())"
    terminal.start(sys.executable, "-c", program, "--workspace", str(app_workspace.root))
    terminal.wait_for("Runs")
    terminal.send("n", "c", "a", "b")
    terminal.wait_for("Capture activations", "ab")


@pytest.mark.parametrize(
    ("settings", "cursor"),
    [
        ("TERM=xterm", r"\[30m\x1b\[107m▌"),  # black on bright white
        ("TERM=screen", r"\[30m\x1b\[107m▌"),
        ("TERM=xterm NO_COLOR=1", r"\[0?;?7m▌"),  # reversed
    ],
)
def test_a_terminal_with_sixteen_colours_or_none(
    terminal: Terminal, app_workspace: Workspace, settings: str, cursor: str
):
    program = "import sys; from mi_crow.cli import main; sys.exit(main())"
    command = ["env", "-u", "COLORTERM", *settings.split(), sys.executable, "-c", program]
    terminal.start(*command, "--workspace", str(app_workspace.root))
    terminal.wait_for("Activation runs", "smol-l15", "n new")
    looks = terminal.tmux("capture-pane", "-p", "-e", "-t", "app")
    assert not re.search(r"[34]8[;:][25]", looks)  # the colours of larger palettes
    assert re.search(cursor, looks), looks.splitlines()
    terminal.send("q")
