"""How memory comes to this process and goes: what is freed goes back to the system, and garbage is
looked for where it may be.

Each thread would get a heap of the C library's own, and large blocks, such as the columns that a
search reads, would stay in these heaps after their end: a third of what the app takes.
"""

import ctypes
import gc
import sys
from functools import cache
from time import monotonic
from typing import Final

_ARENAS: Final = (-8, 2)  # heaps for all threads together
_MAPPED: Final = (-3, 1 << 17)  # bytes from which a block is mapped, and unmapped when freed
_TRIMMED: Final = (-1, 1 << 17)  # free bytes at the end of a heap that are kept

_YOUNG: Final = 1_000  # objects made since the last look at the young ones
_MIDDLE: Final = 10  # looks at the young ones, after which those that stayed are looked at
_NEVER: Final = 1 << 30
_OFTEN: Final = 1  # looks at those that stayed, after which there may be garbage among them
_APART_S: Final = 20.0  # between looks through everything, while a job goes on reporting itself
_MOST_KEPT: Final = 120  # times: then what a closed popup took is given back at any rest

AT_REST_S: Final = 0.4  # without a key
LONG_REST_S: Final = 5.0


def keep_little() -> None:
    """Sets that, where the C library is glibc; before threads start."""
    library = _c_library()
    if library is not None and hasattr(library, "mallopt"):
        for setting in (_ARENAS, _MAPPED, _TRIMMED):
            library.mallopt(*setting)


@cache
def _c_library() -> ctypes.CDLL | None:
    """The C library of this process, where there may be glibc."""
    if not sys.platform.startswith("linux"):
        return None
    try:
        return ctypes.CDLL(None)
    except OSError:
        return None


class Garbage:
    """What has lived for long and may be garbage by now. Soon after a key only what is new among it
    is looked through, which takes some milliseconds; all of it, which takes 100 and more, once
    nobody has typed for longer."""

    def __init__(self) -> None:
        self._begun = False
        self._kept = 0  # times that what was there was not looked through again
        self._all_at = -_APART_S  # when it was

    def begin(self) -> None:
        """Lets Python look for garbage from now on, but not in what is there by now, and by itself
        only in what was just made."""
        gc.freeze()
        gc.set_threshold(_YOUNG, _MIDDLE, _NEVER)
        gc.enable()
        self._begun = True

    def look_at_rest(self, rested_s: float) -> None:
        """Looks through what has lived for long, `rested_s` after the last key, and gives back what
        is free within the heaps."""
        if not self._begun or rested_s < AT_REST_S:
            return
        long = rested_s >= LONG_REST_S and monotonic() - self._all_at >= _APART_S
        if self._kept > (0 if long else _MOST_KEPT):
            gc.unfreeze()
            self._kept, self._all_at = -1, monotonic()
        elif gc.get_count()[2] < _OFTEN:
            return
        gc.collect()
        gc.freeze()
        self._kept += 1
        _trim()


def _trim() -> None:
    """By itself the C library only gives back the end of a heap: up to 12 of 40 MB stay."""
    library = _c_library()
    if library is not None and hasattr(library, "malloc_trim"):
        library.malloc_trim(0)
