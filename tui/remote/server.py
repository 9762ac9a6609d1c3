"""The socket of an open app: who may speak, how much and how long, and the answer.

Everything runs on the app's event loop and waits nowhere else, so that a client that hangs or
floods holds up nobody but itself. What changes widgets is called on the message pump.
"""

import asyncio
import contextlib
import os
import socket
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import mi_crow
from mi_crow.causes import explained
from mi_crow.errors import MiCrowError, UserError
from mi_crow.remote.place import bind_socket, is_of_this_user
from mi_crow.remote.wire import (
    MOST_REQUEST,
    QUIT,
    Greeting,
    error_line,
    greeting_line,
    line_of,
    read_request,
)
from mi_crow.store.json_object import JsonObject
from tui.message_log import Told
from tui.threads import error_sentence

if TYPE_CHECKING:
    from tui.app import MiCrowApp

MOST_CONNECTIONS = 32
REQUEST_S = 5.0  # for a client to say what it wants, and to take the answer
WORK_S = 60.0  # for the app to do it

Answer = Callable[[JsonObject], Awaitable[dict[str, Any]]]


class RemoteControl:
    """While it is open, other programs of this user can ask the app for what `answer` knows."""

    def __init__(self, app: "MiCrowApp", answer: Answer) -> None:
        self._app = app
        self._answer = answer
        self._path: Path | None = None
        self._server: asyncio.Server | None = None
        self._started = time.time()
        self._connections = 0
        self._turn = asyncio.Lock()  # one request at a time

    def __enter__(self) -> "RemoteControl":
        self._app.call_later(self.start)
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def path(self) -> Path | None:
        """The socket, once it is there."""
        return self._path

    def start(self) -> None:
        """Makes the socket in a thread, then listens."""
        self._app.in_thread(bind_socket, self._listen, failed=self._not_made)

    def close(self) -> None:
        """Removes the socket; from any thread, more than once."""
        path, self._path = self._path, None
        if path is not None:
            with contextlib.suppress(OSError):
                path.unlink(missing_ok=True)

    async def _listen(self, made: tuple[socket.socket, Path]) -> None:
        listening, self._path = made
        self._server = await asyncio.start_unix_server(
            self._serve, sock=listening, limit=MOST_REQUEST
        )

    def _not_made(self, error: Exception) -> None:
        """The app works without: only the list of messages says so."""
        remedy = error.hint if isinstance(error, MiCrowError) else ""
        said = f"`mi-crow app` cannot reach this app: {error_sentence(error).partition(';')[0]}"
        self._app.message_log.add(Told(time.time(), said, remedy, "warning"))

    # One connection.

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._connections += 1
        try:
            if _is_ours(writer):
                await self._talk(reader, writer)
        except (OSError, TimeoutError):  # the client went away or hangs
            writer.transport.abort()
        except asyncio.CancelledError:
            pass  # the app ends
        finally:
            self._connections -= 1
            writer.close()

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        workspace = str(self._app.context.workspace.root)
        greeting = Greeting(os.getpid(), mi_crow.__version__, workspace, self._started)
        await _send(writer, greeting_line(greeting))
        if self._connections > MOST_CONNECTIONS:  # each holds what it sent: told, and let go
            await _send(writer, error_line(MiCrowError("the app is busy", hint="try again")))
            return
        try:
            request = read_request(await _request(reader))
            async with asyncio.timeout(WORK_S), self._turn:
                result = await self._answer(request)
                answer = line_of({"result": result})
        except TimeoutError:
            answer = error_line(MiCrowError("the app is busy", hint="try again"))
        except Exception as error:
            answer = error_line(_as_told(error))
        else:
            if result.get(QUIT):
                await _send(writer, answer)
                self._app.call_later(self._app.exit)
                await asyncio.Event().wait()  # the connection ends with the app
        await _send(writer, answer)


async def _request(reader: asyncio.StreamReader) -> bytes:
    """The line that the client sends; what it sent until then when that is no line."""
    try:
        async with asyncio.timeout(REQUEST_S):
            return await reader.readline()
    except TimeoutError as error:
        raise UserError(f"no request came in {REQUEST_S:.0f} s") from error
    except ValueError as error:
        raise UserError(
            "the request is too long", hint=f"at most {MOST_REQUEST:,} bytes"
        ) from error


async def _send(writer: asyncio.StreamWriter, line: bytes) -> None:
    writer.write(line)
    async with asyncio.timeout(REQUEST_S):
        await writer.drain()


def _is_ours(writer: asyncio.StreamWriter) -> bool:
    connection = writer.get_extra_info("socket")
    return connection is not None and is_of_this_user(connection)


def _as_told(error: Exception) -> MiCrowError:
    """One sentence for the other program."""
    shown = explained(error) if isinstance(error, MiCrowError | OSError) else error
    return shown if isinstance(shown, MiCrowError) else MiCrowError(error_sentence(error))
