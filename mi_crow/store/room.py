"""Whether there is room on a disk, or in memory, before something large is begun."""

import re
import shutil
from pathlib import Path

from mi_crow.errors import UserError

_SPARE = 64 << 20  # bytes that stay free


def check_disk(folder: Path, needed: int, what: str) -> None:
    """Raises UserError when the disk of `folder`, which need not exist, has no room for `needed`
    bytes."""
    place = _existing(folder)
    free = shutil.disk_usage(place).free
    if needed + _SPARE > free:
        raise UserError(
            f"{what} needs {gigabytes(needed)}, and {str(place)!r} has {gigabytes(free)} free",
            hint="make room there or choose another disk",
        )


def same_disk(one: Path, other: Path) -> bool:
    """Whether two folders, which need not exist, are or will be on one file system."""
    return _existing(one).stat().st_dev == _existing(other).stat().st_dev


def _existing(folder: Path) -> Path:
    """The nearest folder that is there."""
    whole = folder.absolute()
    return next(one for one in (whole, *whole.parents) if one.exists())


def check_memory(needed: int, what: str) -> None:
    """Raises UserError when less than `needed` bytes of memory are to be had, where that is
    known."""
    free = available_memory()
    if free is not None and needed > free:
        raise UserError(
            f"{what} needs {gigabytes(needed)} of memory, and {gigabytes(free)} are to be had",
            hint="use a machine with more memory, or --dtype bf16",
        )


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
