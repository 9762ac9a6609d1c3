"""A chat model behind an OpenAI-compatible endpoint: asked one question at a time, patiently.

The key comes from the environment and is kept nowhere. Torch-free; only the standard library.
"""

import io
import json
import math
import os
import socket
import ssl
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass, field
from http.client import HTTPConnection, HTTPException, HTTPResponse, HTTPSConnection
from typing import Any
from urllib.parse import quote, urlsplit

from mi_crow.errors import MachineError, UserError
from mi_crow.store.settings import LLM_KEY_NAME, check_address
from mi_crow.visible import visible

KEYS = (LLM_KEY_NAME, "OPENAI_API_KEY")  # the first that is set is sent
_LOCAL = ("localhost", "127.0.0.1", "::1")
_AGAIN = (408, 409, 425, 429, 500, 502, 503, 504, 529)  # answers of a server that is busy
_TRIES = 5
_PAUSE_S, _LONGEST_PAUSE_S = 1.0, 60.0
_MOST_BYTES = 1 << 20
_TOLD = 160  # characters of what a server says
_ANSWER_TOKENS = 256
_CUT = (ConnectionResetError, ConnectionAbortedError, BrokenPipeError, ssl.SSLEOFError)
_REMOVED = "***"  # in the place of the key
_LEAST_KEY = 8  # characters of a key that is removed from answers as well: "none" is a word


class RubbishError(Exception):
    """An answer that is not what was asked for."""


class _NoChatError(RubbishError):
    """An answer that does not have the form of a chat's."""


def _at_once() -> None:
    """Waits for nothing."""


@dataclass(frozen=True)
class Endpoint:
    """Where a chat model is, as `https://host/v1`, and its name there.

    timeout_s: within which an answer must be whole, once the question is sent.
    pause: waits so many seconds before a question is put again.
    turn: waits until a question may start, also one that is put again.
    """

    url: str
    model: str
    timeout_s: float = 60.0
    pause: Callable[[float], None] = field(default=time.sleep, repr=False)
    turn: Callable[[], None] = field(default=_at_once, repr=False)
    _answered: threading.Event = field(default_factory=threading.Event, repr=False, compare=False)
    _spoke: threading.Event = field(default_factory=threading.Event, repr=False, compare=False)
    _wrong: list[RubbishError] = field(default_factory=list, repr=False, compare=False)

    @property
    def address(self) -> str:
        """Where questions are posted to."""
        base = self.url.rstrip("/")
        return base if base.endswith("/chat/completions") else f"{base}/chat/completions"

    def ask(self, question: str) -> str:
        """The model's answer. A busy server is asked again, after as long as it says, and so is one
        whose answer is cut or late, or that is gone after it has answered.

        Raises UserError for an address, key or model that it refuses and where all that comes is
        not from a chat, MachineError where it stays busy, cut or silent, RubbishError for an answer
        that holds no text.
        """
        body = {
            "model": self.model,
            "messages": [{"role": "user", "content": question}],
            "temperature": 0,
            "max_tokens": _ANSWER_TOKENS,
        }
        request = urllib.request.Request(
            self.address, json.dumps(body).encode(), {"Content-Type": "application/json"}
        )
        secret = key()
        if secret is not None:
            request.add_unredirected_header("Authorization", f"Bearer {secret}")
        late = f"gave no whole answer within {self.timeout_s:g} s"
        reason = ""
        for attempt in range(_TRIES):
            wait = None
            self.turn()
            try:
                with _OPENER.open(request, timeout=self.timeout_s) as response:
                    raw = _whole(response)
                    self._answered.set()
                    found = self._text_in(raw, secret)
                    return found if len(secret or "") < _LEAST_KEY else _without(secret, found)
            except urllib.error.HTTPError as error:
                with error:
                    if error.code not in _AGAIN:
                        raise self._refused(error, secret) from error
                    reason, wait = f"answered {error.code}", _wanted_pause(error)
            except TimeoutError:
                reason = late
            except urllib.error.URLError as error:
                cause = error.reason
                if isinstance(cause, TimeoutError):
                    reason = late
                elif isinstance(cause, _CUT):
                    reason = f"broke off ({type(cause).__name__})"
                elif self._answered.is_set():  # it may be starting again
                    reason = f"cannot be reached any more ({cause})"
                else:
                    raise UserError(
                        f"the endpoint {self.url!r} cannot be reached ({cause})",
                        hint="start it, or correct the address",
                    ) from error
            except (OSError, HTTPException) as error:
                reason = f"broke off ({type(error).__name__})"
            if attempt + 1 < _TRIES:
                self.pause(min(_PAUSE_S * 2**attempt if wait is None else wait, _LONGEST_PAUSE_S))
        raise MachineError(
            f"the endpoint {self.url!r} {reason}, {_TRIES} times",
            hint="resume the job later: what is finished is kept",
        )

    def _text_in(self, raw: bytes, secret: str | None) -> str:
        try:
            found = _text_in(raw)
        except _NoChatError as error:
            self._wrong.append(error)
            if self._spoke.is_set() or len(self._wrong) < _TRIES:
                raise
            said = visible(_without(secret, raw.decode("utf-8", "replace").strip()))[:_TOLD]
            raise UserError(
                f"the endpoint {self.url!r} does not answer as a chat: {said}".rstrip(": "),
                hint="correct the address, e.g. https://host/v1",
            ) from error
        self._spoke.set()
        return found

    def _refused(self, error: urllib.error.HTTPError, secret: str | None) -> UserError:
        if error.code in (401, 403):
            return UserError(
                f"the endpoint {self.url!r} refuses the key", hint=f"set {' or '.join(KEYS)}"
            )
        if error.code == 404:
            return UserError(
                f"the endpoint {self.url!r} has no model {self.model!r}, or no chat there",
                hint="correct the name of the model or the address, e.g. https://host/v1",
            )
        try:
            raw = error.read(_MOST_BYTES)
        except (OSError, HTTPException):  # the status says enough
            raw = b""
        # Before it is shortened, which could leave a part of the key.
        told = visible(_without(secret, raw.decode("utf-8", "replace").strip()))[:_TOLD]
        return UserError(f"the endpoint {self.url!r} answered {error.code}: {told}".rstrip(": "))


def check_endpoint(url: str) -> None:
    """Raises UserError if `url` is not a web address, or would receive the key unencrypted, and for
    a key that cannot be sent."""
    check_address(url)
    parts, secret = urlsplit(url), key()
    if parts.scheme == "http" and parts.hostname not in _LOCAL and secret is not None:
        raise UserError(
            f"{url!r} would get the key unencrypted",
            hint="use https, or unset " + " and ".join(KEYS),
        )


def key() -> str | None:
    """The key in the environment, without space around it. Raises UserError for one that no request
    can hold; it is not shown."""
    for name in KEYS:
        if found := os.environ.get(name, "").strip():
            if not found.isascii() or not found.isprintable():
                raise UserError(
                    f"the key in {name} contains a character that no key has",
                    hint="set it again, e.g. without a line break or a quotation mark",
                )
            return found
    return None


def _without(secret: str | None, text: str) -> str:
    """The text without the key, however it is written in it."""
    if secret is None:
        return text
    in_json = json.dumps(secret)[1:-1]
    for form in (
        secret,
        in_json,
        in_json.replace("/", "\\/"),
        quote(secret, safe=""),
        quote(secret),
    ):
        text = text.replace(form, _REMOVED)
    return text


class _Until(io.RawIOBase):
    """What comes from a socket until its timeout, counted from now on and not from each byte."""

    def __init__(self, source: socket.socket, raw: io.RawIOBase) -> None:
        super().__init__()
        self._source, self._raw = source, raw
        self._end = time.monotonic() + (source.gettimeout() or math.inf)

    def readable(self) -> bool:
        """Always."""
        return True

    def readinto(self, buffer: Any, /) -> int | None:
        """Raises TimeoutError when the time is over."""
        left = self._end - time.monotonic()
        if left <= 0:
            raise TimeoutError
        if math.isfinite(left):
            self._source.settimeout(left)
        return self._raw.readinto(buffer)

    def close(self) -> None:
        """Gives the socket back."""
        self._raw.close()
        super().close()


class _InTime(HTTPResponse):
    """An answer that is late although it never pauses for long is late all the same."""

    def __init__(self, sock: socket.socket, *given: Any, **named: Any) -> None:
        super().__init__(sock, *given, **named)
        self.fp = io.BufferedReader(_Until(sock, self.fp.detach()))


class _Http(urllib.request.HTTPHandler):
    def http_open(self, req: urllib.request.Request) -> HTTPResponse:
        return self.do_open(_in_time(HTTPConnection), req)


class _Https(urllib.request.HTTPSHandler):
    def https_open(self, req: urllib.request.Request) -> HTTPResponse:
        context = getattr(self, "_context", None)  # made once: it reads all certificates
        return self.do_open(_in_time(HTTPSConnection), req, context=context)


def _in_time(kind: type[HTTPConnection]) -> Any:
    def opened(host: str, **given: Any) -> HTTPConnection:
        found = kind(host, **given)
        found.response_class = _InTime
        return found

    return opened


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """A question is not sent on to another address."""

    def redirect_request(
        self, req: Any, fp: Any, code: Any, msg: Any, headers: Any, newurl: Any
    ) -> None:
        return None


_OPENER = urllib.request.build_opener(_NoRedirects, _Http, _Https)


def _wanted_pause(error: urllib.error.HTTPError) -> float | None:
    """How many seconds the server asks to wait."""
    try:
        seconds = float(error.headers.get("Retry-After", ""))
    except ValueError:
        return None
    return seconds if math.isfinite(seconds) and seconds >= 0 else None


def _whole(response: HTTPResponse) -> bytes:
    """Raises ConnectionError for an answer that is shorter than it says, RubbishError for one that
    is too long."""
    raw = response.read(_MOST_BYTES + 1)
    if len(raw) > _MOST_BYTES:
        raise RubbishError("an answer of more than a mebibyte")
    if response.length:
        raise ConnectionError(f"{response.length} bytes are missing")
    return raw


def _text_in(raw: bytes) -> str:
    try:
        found = json.loads(raw)["choices"][0]["message"]["content"]
    except (ValueError, LookupError, TypeError, RecursionError) as error:
        raise _NoChatError("an answer that is not that of a chat") from error
    if not isinstance(found, str):
        raise RubbishError("an answer without text")
    return found
