"""The standard streams: always open, safe for any character, and free of what libraries print."""

import io
import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, TextIO

from mi_crow.errors import UserError

_result: TextIO | None = None


def out() -> TextIO:
    """Where results go: stdout, even while it is hidden from libraries."""
    return sys.stdout if _result is None else _result


def read_input() -> str:
    """All of standard input; bytes that are not text become replacement characters. Raises
    UserError where these are more than a third of it."""
    text = sys.stdin.read()
    if text.count("\ufffd") > len(text) / 3:
        raise UserError("standard input is not text", hint="pipe in UTF-8 text")
    return text


def prepare() -> None:
    """Opens closed streams (else the next file opened would become stdout) and makes sure that no
    character fails: input is UTF-8 where the locale only knows ASCII, and what the terminal cannot
    show is replaced."""
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest free one
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: SIM115
    if isinstance(sys.stdin, io.TextIOWrapper):
        ascii_only = sys.stdin.encoding.lower() in ("ascii", "us-ascii", "ansi_x3.4-1968")
        with suppress(io.UnsupportedOperation):  # read from already
            sys.stdin.reconfigure(
                encoding="utf-8" if ascii_only else sys.stdin.encoding, errors="replace"
            )
    for stream, errors in ((sys.stdout, "replace"), (sys.stderr, "backslashreplace")):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors=errors)


@contextmanager
def silence_libraries(debug: bool) -> Iterator[None]:
    """Drops what libraries print, warn or log inside the block; with `debug` it goes to stderr."""
    global _result
    if debug:
        _result, sys.stdout = sys.stdout, sys.stderr
        try:
            yield
        finally:
            sys.stdout, _result = _result, None
        return
    # Read when the libraries load.
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_VERBOSITY", "error")
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
    _result, sys.stdout = sys.stdout, _Discard(sys.stdout)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            # Libraries set filters of their own.
            warnings.showwarning = lambda *_, **__: None
            yield
    finally:
        sys.stdout, _result = _result, None


def finish() -> None:
    """Flushes the streams, so that a reader that is gone is noticed here."""
    for stream in (sys.stdout, sys.stderr):
        if not stream.closed:
            stream.flush()


def abandon() -> None:
    """Drops buffered output once its reader is gone."""
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):
            target = os.open(os.devnull, os.O_WRONLY)
            os.dup2(target, stream.fileno())
            os.close(target)


class _Discard(io.TextIOBase):
    """Discards what is written; otherwise looks like the stream it replaces."""

    def __init__(self, real: TextIO) -> None:
        self._real = real

    def write(self, text: str) -> int:
        return len(text)

    def isatty(self) -> bool:
        return self._real.isatty()

    def fileno(self) -> int:
        return self._real.fileno()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)
