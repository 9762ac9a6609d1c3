"""Annotations on disks of every kind: why they cannot be written, and a copy to read from.

SQLite itself wants to write beside a file that it reads (the write-ahead log's index); on a full or
read-only disk it cannot, and in a colleague's folder the colleague could not write it afterwards.
So the file is copied into memory, and copied again when it has changed.
"""

import os
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from mi_crow.errors import UserError

_LEAST_FREE = 1 << 17  # bytes: the log's index and some pages
_TRIES = 20
_FULL = "the disk is full"
_LOGS = ("-wal", "-journal")  # what SQLite keeps beside a file and has not yet put into it

Marks = tuple[tuple[int, int, int, int], ...]


def write_obstacle(path: Path) -> str | None:
    """Why the annotations at `path`, which may not exist yet, cannot be written; None if nothing is
    known to prevent it. Opens nothing: closing a file would end SQLite's locks on it."""
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
            return _FULL
    except OSError as error:
        return str(error.strerror)
    return None


def cannot_be_written(path: Path, reason: str) -> UserError:
    """The error for whoever wants to write."""
    first = "free some space" if reason == _FULL else "make the file writable"
    return UserError(
        f"nothing can be named or saved: {path.name!r} cannot be written ({reason})",
        hint=f"what is in it can still be read; {first} to change it",
    )


def marks_of(path: Path) -> Marks:
    """What changes whenever the file or its logs do; () without the file."""
    found = []
    for name in (path, *(path.with_name(path.name + log) for log in _LOGS)):
        try:
            status = os.stat(name)
        except OSError:
            continue
        found.append((status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns))
    return tuple(found) if path.exists() else ()


def snapshot(path: Path) -> tuple[sqlite3.Connection, Marks]:
    """A copy of the file in memory, its logs included, and the marks it was copied at.

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


def file_system(folder: Path) -> str:
    """The type of the file system that `folder` is on, '' when it is not known."""
    try:
        if sys.platform == "darwin":
            done = subprocess.run(["mount"], capture_output=True, text=True, timeout=5, check=False)
            mounts = parse_mount(done.stdout)
        else:
            mounts = parse_mountinfo(Path("/proc/self/mountinfo").read_text("utf-8", "replace"))
    except (OSError, subprocess.SubprocessError, UnicodeDecodeError):
        return ""
    resolved = os.path.realpath(folder)
    holding = [
        (len(point), at, kind)
        for at, (point, kind) in enumerate(mounts)
        if resolved == point or resolved.startswith(point.rstrip("/") + "/")
    ]
    return max(holding)[2] if holding else ""


def parse_mountinfo(text: str) -> list[tuple[str, str]]:
    """(mount point, type) of each line of Linux's mountinfo, in order of mounting."""
    mounts = []
    for line in text.splitlines():
        left, separator, right = line.partition(" - ")
        fields = left.split()
        if separator and len(fields) > 4:
            # Blanks are written as octal escapes.
            point = fields[4].replace("\\040", " ").replace("\\011", "\t").replace("\\134", "\\")
            mounts.append((point, right.split()[0]))
    return mounts


def parse_mount(text: str) -> list[tuple[str, str]]:
    """(mount point, type) of each line that macOS's `mount` prints: `dev on /x (apfs, ...)`."""
    mounts = []
    for line in text.splitlines():
        _, found, rest = line.partition(" on ")
        point, opened, options = rest.rpartition(" (")
        if found and opened:
            mounts.append((point, options.split(",")[0].rstrip(")")))
    return mounts
