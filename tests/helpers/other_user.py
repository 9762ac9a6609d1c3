"""A process to which the rights of files apply although root started it: a colleague's.

It stays root, for the interpreter may lie where others cannot look, but without the capabilities
that let root pass by the rights of files. What belongs to somebody else is then somebody else's.
"""

import ctypes
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

SOMEBODY = 12_345  # owns files, and nothing runs as it
_DROPPED = (0, 1, 2, 3)  # CAP_CHOWN, CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH, CAP_FOWNER
_PR_CAPBSET_DROP = 24

needs_root = pytest.mark.skipif(
    sys.platform != "linux" or os.geteuid() != 0, reason="needs root on Linux to be two users"
)


def _drop_capabilities() -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    for capability in _DROPPED:
        if libc.prctl(_PR_CAPBSET_DROP, capability, 0, 0, 0):
            raise OSError(ctypes.get_errno(), "a capability cannot be dropped")


def as_colleague(*arguments: str, umask: int = 0o022) -> subprocess.CompletedProcess[str]:
    """Runs Python with these arguments; a `-c` script or `-m mi_crow ...`."""
    return subprocess.run(
        [sys.executable, *arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
        umask=umask,
        preexec_fn=_drop_capabilities,
    )


def give_away(folder: Path) -> None:
    """Makes all of `folder` somebody else's, of another group, with the rights it has."""
    for root, folders, files in os.walk(folder):
        for name in (root, *(os.path.join(root, one) for one in (*folders, *files))):
            os.chown(name, SOMEBODY, SOMEBODY, follow_symlinks=False)


@contextmanager
def read_only(folder: Path) -> Iterator[None]:
    """`folder` and all in it cannot be written inside the block."""
    if os.geteuid() == 0:
        _mount("--bind", str(folder), str(folder))
        try:
            _mount("-o", "remount,ro,bind", str(folder))
            yield
        finally:
            subprocess.run(["umount", "-l", str(folder)], check=True)
        return
    places = [folder, *folder.rglob("*")]
    modes = [(place, place.stat().st_mode) for place in places]
    for place, mode in modes:
        place.chmod(mode & ~0o222)
    try:
        yield
    finally:
        for place, mode in modes:
            place.chmod(mode)


@contextmanager
def small_disk(folder: Path) -> Iterator[None]:
    """`folder` is a disk of one megabyte inside the block."""
    _mount("-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder))
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def _mount(*arguments: str) -> None:
    done = subprocess.run(["mount", *arguments], capture_output=True, check=False)
    if done.returncode:
        pytest.skip("nothing can be mounted here")
