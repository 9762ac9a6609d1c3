"""The model session's process: `python -m mi_crow.session.server --workspace W`.

The protocol has the pipe that was fd 1; fd 1 itself points at the log, since libraries print. A
thread reads requests, so that an interrupt is seen while the model works; end of file means exit.
"""

import argparse
import os
import queue
import sys
import threading
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any, BinaryIO

from mi_crow.errors import MiCrowError, UserError
from mi_crow.session.protocol import decode, encode
from mi_crow.store.workspace import Workspace


class Channel:
    """The session's side of the pipes: requests in, events out, interrupts seen at once."""

    def __init__(self, requests: BinaryIO, events: BinaryIO) -> None:
        self._requests, self._events = requests, events
        self._lock = threading.Lock()
        self._queue: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
        self._open: set[str] = set()
        self._interrupted: set[str] = set()
        threading.Thread(target=self._read, name="requests", daemon=True).start()

    def send(self, message: dict[str, Any]) -> None:
        with self._lock:
            self._events.write(encode(message))
            self._events.flush()

    def next_request(self) -> dict[str, Any]:
        """Waits for the next request."""
        return self._queue.get()

    def interrupted(self, request_id: str) -> bool:
        return request_id in self._interrupted

    def done(self, request_id: str) -> None:
        self._open.discard(request_id)
        self._interrupted.discard(request_id)

    def _read(self) -> None:
        for line in self._requests:
            message = decode(line)
            if message is None:
                continue
            if message.get("op") == "interrupt":
                target = message.get("target")
                self._interrupted |= self._open if target is None else {str(target)}
                continue
            self._open.add(str(message.get("id")))
            self._queue.put(message)
        # Nobody listens any more. Not sys.exit: the main thread may be deep inside a model.
        os._exit(0)


def main(argv: Sequence[str] | None = None) -> int:
    """Serves requests until the client closes the pipe."""
    parser = argparse.ArgumentParser(prog="python -m mi_crow.session.server")
    parser.add_argument("--workspace", required=True, type=Path)
    parser.add_argument("--device", default="auto")
    options = parser.parse_args(argv)
    events = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    channel = Channel(sys.stdin.buffer, events)
    channel.send({"event": "hello", "pid": os.getpid()})
    # Importing torch takes seconds: only now, with the client told that we live.
    from mi_crow.session.operations import Operations

    operations = Operations(Workspace(options.workspace), options.device)
    while True:
        _answer(channel, operations, channel.next_request())


def _answer(channel: Channel, operations: Any, request: dict[str, Any]) -> None:
    """Carries out one request; whatever goes wrong is its answer, never the end of the session."""
    request_id = str(request.pop("id", ""))
    op = str(request.pop("op", ""))

    def emit(event: dict[str, Any]) -> None:
        channel.send({"id": request_id, **event})

    try:
        result = operations.run(op, request, emit, lambda: channel.interrupted(request_id))
        emit({"event": "result", **result})
    except MiCrowError as error:
        emit(
            {
                "event": "error",
                "error": str(error),
                "hint": error.hint,
                "exit_code": error.exit_code,
            }
        )
    except TypeError as error:
        wrong = UserError(f"request {op!r} has wrong parameters ({error})")
        traceback.print_exc()
        emit({"event": "error", "error": str(wrong), "hint": "", "exit_code": wrong.exit_code})
    except Exception as error:
        traceback.print_exc()
        text = f"{type(error).__name__}: {error}"[:500]
        emit({"event": "error", "error": text, "hint": "", "exit_code": 1})
    finally:
        channel.done(request_id)


if __name__ == "__main__":
    raise SystemExit(main())
