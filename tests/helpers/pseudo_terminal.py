"""The real program on a pseudo-terminal: keys in, and every byte that it sends out."""

import fcntl
import os
import pty
import re
import select
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Sequence
from pathlib import Path

PROGRAM = (sys.executable, "-m", "mi_crow")
WAIT_S = 60.0

# What the app may say to a terminal: styles, the cursor, scrolling, modes and queries, and nothing
# else. Text that it draws can spell none of these, since no escape character is left in it.
_CSI = re.compile(rb"\x1b\[[0-9;:?<>=]*\$?[A-Za-z]")
_FINALS = frozenset(b"mHhlupJKXABCDGdtnrLM")
_POINTER = re.compile(rb"\x1b\]22;[a-z-]*\x07")
_COPY = re.compile(rb"\x1b\]52;c;([A-Za-z0-9+/=]*)\x07")


class PseudoTerminal:
    """One program with a terminal of its own of `columns` x `rows`."""

    def __init__(
        self,
        command: Sequence[str],
        *,
        columns: int = 120,
        rows: int = 40,
        cwd: Path | None = None,
        environment: dict[str, str] | None = None,
    ) -> None:
        self._master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
        self.modes_before = termios.tcgetattr(slave)
        own = {name: value for name, value in os.environ.items() if name != "TMUX"}
        self.process = subprocess.Popen(
            command,
            stdin=slave,
            stdout=slave,
            stderr=slave,
            cwd=cwd,
            env=own | {"TERM": "xterm-256color", "LC_ALL": "C.UTF-8"} | (environment or {}),
            start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
        )
        self._slave = slave
        self.output = b""

    def press(self, *keys: str) -> None:
        """Sends keys as a terminal does, each once the program has drawn what came before."""
        for key in keys:
            os.write(self._master, key.encode())
            self.settle()

    def settle(self, quiet_s: float = 0.15) -> None:
        """Reads until nothing more comes for a moment in which the program had nothing to do: on a
        busy machine it may be silent because it waits for its turn."""
        deadline = time.monotonic() + WAIT_S
        quiet_since = time.monotonic()
        while (now := time.monotonic()) < min(quiet_since + quiet_s, deadline):
            if self._read(0.02) or self._is_working():
                quiet_since = now

    def wait_for(self, *words: str) -> None:
        """Reads until all of `words` were sent, since the start."""
        deadline = time.monotonic() + WAIT_S
        while not all(word.encode() in self.output for word in words):
            assert time.monotonic() < deadline, f"{words} did not come:\n{self.output[-3000:]!r}"
            self._read(0.1)

    def wait_for_end(self) -> int:
        """Reads until the program ended; gives its exit code, -n after the signal n."""
        deadline = time.monotonic() + WAIT_S
        while self.process.poll() is None:
            assert time.monotonic() < deadline, f"it goes on:\n{self.output[-3000:]!r}"
            self._read(0.05)
        while self._read(0.05):
            pass
        return self.process.returncode

    @property
    def modes(self) -> list:
        """How the terminal treats input and output now."""
        return termios.tcgetattr(self._slave)

    @property
    def master(self) -> int:
        return self._master

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        os.close(self._slave)
        os.close(self._master)

    def __enter__(self) -> "PseudoTerminal":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _is_working(self) -> bool:
        """Whether a thread of the program runs, or would if a processor were free."""
        try:
            threads = list(Path(f"/proc/{self.process.pid}/task").glob("*/stat"))
            return any(one.read_text().rpartition(")")[2].split()[0] in "RD" for one in threads)
        except (FileNotFoundError, ProcessLookupError):  # it, or one of its threads, has ended
            return False

    def _read(self, seconds: float) -> bool:
        if not select.select([self._master], [], [], seconds)[0]:
            return False
        try:
            data = os.read(self._master, 1 << 16)
        except OSError:  # the other side is closed
            return False
        self.output += data
        return bool(data)


def foreign_sequences(output: bytes) -> list[bytes]:
    """What in `output` a terminal would obey and the app never says by itself."""
    found = [match.group() for match in _CSI.finditer(output) if match.group()[-1] not in _FINALS]
    rest = _COPY.sub(b"", _POINTER.sub(b"", _CSI.sub(b"", output)))
    found += [rest[place.start() : place.start() + 24] for place in re.finditer(rb"\x1b", rest)]
    text = rest.decode("utf-8", "replace")
    hidden = re.findall(
        "[\x00-\x08\x0b\x0c\x0e-\x1a\x1c-\x1f\x7f-\x9f\u200b\u202a-\u202e\u2066-\u2069]", text
    )
    return found + [character.encode() for character in hidden]


def copied(output: bytes) -> list[bytes]:
    """The base64 texts that were sent to the terminal's clipboard."""
    return _COPY.findall(output)


def colours(output: bytes) -> set[str]:
    """The colours that `output` sets, as the parts of its sequences say them."""
    found = set()
    for match in re.finditer(rb"\x1b\[([0-9;:]*)m", output):
        parts = [part for part in re.split("[;:]", match.group(1).decode()) if part]
        found |= {part for part in parts if re.fullmatch("[34][0-9]|9[0-7]|10[0-7]", part)}
    return found
