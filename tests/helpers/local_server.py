"""HTTP servers of this machine that stand for the hub or a chat model."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any, TypeVar


class Answers(BaseHTTPRequestHandler):
    """The base of what answers one request; says nothing on the terminal."""

    def log_message(self, format: str, *args: Any) -> None:
        """Says nothing."""

    def body(self) -> bytes:
        return self.rfile.read(int(self.headers.get("Content-Length") or 0))

    def send(self, status: int, data: bytes, headers: Mapping[str, str] | None = None) -> None:
        """A whole answer."""
        self.send_head(status, len(data), headers)
        self.wfile.write(data)

    def send_head(self, status: int, length: int, headers: Mapping[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(length))
        self.end_headers()


class LocalServer(ThreadingHTTPServer):
    """Listens on a free port; `handler` answers."""

    daemon_threads = True

    def __init__(self, handler: type[Answers]) -> None:
        super().__init__(("127.0.0.1", 0), handler)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


Server = TypeVar("Server", bound=LocalServer)


@contextmanager
def served(server: Server) -> Iterator[Server]:
    """The server, as long as a test uses it."""
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
