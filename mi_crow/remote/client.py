"""Finding an open app and asking it for one thing; what `mi-crow app` does."""

import contextlib
import os
import socket
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mi_crow.errors import CorruptDataError, MiCrowError, NotFoundError, UserError
from mi_crow.remote.place import is_of_this_user, sockets
from mi_crow.remote.wire import (
    MOST_ANSWER,
    MOST_REQUEST,
    Greeting,
    line_of,
    read_answer,
    read_greeting,
)

GREETING_S = 4.0  # a running app greets at once, however much it draws
ANSWER_S = 90.0  # longer than the app itself waits for what it was asked for


@dataclass(frozen=True)
class OpenApp:
    """An app that greeted."""

    path: Path  # of its socket
    greeting: Greeting

    def is_on(self, workspace: Path) -> bool:
        """Whether it shows this workspace."""
        return os.path.realpath(self.greeting.workspace) == os.path.realpath(workspace)


@dataclass(frozen=True)
class Apps:
    """All open apps of this user, the newest first, and how many did not greet."""

    found: tuple[OpenApp, ...]
    silent: int = 0


def open_apps() -> Apps:
    """Asks every socket who is there, and removes those of apps that are gone."""
    found: list[OpenApp] = []
    silent = 0
    for path in sockets():
        try:
            with _Connection(path) as connection:
                found.append(OpenApp(path, connection.greeting))
        except (ConnectionRefusedError, FileNotFoundError):
            path.unlink(missing_ok=True)  # its app was killed
        except (OSError, MiCrowError):
            silent += 1
    found.sort(key=lambda app: app.greeting.started, reverse=True)
    return Apps(tuple(found), silent)


def pick_app(apps: Apps, workspace: Path, *, required: bool) -> OpenApp:
    """The newest app on `workspace`; where there is none and it is not `required`, the newest of
    all. Raises NotFoundError when there is no such app, UserError when none answers."""
    found: Sequence[OpenApp] = [app for app in apps.found if app.is_on(workspace)]
    if not found and not required:
        found = apps.found
    if found:
        return found[0]
    if apps.silent:
        are = "app does" if apps.silent == 1 else "apps do"
        raise UserError(
            f"{apps.silent} open {are} not answer", hint="continue it with fg if it is stopped"
        )
    if not apps.found:
        raise NotFoundError("no app is open", hint="mi-crow opens one")
    others = ", ".join(sorted({app.greeting.workspace for app in apps.found}))
    raise NotFoundError(
        f"no app is open on workspace {str(workspace)!r}", hint=f"one is open on {others}"
    )


def ask(app: OpenApp, do: str, **arguments: Any) -> dict[str, Any]:
    """What `app` answers once it has done `do`. Raises what the app raised, and UserError when it
    does not answer."""
    request = line_of({"do": do, **arguments})
    if len(request) > MOST_REQUEST:
        raise UserError(f"this is too long to be sent to the app ({len(request):,} bytes)")
    try:
        with _Connection(app.path) as connection:
            return connection.ask(request)
    except TimeoutError as error:
        raise UserError(
            "the app does not answer", hint="continue it with fg if it is stopped"
        ) from error
    except OSError as error:
        raise UserError("the app ended before it answered") from error


class _Connection:
    """One conversation. Raises OSError, and CorruptDataError for what is not an app."""

    def __init__(self, path: Path) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._read = b""
        try:
            self._socket.settimeout(GREETING_S)
            self._socket.connect(str(path))
            if not is_of_this_user(self._socket):
                raise CorruptDataError(f"{str(path)!r} is answered by somebody else")
            self.greeting = read_greeting(self._line(MOST_REQUEST, GREETING_S))
        except BaseException:
            self._socket.close()
            raise

    def __enter__(self) -> "_Connection":
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def ask(self, request: bytes) -> dict[str, Any]:
        self._socket.settimeout(GREETING_S)
        with contextlib.suppress(BrokenPipeError):  # a busy app says so before it is asked
            self._socket.sendall(request)
        answer = read_answer(self._line(MOST_ANSWER, ANSWER_S))
        self._wait_for_end()
        return answer

    def _line(self, most: int, seconds: float) -> bytes:
        deadline = time.monotonic() + seconds
        while b"\n" not in self._read:
            if len(self._read) > most:
                raise CorruptDataError("the app sends a line without an end")
            if not (some := self._some(deadline)):
                raise ConnectionResetError("the app closed the connection")
            self._read += some
        line, _, self._read = self._read.partition(b"\n")
        return line

    def _wait_for_end(self) -> None:
        """Until the app closes the connection: one that was asked to quit has then ended."""
        deadline = time.monotonic() + ANSWER_S
        try:
            while self._some(deadline):
                pass
        except ConnectionError:
            pass

    def _some(self, deadline: float) -> bytes:
        self._socket.settimeout(max(deadline - time.monotonic(), 0.001))
        return self._socket.recv(1 << 16)
