"""Annotations that can be read and not written: what stands in the way, and a copy to read from.

SQLite itself wants to write beside a file that it reads (the write-ahead log's index); on a full or
read-only disk it cannot, and in a colleague's folder the colleague could not write it afterwards.
So the file is copied into memory, and copied again when it has changed.
"""

import os
import shutil
import sqlite3
import tempfile
import time
from pathlib import Path

from mi_crow.errors import UserError

_LEAST_FREE = 1 << 17  # bytes: the log's index and some pages
_TRIES = 20
_LOGS = ("-wal", "-journal")  # what SQLite keeps beside a file and has not yet put into it

Marks = tuple[tuple[int, int, int, int], ...]


def write_obstacle(path: Path) -> str | None:
    """Why the annotations at `path`, which need not exist, cannot be written; None where nothing is
    known to stand in the way. Opens nothing: closing a file would end SQLite's locks on it."""
    folder = path.parent
    while not folder.exists():
        folder = folder.parent
    try:
        if os.statvfs(folder).f_flag & os.ST_RDONLY:
            return "the file system is read-only"
        if not os.access(folder, os.W_OK | os.X_OK):
            return f"you may not write to {str(folder)!r}"
        if path.exists() and not os.access(path, os.W_OK):
            return f"you may not write to {str(path)!r}"
        if shutil.disk_usage(folder).free < _LEAST_FREE:
            return "the disk is full"
    except OSError as error:
        return str(error.strerror)
    return None


def tagging_is_off(path: Path, reason: str) -> UserError:
    """What whoever wants to write is told."""
    return UserError(
        f"tagging is off: {path.name!r} cannot be written ({reason})",
        hint="names, notes and presets can be read; make it writable to change them",
    )


def marks_of(path: Path) -> Marks:
    """What differs after every change of the file or its logs; () without the file."""
    found = []
    for name in (path, *(path.with_name(path.name + log) for log in _LOGS)):
        try:
            status = os.stat(name)
        except OSError:
            continue
        found.append((status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns))
    return tuple(found) if path.exists() else ()


def snapshot(path: Path) -> tuple[sqlite3.Connection, Marks]:
    """A copy of the file in memory, with what its logs hold, and the marks that it was copied at.

    Raises OSError, and sqlite3.Error where the file is not a database.
    """
    before = marks_of(path)
    for _ in range(_TRIES):
        copy = _copy(path)
        after = marks_of(path)
        if after == before:
            return copy, after
        copy.close()  # somebody wrote meanwhile
        before = after
        time.sleep(0.01)
    raise UserError(f"{str(path)!r} changes too fast to be read", hint="try again")


def _copy(path: Path) -> sqlite3.Connection:
    logs = [path.with_name(path.name + log) for log in _LOGS]
    held = [log for log in logs if log.exists() and log.stat().st_size]
    memory = sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False)
    try:
        if not held:
            data = bytearray(path.read_bytes())
            data[18:20] = b"\x01\x01"  # the journal mode: memory has no write-ahead log
            memory.deserialize(bytes(data)) if len(data) > 100 else None
            return memory
        with tempfile.TemporaryDirectory() as folder:
            whole = Path(folder) / path.name
            for one in (path, *held):
                shutil.copyfile(one, whole.with_name(one.name))
            source = sqlite3.connect(whole, isolation_level=None)
            try:
                source.backup(memory)
            finally:
                source.close()
        return memory
    except BaseException:
        memory.close()
        raise
