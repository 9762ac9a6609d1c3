"""The identity of a process, which survives the reuse of process ids, and the lock of a job."""

import ctypes
import errno
import fcntl
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from mi_crow.store.atomic import process_start
from mi_crow.store.json_object import JsonRecord
from mi_crow.store.plain_file import open_plain

LOCK_NAME = "lock"
LOCK_PATIENCE_S = 0.5  # a viewer's probe holds the lock for microseconds, a worker until it ends
LEAVING_S = 5.0  # a worker that has written its closing event releases the lock within this
EXIT_ORPHANED = 1

_PR_SET_PDEATHSIG = 1  # linux/prctl.h
_PARENT_LOOK_S = 0.5


@dataclass(frozen=True)
class ProcessIdentity(JsonRecord):
    """A process that cannot be confused with a later one with the same id."""

    pid: int
    pid_start: str  # when the process started, as the system counts it
    boot_id: str
    host: str

    @classmethod
    def mine(cls) -> "ProcessIdentity":
        pid = os.getpid()
        return cls(pid, pid_start(pid), boot_id(), host_name())

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> "ProcessIdentity | None":
        """The identity in an event or a status, or None when it holds none."""
        try:
            return cls(
                int(data["pid"]), str(data["pid_start"]), str(data["boot_id"]), str(data["host"])
            )
        except (KeyError, TypeError, ValueError):
            return None

    def is_here(self) -> bool:
        """True while this very process runs on this machine."""
        return (
            self.host == host_name()
            and self.boot_id == boot_id()
            and bool(self.pid_start)
            and self.pid_start == pid_start(self.pid)
        )

    def signal(self, number: int = signal.SIGTERM) -> bool:
        """Sends a signal if the process runs here; says whether it was sent."""
        if not self.is_here():
            return False
        try:
            os.kill(self.pid, number)
        except ProcessLookupError:
            return False
        return True


@cache
def host_name() -> str:
    return socket.gethostname()


@cache
def boot_id() -> str:
    """Changes with every boot of the machine; empty where the system does not provide it."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return _ask("sysctl", "-n", "kern.bootsessionuuid")


def pid_start(pid: int) -> str:
    """When process `pid` started, in the system's own unit; empty when it does not run."""
    start = process_start(pid)
    if start or Path("/proc/self").exists():
        return start
    return _ask("ps", "-o", "lstart=", "-p", str(pid))


def die_with(parent: int) -> None:
    """Ends this process when its parent, process `parent`, ends, however that happens.

    Linux does so immediately; elsewhere, or when the parent is already gone, a thread that checks
    twice a second does.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(_PARENT_LOOK_S)
        os._exit(EXIT_ORPHANED)

    threading.Thread(target=watch, name="parent-watcher", daemon=True).start()


def _ask(*command: str) -> str:
    try:
        return subprocess.run(
            command, capture_output=True, text=True, timeout=5, check=False
        ).stdout.strip()
    except (OSError, subprocess.TimeoutExpired):
        return ""


def take_lock(path: Path, patience_s: float = LOCK_PATIENCE_S) -> int | None:
    """The descriptor of `path` under an exclusive lock, or None when somebody else holds it.

    The lock lives as long as a descriptor of this opening does, children's included.
    """
    try:
        descriptor = open_plain(path, os.O_RDWR | os.O_CREAT)
    except PermissionError:  # another user's, whose umask lets us read
        descriptor = open_plain(path, os.O_RDONLY)
    deadline = time.monotonic() + patience_s
    while not _try_flock(descriptor, fcntl.LOCK_EX):
        if time.monotonic() >= deadline:
            os.close(descriptor)
            return None
        time.sleep(0.01)
    return descriptor


def holds_lock(descriptor: int) -> bool:
    """True when an inherited descriptor really has the exclusive lock; takes it when it is free."""
    return _try_flock(descriptor, fcntl.LOCK_EX)


def is_locked(path: Path) -> bool:
    """True while some process holds the exclusive lock on `path`."""
    try:
        descriptor = open_plain(path, os.O_RDONLY)
    except FileNotFoundError:
        return False
    try:
        return not _try_flock(descriptor, fcntl.LOCK_SH)
    finally:
        os.close(descriptor)


def _try_flock(descriptor: int, kind: int) -> bool:
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in (errno.EWOULDBLOCK, errno.EACCES):
            return False
        raise
    return True
