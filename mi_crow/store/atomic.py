"""Atomic writes: temporary name, sync, rename, sync of the parent.

A temporary name starts with `.tmp-`; readers ignore such names, and whoever holds the lock of a
folder removes stale ones.
"""

import contextlib
import errno
import json
import os
import shutil
import socket
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

from mi_crow.clean_text import clean_text
from mi_crow.store.json_file import read_json as read_json  # beside what writes it

TMP_PREFIX = ".tmp-"
_MOST_NAME = 150  # characters of the target's name: with the rest they fit a file system

_UMASK = os.umask(0)  # it can only be read by setting it: once, before there are threads
os.umask(_UMASK)


def temporary_name(path: Path) -> Path:
    """A new temporary path in the folder of `path`, with its suffix. The name says which process
    writes it, so that others can tell when it has died."""
    pid = os.getpid()
    writer = f"{host_mark()}-{pid}-{process_start(pid)}"
    return path.with_name(f"{TMP_PREFIX}{writer}-{os.urandom(6).hex()}-{path.name[-_MOST_NAME:]}")


@cache
def host_mark() -> str:
    """Six digits that distinguish this machine from others that share the disk."""
    import hashlib

    return hashlib.sha256(socket.gethostname().encode()).hexdigest()[:6]


def process_start(pid: int) -> str:
    """When process `pid` of this machine started, in clock ticks; empty where it does not run or
    that is unknown."""
    try:
        # The name, in brackets, may hold anything; the fields after it are proc(5)'s from 3 on.
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return ""
    return "" if fields[0] in "ZX" else fields[19]


def sync_folder(folder: Path) -> None:
    """Makes renames inside `folder` durable (a no-op where folders cannot be opened)."""
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except OSError:
        return
    try:
        with contextlib.suppress(OSError):
            os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _finish_file(path: Path) -> None:
    """Syncs a file and gives it the permissions of a plain `open`: safetensors makes its files
    readable only for their owner, which a group sharing a workspace cannot use."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):
            os.fchmod(descriptor, 0o666 & ~_UMASK)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def _named_when_full(folder: Path) -> Iterator[None]:
    """A write that finds its disk full does not say which: the error names the folder from here
    on, which may be on another disk than the workspace."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT) and error.filename is None:
            error.filename = str(folder)
        raise


@contextlib.contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Gives a temporary path to write; renames it to `path` when the block ends without error."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = temporary_name(path)
    try:
        with _named_when_full(path.parent):
            yield temporary
            _finish_file(temporary)
        os.replace(temporary, path)
        sync_folder(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def whole_folder(path: Path) -> Iterator[Path]:
    """Gives a temporary folder to fill; renames it to `path` when the block ends without error.

    Raises FileExistsError when `path` exists by then.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = temporary_name(path)
    temporary.mkdir()
    try:
        with _named_when_full(path.parent):
            yield temporary
            for entry in temporary.rglob("*"):
                sync_folder(entry) if entry.is_dir() else _finish_file(entry)
        sync_folder(temporary)
        if path.exists():  # an empty folder would be replaced silently
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(path))
        os.rename(temporary, path)
        sync_folder(path.parent)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def write_bytes(path: Path, data: bytes) -> None:
    """Writes `data` to `path` atomically."""
    with whole_file(path) as temporary:
        temporary.write_bytes(data)


def write_json(path: Path, value: Any) -> None:
    """Writes `value` as indented JSON to `path` atomically."""
    text = json.dumps(value, indent=2, ensure_ascii=False) + "\n"
    write_bytes(path, clean_text(text).encode())


def remove_stale(folder: Path) -> None:
    """Removes what killed writers left directly in `folder`. Call with its lock held."""
    for entry in folder.glob(f"{TMP_PREFIX}*"):
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry, ignore_errors=True)
        else:
            entry.unlink(missing_ok=True)
