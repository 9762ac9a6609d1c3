"""Leftovers of killed writers: temporary files and folders that nobody writes to any more.

Their names identify the process that made them. Files of a running process are left alone, and
those of other machines until they are old.
"""

import contextlib
import os
import re
import shutil
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from mi_crow.store.atomic import TMP_PREFIX, host_mark, process_start
from mi_crow.store.workspace import folder_bytes

# As `temporary_name` makes them: machine, process, its start, and the end of the target's name.
_MARKED = re.compile(
    re.escape(TMP_PREFIX) + r"([0-9a-f]{6})-(\d+)-(\d*)-[0-9a-f]{12}-(.*)", re.DOTALL
)
# Scratch folders of jobs, which clean up their own under a lock.
_OF_JOBS = (f"{TMP_PREFIX}index-", f"{TMP_PREFIX}ranks-", f"{TMP_PREFIX}vector-")
_OLD_S = 24 * 3600.0


@dataclass(frozen=True)
class Leftover:
    """One temporary file or folder without a writer."""

    path: Path
    bytes: int


def leftovers(root: Path) -> Iterator[Leftover]:
    """All leftovers below `root`; links are not followed."""
    for folder, names, files in os.walk(root):
        for name in (*names, *files):
            if name.startswith(TMP_PREFIX) and not _is_live(path := Path(folder, name)):
                yield Leftover(path, _bytes(path))
        names[:] = [name for name in names if not name.startswith(TMP_PREFIX)]


def beside(target: Path) -> Iterator[Leftover]:
    """Leftovers of killed writers of `target`, in its folder."""
    with contextlib.suppress(OSError):
        for path in target.parent.glob(f"{TMP_PREFIX}*"):
            match = _MARKED.fullmatch(path.name)
            if match and target.name.endswith(match[4]) and not _is_live(path):
                yield Leftover(path, _bytes(path))


def remove(found: Iterable[Leftover]) -> list[Leftover]:
    """Removes leftovers; returns those that are gone."""
    gone = []
    for one in found:
        if one.path.is_dir() and not one.path.is_symlink():
            shutil.rmtree(one.path, ignore_errors=True)
        else:
            with contextlib.suppress(OSError):
                one.path.unlink()
        if not os.path.lexists(one.path):
            gone.append(one)
    return gone


def _is_live(path: Path) -> bool:
    match = _MARKED.fullmatch(path.name)
    if match is None:
        return (path.name.startswith(_OF_JOBS) and _age(path) < _OLD_S) or _is_open(path)
    host, pid, start = match[1], int(match[2]), match[3]
    if host != host_mark():
        return _age(path) < _OLD_S
    return process_start(pid) == start if start else _is_there(pid)


def _is_there(pid: int) -> bool:
    """Whether a process with this id exists, for systems without start times."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True


def _age(path: Path) -> float:
    """Seconds since anything in it changed."""
    newest = 0.0
    with contextlib.suppress(OSError):
        newest = path.lstat().st_mtime
    for folder, _, files in os.walk(path):
        for name in files:
            with contextlib.suppress(OSError):
                newest = max(newest, os.lstat(os.path.join(folder, name)).st_mtime)
    return time.time() - newest


def _is_open(path: Path) -> bool:
    """Whether a process of this machine, as far as visible, has it or a file in it open."""
    wanted = os.path.realpath(path)
    return any(one == wanted or one.startswith(f"{wanted}{os.sep}") for one in _open_files())


def _open_files() -> frozenset[str]:
    found = set()
    for folder in Path("/proc").glob("[0-9]*/fd"):
        with contextlib.suppress(OSError):
            for entry in os.scandir(folder):
                with contextlib.suppress(OSError):
                    found.add(os.readlink(entry.path))
    return frozenset(found)


def _bytes(path: Path) -> int:
    with contextlib.suppress(OSError):
        if not path.is_dir() or path.is_symlink():
            return path.lstat().st_size
    return folder_bytes(path)
