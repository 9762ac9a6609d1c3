"""Space on a disk and in memory: checked before large work, explained when it runs out."""

import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mi_crow.causes import disk_is_full, out_of_memory
from mi_crow.errors import MiCrowError, UserError

_SPARE = 64 << 20  # bytes that stay free


def check_disk(folder: Path, needed: int, what: str) -> None:
    """Raises UserError when the disk of `folder`, which need not exist, lacks space for `needed`
    bytes."""
    place = nearest_existing(folder)
    free = shutil.disk_usage(place).free
    if needed + _SPARE > free:
        raise UserError(
            f"{what} needs {gigabytes(needed)}, {str(place)!r} has {gigabytes(free)} available",
            hint="free some space there or choose another disk",
        )


def same_disk(one: Path, other: Path) -> bool:
    """Whether two folders, which need not exist, are or will be on one file system."""
    return nearest_existing(one).stat().st_dev == nearest_existing(other).stat().st_dev


def nearest_existing(folder: Path) -> Path:
    """The folder itself or its nearest parent that exists."""
    whole = folder.absolute()
    return next(one for one in (whole, *whole.parents) if one.exists())


def check_memory(needed: int, what: str) -> None:
    """Raises UserError when less than `needed` bytes of memory are available, where that is
    known."""
    free = available_memory()
    if free is not None and needed > free:
        raise UserError(
            f"{what} needs {gigabytes(needed)} of memory, {gigabytes(free)} are available",
            hint="use a machine with more memory, or --dtype bf16",
        )


@contextmanager
def explain_shortage(doing: str, hint: str, folder: Path | None = None) -> Iterator[None]:
    """Turns running out of memory, or of the disk of `folder`, into one sentence.

    `doing` ends it (`indexing 'sae' on cuda`); `hint` says what to lower. Raises UserError.
    """
    try:
        yield
    except MiCrowError:
        raise
    except Exception as error:
        if out_of_memory(error):
            raise UserError(f"out of memory while {doing}", hint=hint) from error
        if folder is not None and disk_is_full(error):
            raise UserError(
                f"the disk of {str(folder)!r} ran full while {doing}", hint="free some space there"
            ) from error
        raise


def available_memory() -> int | None:
    """Bytes that new programs can use without swapping; None where the system does not say."""
    try:
        text = Path("/proc/meminfo").read_text()
    except OSError:
        return None
    match = re.search(r"MemAvailable:\s+(\d+) kB", text)
    return None if match is None else int(match[1]) * 1024


def gigabytes(count: int) -> str:
    """`20.1 GB`, or megabytes below one."""
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.0f} MB"
