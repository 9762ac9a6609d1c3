"""The client of the model session: starts and restarts its process, sends requests. Torch-free.

Any thread may use it; requests are answered in the order in which they were sent.
"""

import itertools
import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from queue import SimpleQueue
from typing import Any

from mi_crow.errors import CorruptDataError
from mi_crow.session.protocol import (
    FINAL_EVENTS,
    INTERRUPT,
    Request,
    SessionDied,
    decode_line,
    error_from_event,
)
from mi_crow.store.workspace import Workspace

SERVER = (sys.executable, "-m", "mi_crow.session.server")
# Read when the libraries load: spinning OpenMP threads would starve the app.
_ENVIRONMENT = {
    "OMP_WAIT_POLICY": "PASSIVE",
    "GOMP_SPINCOUNT": "0",
    "PYTHONUNBUFFERED": "1",
    "TOKENIZERS_PARALLELISM": "false",
}
_EXIT_PATIENCE_S = 2.0
_LOG_TAIL_BYTES = 4096

_Events = SimpleQueue[dict[str, Any] | None]  # None: the process ended


class SessionClient:
    """Sends requests to the model session of one workspace; the first one starts its process.

    When it dies, pending requests raise SessionDied and the next one restarts it with the SAE that
    was loaded.
    """

    def __init__(
        self,
        workspace: Workspace,
        log_path: Path | None = None,
        *,
        command: Sequence[str] = SERVER,
    ) -> None:
        self._command = [*command, "--workspace", str(workspace.root)]
        self._keeps_log = log_path is not None
        self._log_path = log_path
        self._ids = (f"r{number}" for number in itertools.count(1))
        self._starting = threading.RLock()  # one thread starts and reloads, the others wait
        self._process: _Process | None = None
        self._loaded: dict[str, Any] | None = None  # parameters of the last successful `load`
        self._closed = False

    @property
    def alive(self) -> bool:
        """Whether the process runs."""
        process = self._process
        return process is not None and process.alive

    @property
    def log_path(self) -> Path | None:
        """The session's log file; None before the first start."""
        return self._log_path

    def start(self) -> None:
        """Starts the process unless it runs. Raises SessionDied once closed."""
        with self._starting:
            if self._closed:
                raise SessionDied("the model session was closed")
            if self.alive:
                return
            if self._log_path is None:
                handle, name = tempfile.mkstemp(prefix="mi-crow-session-", suffix=".log")
                os.close(handle)
                self._log_path = Path(name)
            self._process = _Process(self._command, self._log_path)
            if self._closed:  # closed while the process was starting
                self._process.end()

    def request(self, op: str, **params: Any) -> Iterator[dict[str, Any]]:
        """Sends a request and yields the events of its answer; the last is the result.

        Leaving the iterator early interrupts the request. Raises what the session raised, and
        SessionDied when its process ends first.
        """
        with self._starting:
            if not self.alive:
                self.start()
                if op != "load" and self._loaded is not None:
                    self.call("load", **self._loaded)
            process = self._process
        assert process is not None
        asked = Request(next(self._ids), op, params)
        return self._answer(process, asked, process.ask(asked))

    def call(self, op: str, **params: Any) -> dict[str, Any]:
        """Sends a request and returns its result; raises like `request`."""
        last: dict[str, Any] = {}
        for event in self.request(op, **params):
            last = event
        return {key: value for key, value in last.items() if key not in ("id", "event")}

    def interrupt(self, request_id: str | None = None) -> None:
        """Stops a request between two tokens; None stops all pending ones. Never blocks."""
        process = self._process
        if process is not None:
            process.tell(Request(next(self._ids), INTERRUPT, {"request": request_id}))

    def close(self) -> None:
        """Ends the process; pending requests raise SessionDied. Never waits for work."""
        self._closed = True
        process, self._process = self._process, None
        if process is not None:
            process.end()
        if self._log_path is not None and not self._keeps_log:
            self._log_path.unlink(missing_ok=True)

    def _answer(
        self, process: "_Process", asked: Request, events: _Events
    ) -> Iterator[dict[str, Any]]:
        ended = False
        try:
            while not ended:
                event = events.get()
                if event is None:
                    ended = True
                    raise SessionDied(
                        f"the model session ended{process.last_words()}",
                        hint="" if self._closed else "the next request restarts it",
                    )
                ended = event.get("event") in FINAL_EVENTS
                if event.get("event") == "error":
                    raise error_from_event(event)
                if ended and asked.op == "load":
                    self._loaded = dict(asked.params)
                yield event
        finally:
            process.forget(asked.id)
            if not ended:
                self.interrupt(asked.id)


class _Process:
    """One server process and its pending requests."""

    def __init__(self, command: Sequence[str], log_path: Path) -> None:
        self._log_path = log_path
        with log_path.open("ab") as log:
            self._log_start = log.tell()
            self._popen = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                env=os.environ | _ENVIRONMENT,
            )
        self._lock = threading.Lock()  # the queues, and whole lines into the pipe
        self._waiting: dict[str, _Events] = {}
        self._ended = False
        threading.Thread(target=self._listen, name="model-session", daemon=True).start()

    @property
    def alive(self) -> bool:
        return not self._ended and self._popen.poll() is None

    def ask(self, request: Request) -> _Events:
        """Sends a request and returns the queue of its events."""
        events: _Events = SimpleQueue()
        with self._lock:
            if self._ended:
                events.put(None)
                return events
            self._waiting[request.id] = events
        self.tell(request)
        return events

    def tell(self, request: Request) -> None:
        """Sends a line. The listening thread notices when the process is gone."""
        assert self._popen.stdin is not None
        with self._lock, suppress(OSError, ValueError):
            self._popen.stdin.write(request.as_line())
            self._popen.stdin.flush()

    def forget(self, request_id: str) -> None:
        with self._lock:
            self._waiting.pop(request_id, None)

    def end(self) -> None:
        """Ends it, by force if needed: it has nothing to save."""
        self._popen.terminate()
        try:
            self._popen.wait(_EXIT_PATIENCE_S)
        except subprocess.TimeoutExpired:
            self._popen.kill()
            self._popen.wait()

    def last_words(self) -> str:
        """How it ended: its exit status and the last line of its log, which cannot know of a
        SIGKILL."""
        status = self._popen.wait()
        how = ""
        if status == -signal.SIGKILL:
            return " (killed by SIGKILL, as when the machine's memory runs out)"
        if status < 0:
            how = f" (killed by {signal.Signals(-status).name})"
        elif status > 0:
            how = f" (exit status {status})"
        try:
            with self._log_path.open("rb") as log:
                log.seek(max(self._log_start, os.path.getsize(self._log_path) - _LOG_TAIL_BYTES))
                lines = log.read().decode("utf-8", "replace").splitlines()
        except OSError:
            lines = []
        last = next((line.strip() for line in reversed(lines) if line.strip()), "")
        return f"{how}: {last[:200]}" if last else how

    def _listen(self) -> None:
        """Delivers every event to its request until the process ends."""
        assert self._popen.stdout is not None
        for line in self._popen.stdout:
            try:
                event = decode_line(line)
            except CorruptDataError:
                continue  # output of a library, not an event
            with self._lock:
                events = self._waiting.get(str(event.get("id")))
            if events is not None:
                events.put(event)
        with self._lock:
            self._ended = True
            waiting, self._waiting = self._waiting, {}
            assert self._popen.stdin is not None
            with suppress(OSError):
                self._popen.stdin.close()
        for events in waiting.values():
            events.put(None)
        self._popen.stdout.close()
        self._popen.wait()  # or it would stay a zombie
