"""The model session's process: `python -m mi_crow.session.server --workspace W`.

The protocol uses the pipe that was fd 1; fd 1 itself points to the log, since libraries print. A
thread reads requests, so that interrupts are seen while the model works; end of file means exit.
"""

import argparse
import os
import queue
import signal
import sys
import threading
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any, BinaryIO

from mi_crow.arithmetic import settle_arithmetic
from mi_crow.causes import explained, out_of_memory
from mi_crow.errors import CorruptDataError, MiCrowError, UserError
from mi_crow.session.protocol import INTERRUPT, Request, encode_line, error_event
from mi_crow.store.workspace import Workspace


class Channel:
    """The session's side of the pipes: requests in, events out, interrupts seen immediately."""

    def __init__(self, requests: BinaryIO, events: BinaryIO) -> None:
        self._requests, self._events = requests, events
        self._queue: queue.SimpleQueue[Request] = queue.SimpleQueue()
        self._lock = threading.Lock()  # the two sets below
        self._open: set[str] = set()  # pending requests
        self._interrupted: set[str] = set()
        threading.Thread(target=self._read, name="requests", daemon=True).start()

    def send(self, event: dict[str, Any]) -> None:
        """Sends an event. Called by one thread only."""
        self._events.write(encode_line(event))
        self._events.flush()

    def next_request(self) -> Request:
        """Waits for the next request."""
        return self._queue.get()

    def interrupted(self, request_id: str) -> bool:
        return request_id in self._interrupted

    def done(self, request_id: str) -> None:
        with self._lock:
            self._open.discard(request_id)
            self._interrupted.discard(request_id)

    def _read(self) -> None:
        for line in self._requests:
            try:
                request = Request.from_line(line)
            except CorruptDataError:
                traceback.print_exc()
                continue
            with self._lock:
                if request.op == INTERRUPT:
                    asked = request.params.get("request")
                    self._interrupted |= self._open if asked is None else self._open & {asked}
                    continue
                self._open.add(request.id)
            self._queue.put(request)
        # The client is gone. Not sys.exit: the main thread may be deep inside a model.
        os._exit(0)


def main(argv: Sequence[str] | None = None) -> int:
    """Serves requests until the client closes the pipe."""
    parser = argparse.ArgumentParser(prog="python -m mi_crow.session.server")
    parser.add_argument("--workspace", required=True, type=Path)
    options = parser.parse_args(argv)
    # Ctrl+c in the terminal is for the app that started us; we end with it.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    events = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    channel = Channel(sys.stdin.buffer, events)
    # Importing torch takes seconds: do so only now that interrupts are seen.

    from mi_crow.session.operations import Operations

    settle_arithmetic()
    operations = Operations(Workspace(options.workspace))
    while True:
        _answer(channel, operations, channel.next_request())


def _answer(channel: Channel, operations: Any, request: Request) -> None:
    """Carries out one request; an error is its answer, never the end of the session."""

    def emit(event: dict[str, Any]) -> None:
        channel.send({**event, "id": request.id})

    try:
        result = operations.run(
            request.op, dict(request.params), emit, lambda: channel.interrupted(request.id)
        )
        emit({**result, "event": "result"})
    except BrokenPipeError:
        os._exit(0)  # the client is gone
    except Exception as error:
        if not isinstance(error, UserError):
            traceback.print_exc()
        known = error if isinstance(error, MiCrowError) else _system_error(error)
        channel.send(error_event(request.id, known))
    finally:
        channel.done(request.id)


def _system_error(error: Exception) -> BaseException:
    """An error that is not ours, explained for the user."""
    if out_of_memory(error):
        return MiCrowError(
            "the device is out of memory",
            hint="stop other programs on it, or use a shorter text",
        )
    return explained(error)


if __name__ == "__main__":
    raise SystemExit(main())
