"""However the app ends, the terminal is given back, and the exit code says how it ended."""

import os
import shlex
import shutil
import signal
import sys
import time

import pytest

from mi_crow.store.workspace import Workspace
from tests.helpers.pseudo_terminal import PROGRAM as PROGRAM_AS_USED
from tests.helpers.pseudo_terminal import PseudoTerminal, foreign_sequences
from tui.state import SavedState, StateFile

pytestmark = pytest.mark.slow

# The app with a model session that is a stand-in, started at once.
PROGRAM = """
import sys
from pathlib import Path
from mi_crow.session.client import SessionClient
from mi_crow.store.workspace import Workspace
from tests.helpers.session_fixture import puppet_command
from tui.app import MiCrowApp
from tui.ending import run_to_its_end

workspace = Workspace.open(sys.argv[1])
app = MiCrowApp(workspace)
session = SessionClient(workspace, command=puppet_command())
session.start()
app.context._session = session
Path(sys.argv[2]).write_text(str(session._process._popen.pid))
sys.exit(run_to_its_end(app))
"""

# The command line, on an app that breaks when it gets the first look at the workspace.
BROKEN = """
import sys
from tui.app import MiCrowApp
from mi_crow.cli import main

def broken(app):
    secret = "a text of the user"
    raise TypeError("\\x1b]0;title\\x07 cannot be added")

MiCrowApp.look_now = broken
sys.exit(main(sys.argv[1:]))
"""

LEFT = (
    b"\x1b[?1049l",  # the alternate screen
    b"\x1b[?25h",  # the cursor
    b"\x1b[?1000l",  # the mouse
    b"\x1b[?1003l",
    b"\x1b[?1006l",
    b"\x1b[?2004l",  # bracketed paste
    b"\x1b[<u",  # the kitty keyboard protocol
    b"\x1b[?1004l",  # focus reports
    b"\x1b[?7h",  # line wrap
)


def started(workspace: Workspace, session_file) -> PseudoTerminal:
    command = [sys.executable, "-c", PROGRAM, str(workspace.root), str(session_file)]
    terminal = PseudoTerminal(command, columns=80, rows=24)
    terminal.wait_for("\x1b[?1049h", "quit")
    terminal.settle()
    return terminal


def is_gone(pid: int) -> bool:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return True
        time.sleep(0.02)  # polling another process: there is nothing to wait on
    return False


def assert_left_as_found(terminal: PseudoTerminal) -> None:
    ending = terminal.output[terminal.output.rindex(b"\x1b[?1049h") :]
    assert [sequence for sequence in LEFT if sequence not in ending] == []
    assert ending.rindex(b"\x1b[?1049l") > ending.rindex(b"\x1b[<u")
    assert terminal.modes == terminal.modes_before
    assert b"Traceback" not in terminal.output


@pytest.mark.parametrize("name", ["SIGTERM", "SIGHUP", "SIGQUIT", "SIGINT"])
def test_a_signal_gives_the_terminal_back_and_ends_the_session(
    empty_workspace: Workspace, tmp_path, name: str
):
    number = signal.Signals[name]
    with started(empty_workspace, tmp_path / "session") as terminal:
        terminal.process.send_signal(number)
        assert terminal.wait_for_end() == 128 + number
        assert_left_as_found(terminal)
        assert is_gone(int((tmp_path / "session").read_text()))


def test_a_terminal_whose_first_process_keeps_the_hang_up_to_itself_ends_the_app(
    empty_workspace: Workspace, tmp_path
):
    command = [sys.executable, "-c", PROGRAM, str(empty_workspace.root), str(tmp_path / "session")]
    keeps = ["sh", "-c", 'trap "" HUP; "$@"; echo $? >"$0"', str(tmp_path / "code")]
    terminal = PseudoTerminal([*keeps, *command], columns=80, rows=24)
    terminal.wait_for("\x1b[?1049h", "quit")
    terminal.settle()
    os.close(terminal.master)
    os.close(terminal._slave)
    terminal.process.wait(60)
    assert int((tmp_path / "code").read_text()) == 128 + signal.SIGHUP
    assert is_gone(int((tmp_path / "session").read_text()))


def test_a_terminal_that_is_closed_ends_the_app_and_the_session(
    empty_workspace: Workspace, tmp_path
):
    terminal = started(empty_workspace, tmp_path / "session")
    os.close(terminal.master)  # the kernel sends SIGHUP
    os.close(terminal._slave)
    assert terminal.process.wait(60) == 128 + signal.SIGHUP
    assert is_gone(int((tmp_path / "session").read_text()))


@pytest.mark.parametrize("name", ["SIGTSTP", "SIGSTOP"])
def test_stopped_and_continued_it_draws_again_and_leaves_as_it_found(
    empty_workspace: Workspace, tmp_path, name: str
):
    with started(empty_workspace, tmp_path / "session") as terminal:
        terminal.process.send_signal(signal.Signals[name])
        assert os.WIFSTOPPED(os.waitpid(terminal.process.pid, os.WUNTRACED)[1])
        terminal.settle()
        if name == "SIGTSTP":  # to the shell, the terminal is as it was
            assert terminal.modes == terminal.modes_before
            assert terminal.output.rstrip().endswith(b"\x1b[?1004l")
        before = len(terminal.output)
        terminal.process.send_signal(signal.SIGCONT)
        terminal.settle(1.0)
        assert b"\x1b[?1049h" in terminal.output[before:]
        drawn = terminal.output[before:].decode()
        assert [words for words in ("mi-crow", "Concepts", "quit") if words not in drawn] == []
        terminal.press("q")
        assert terminal.wait_for_end() == 0
        assert_left_as_found(terminal)


@pytest.mark.skipif(shutil.which("bash") is None, reason="bash is not installed")
def test_ctrl_z_goes_to_the_shell_and_fg_comes_back(empty_workspace: Workspace) -> None:
    command = [*PROGRAM_AS_USED, "--workspace", str(empty_workspace.root)]
    shell = ["bash", "--norc", "--noprofile", "-i"]
    with PseudoTerminal(shell, columns=80, rows=24, environment={"PS1": "% "}) as terminal:
        terminal.wait_for("% ")
        terminal.press(f"{shlex.join(command)}\r")
        terminal.wait_for("How to begin?")
        terminal.press("\x1a")
        terminal.wait_for("Stopped")
        terminal.output = b""
        terminal.press("fg\r")
        terminal.wait_for("Concepts", "How to begin?", "quit")  # all of it is drawn again
        terminal.press("q", "exit\r")
        assert terminal.wait_for_end() == 0


def test_without_a_shell_to_go_to_ctrl_z_stops_nothing(empty_workspace: Workspace, tmp_path):
    with started(empty_workspace, tmp_path / "session") as terminal:  # it leads its session
        terminal.press("\x1a")
        terminal.wait_for("There is no shell")
        terminal.press("q")
        assert terminal.wait_for_end() == 0


def test_a_continue_without_a_stop_changes_nothing(empty_workspace: Workspace, tmp_path):
    with started(empty_workspace, tmp_path / "session") as terminal:
        terminal.process.send_signal(signal.SIGCONT)
        terminal.settle(1.0)
        terminal.press("?", "\x1b", "q")
        assert terminal.wait_for_end() == 0
        assert_left_as_found(terminal)


@pytest.mark.parametrize("debug", [(), ("--debug",)], ids=["plain", "debug"])
def test_a_fault_is_one_sentence_and_exit_code_1(
    empty_workspace: Workspace, debug: tuple[str, ...]
):
    command = (sys.executable, "-c", BROKEN, "--workspace", str(empty_workspace.root), *debug)
    with PseudoTerminal(command) as terminal:
        assert terminal.wait_for_end() == 1
        assert terminal.modes == terminal.modes_before
    told = terminal.output[terminal.output.rindex(b"\x1b[?1004l") :].decode()
    assert "TypeError: \N{SYMBOL FOR ESCAPE}]0;title\N{SYMBOL FOR BELL} cannot be added" in told
    assert ("Traceback" in told) == bool(debug)
    assert "a text of the user" not in told.replace('secret = "a text of the user"', "")
    assert foreign_sequences(terminal.output) == []


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_what_was_open_is_kept_when_a_signal_ends_the_app(workspace: Workspace, number) -> None:
    workspace.ensure()
    command = [*PROGRAM_AS_USED, "--workspace", str(workspace.root)]
    with PseudoTerminal(command, columns=80, rows=24) as terminal:
        terminal.wait_for("\x1b[?1049h", "quit")
        terminal.press("5")
        terminal.process.send_signal(number)
        assert terminal.wait_for_end() == 128 + number
    assert StateFile(workspace.root).read().screen == "concepts"


def test_a_damaged_file_of_what_was_open_is_told_and_ignored(workspace: Workspace) -> None:
    workspace.ensure()
    file = StateFile(workspace.root)
    file.write(SavedState("concepts"))
    file.path.write_text("{")
    command = [*PROGRAM_AS_USED, "--workspace", str(workspace.root)]
    with PseudoTerminal(command, columns=120, rows=40) as terminal:
        terminal.wait_for("\x1b[?1049h", "quit", "not restored")
        terminal.press("q")
        assert terminal.wait_for_end() == 0
