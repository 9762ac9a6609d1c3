"""How memory comes to this process and goes: what is freed goes back to the system, and garbage is
looked for where it may be.

Each thread would get a heap of the C library's own, and large blocks, such as the columns that a
search reads, would stay in these heaps after their end: a third of what the app takes.
"""

import ctypes
import gc
import sys
from functools import cache
from typing import Final

_ARENAS: Final = (-8, 2)  # heaps for all threads together
_MAPPED: Final = (-3, 1 << 17)  # bytes from which a block is mapped, and unmapped when freed
_TRIMMED: Final = (-1, 1 << 17)  # free bytes at the end of a heap that are kept

_YOUNG: Final = 1_000  # objects made since the last look at the young ones
_MIDDLE: Final = 10  # looks at the young ones, after which those that stayed are looked at
_NEVER: Final = 1 << 30
_OFTEN: Final = 1  # looks at those that stayed, after which all are looked at when nobody types


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


def collect_again() -> None:
    """Lets Python look for garbage from now on, but not in what is there by now: that takes 50 ms
    each time, in which no key is answered. What has lived for long is looked through by
    `collect_at_rest` alone."""
    gc.freeze()
    gc.set_threshold(_YOUNG, _MIDDLE, _NEVER)
    gc.enable()


def collect_at_rest() -> None:
    """Looks through what has lived for long, where much was made since the last time, and gives
    back what is free within the heaps."""
    if gc.isenabled() and gc.get_count()[2] >= _OFTEN:
        gc.collect()
        _trim()


def _trim() -> None:
    """By itself the C library only gives back the end of a heap: up to 12 of 40 MB stay."""
    library = _c_library()
    if library is not None and hasattr(library, "malloc_trim"):
        library.malloc_trim(0)
