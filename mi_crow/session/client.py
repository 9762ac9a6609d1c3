"""The other end of the model session: starts it, asks it, notices when it dies. Torch-free."""

import contextlib
import itertools
import os
import queue
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, TypeAlias

from mi_crow.errors import MiCrowError, UserError
from mi_crow.session.protocol import CLOSING, SessionDied, decode, encode
from mi_crow.store.workspace import Workspace

# Spinning OpenMP threads would take the cores from the screen and from jobs.
_ENVIRONMENT = {
    "OMP_WAIT_POLICY": "PASSIVE",
    "GOMP_SPINCOUNT": "0",
    "TOKENIZERS_PARALLELISM": "false",
}
_GRACE_S = 2.0

_Events: TypeAlias = queue.SimpleQueue[dict[str, Any]]


class SessionClient:
    """Talks to one model session process. Methods may be called from any thread.

    Requests are answered in the order they were made; `interrupt` takes effect at once.
    """

    def __init__(
        self,
        workspace: Workspace,
        log_path: Path | None = None,
        *,
        device: str = "auto",
        command: Sequence[str] | None = None,
    ) -> None:
        """`command` replaces the session's own program (for tests)."""
        self._workspace = workspace
        self._log_path = log_path
        self._command = list(command or (sys.executable, "-m", "mi_crow.session.server"))
        self._device = device
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._waiting: dict[str, _Events] = {}
        self._numbers = itertools.count(1)

    @property
    def alive(self) -> bool:
        """True while the process runs."""
        process = self._process
        return process is not None and process.poll() is None

    @property
    def log_path(self) -> Path:
        """Where the process writes what libraries print."""
        if self._log_path is None:
            folder = Path(tempfile.gettempdir()) / f"mi-crow-{os.getuid()}"
            folder.mkdir(mode=0o700, exist_ok=True)
            self._log_path = folder / f"session-{os.getpid()}-{id(self):x}.log"
        return self._log_path

    def start(self) -> None:
        """Starts the process if none runs; returns before any model is loaded."""
        with self._lock:
            if self.alive:
                return
            arguments = ["--workspace", str(self._workspace.root), "--device", self._device]
            with self.log_path.open("ab") as log:
                self._process = subprocess.Popen(
                    [*self._command, *arguments],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=log,
                    env=os.environ | _ENVIRONMENT,
                )
            reader = threading.Thread(
                target=self._read, args=(self._process,), name="session-reader", daemon=True
            )
            reader.start()

    def request(self, op: str, **params: Any) -> Iterator[dict[str, Any]]:
        """The events that answer one request; the last is the `result`.

        Raises the session's error, or SessionDied when its process ends.
        """
        self.start()
        request_id = str(next(self._numbers))
        events: _Events = queue.SimpleQueue()
        self._waiting[request_id] = events
        try:
            self._send({"id": request_id, "op": op, **params})
            while True:
                event = events.get()
                if event["event"] == "error":
                    raise _error(event)
                if event["event"] == "died":
                    raise SessionDied(
                        f"the model session died ({self._last_words()})",
                        hint="the next request starts it again",
                    )
                yield event
                if event["event"] in CLOSING:
                    return
        finally:
            self._waiting.pop(request_id, None)

    def call(self, op: str, **params: Any) -> dict[str, Any]:
        """The result of one request, its events passed over."""
        last: dict[str, Any] = {}
        for last in self.request(op, **params):
            pass
        return {key: value for key, value in last.items() if key not in ("id", "event")}

    def interrupt(self, request_id: str | None = None) -> None:
        """Stops a request (all of them) between two tokens. Does nothing when no process runs."""
        with contextlib.suppress(SessionDied):
            if self.alive:
                self._send({"op": "interrupt", "target": request_id})

    def close(self) -> None:
        """Ends the process, and with it every call that waits."""
        with self._lock:
            process, self._process = self._process, None
        if process is None:
            return
        with contextlib.suppress(OSError):
            if process.stdin is not None:
                process.stdin.close()  # end of file: the session exits
        try:
            process.wait(_GRACE_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        if self._log_path is not None:
            self._log_path.unlink(missing_ok=True)

    def _send(self, message: dict[str, Any]) -> None:
        process = self._process
        try:
            if process is None or process.stdin is None:
                raise BrokenPipeError
            with self._lock:
                process.stdin.write(encode(message))
                process.stdin.flush()
        except (OSError, ValueError) as error:
            raise SessionDied(
                "the model session has ended", hint="the next request starts it again"
            ) from error

    def _read(self, process: subprocess.Popen[bytes]) -> None:
        """Hands every event to the request that waits for it, until the process ends."""
        if process.stdout is not None:
            for line in process.stdout:
                event = decode(line)
                events = self._waiting.get(str((event or {}).get("id")))
                if event is not None and events is not None:
                    events.put(event)
        process.wait()
        for events in list(self._waiting.values()):
            events.put({"event": "died"})

    def _last_words(self) -> str:
        try:
            lines = self.log_path.read_text("utf-8", "replace").strip().splitlines()
        except OSError:
            lines = []
        return lines[-1][:200] if lines else "it left no message"


def _error(event: dict[str, Any]) -> MiCrowError:
    kind = UserError if event.get("exit_code") == UserError.exit_code else MiCrowError
    return kind(str(event.get("error")), hint=str(event.get("hint") or ""))
