"""How far work has come that a command does itself, on a terminal."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from time import monotonic

_EVERY_S = 0.2


@contextmanager
def counted(what: str) -> Iterator[Callable[[int, int], None]]:
    """Gives a function that shows `done` of `total` on one line of stderr, which goes at the end.
    Nothing is shown where stderr is not a terminal."""
    shown = sys.stderr.isatty()
    last = [0.0]

    def report(done: int, total: int) -> None:
        now = monotonic()
        if shown and (done == total or now - last[0] >= _EVERY_S):
            last[0] = now
            sys.stderr.write(f"\r\x1b[K{what}: {done:,} of {total:,}")
            sys.stderr.flush()

    try:
        yield report
    finally:
        if shown:
            sys.stderr.write("\r\x1b[K")
            sys.stderr.flush()
