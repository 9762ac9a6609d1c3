"""A chat model behind an OpenAI-compatible endpoint: asked one question at a time, patiently.

The key comes from the environment and is kept nowhere. Torch-free; only the standard library.
"""

import json
import math
import os
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

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


class RubbishError(Exception):
    """An answer that is not what was asked for."""


@dataclass(frozen=True)
class Endpoint:
    """Where a chat model is, as `https://host/v1`, and its name there."""

    url: str
    model: str
    timeout_s: float = 60.0
    pause: Callable[[float], None] = field(default=time.sleep, repr=False)

    @property
    def address(self) -> str:
        """Where questions are posted to."""
        base = self.url.rstrip("/")
        return base if base.endswith("/chat/completions") else f"{base}/chat/completions"

    def ask(self, question: str) -> str:
        """The model's answer. A busy server is asked again, after as long as it says.

        Raises UserError for an address, key or model that it refuses, MachineError where it stays
        busy or silent, RubbishError for an answer that holds no text.
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
        reason = ""
        for attempt in range(_TRIES):
            try:
                with _OPENER.open(request, timeout=self.timeout_s) as response:
                    return _text_in(response.read(_MOST_BYTES))
            except urllib.error.HTTPError as error:
                with error:
                    if error.code not in _AGAIN:
                        raise self._refused(error) from error
                    reason, wait = f"answered {error.code}", _wanted_pause(error)
            except TimeoutError:
                reason, wait = f"said nothing for {self.timeout_s:g} s", None
            except urllib.error.URLError as error:
                if not isinstance(error.reason, TimeoutError):
                    raise UserError(
                        f"the endpoint {self.url!r} cannot be reached ({error.reason})",
                        hint="start it, or correct the address",
                    ) from error
                reason, wait = f"said nothing for {self.timeout_s:g} s", None
            except OSError as error:
                reason, wait = f"broke off ({type(error).__name__})", None
            if attempt + 1 < _TRIES:
                self.pause(min(_PAUSE_S * 2**attempt if wait is None else wait, _LONGEST_PAUSE_S))
        raise MachineError(
            f"the endpoint {self.url!r} {reason}, {_TRIES} times",
            hint="resume the job later: what is finished is kept",
        )

    def _refused(self, error: urllib.error.HTTPError) -> UserError:
        told = visible(error.read(_MOST_BYTES).decode("utf-8", "replace").strip())[:_TOLD]
        if error.code in (401, 403):
            return UserError(
                f"the endpoint {self.url!r} refuses the key", hint=f"set {' or '.join(KEYS)}"
            )
        if error.code == 404:
            return UserError(
                f"the endpoint {self.url!r} has no model {self.model!r}, or no chat there",
                hint="correct the name of the model or the address, e.g. https://host/v1",
            )
        return UserError(f"the endpoint {self.url!r} answered {error.code}: {told}")


def check_endpoint(url: str) -> None:
    """Raises UserError if `url` is not a web address, or would receive the key unencrypted."""
    check_address(url)
    parts = urlsplit(url)
    if parts.scheme == "http" and parts.hostname not in _LOCAL and key() is not None:
        raise UserError(
            f"{url!r} would get the key unencrypted",
            hint="use https, or unset " + " and ".join(KEYS),
        )


def key() -> str | None:
    """The key in the environment."""
    return next((os.environ[name] for name in KEYS if os.environ.get(name)), None)


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """A question is not sent on to another address."""

    def redirect_request(
        self, req: Any, fp: Any, code: Any, msg: Any, headers: Any, newurl: Any
    ) -> None:
        return None


_OPENER = urllib.request.build_opener(_NoRedirects)


def _wanted_pause(error: urllib.error.HTTPError) -> float | None:
    """How many seconds the server asks to wait."""
    try:
        seconds = float(error.headers.get("Retry-After", ""))
    except ValueError:
        return None
    return seconds if math.isfinite(seconds) and seconds >= 0 else None


def _text_in(raw: bytes) -> str:
    try:
        found = json.loads(raw)["choices"][0]["message"]["content"]
    except (ValueError, LookupError, TypeError) as error:
        raise RubbishError(visible(raw[:_TOLD].decode("utf-8", "replace"))) from error
    if not isinstance(found, str):
        raise RubbishError("an answer without text")
    return found
