"""Opening files that others may have replaced with something else.

A pipe would block and a device be read forever; a folder or a circular link has no content. All of
them are refused in one sentence.
"""

import errno
import os
import stat
from pathlib import Path
from typing import BinaryIO

from mi_crow.errors import CorruptDataError

_NO_FILE = (errno.EISDIR, errno.ENXIO, errno.ELOOP, errno.ENODEV)


def open_plain(path: Path, flags: int) -> int:
    """A descriptor of the file at `path`; a new file gets permissions by the umask.

    Raises CorruptDataError when it is not a file, OSError when the system refuses.
    """
    try:
        descriptor = os.open(path, flags | os.O_CLOEXEC | os.O_NONBLOCK, 0o666)
    except OSError as error:
        if error.errno in _NO_FILE:
            raise CorruptDataError(f"{str(path)!r} is not a file") from error
        raise
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise CorruptDataError(f"{str(path)!r} is not a file")
    return descriptor


def read_plain(path: Path) -> BinaryIO:
    """The file at `path`, open for reading. Raises as `open_plain`."""
    return os.fdopen(open_plain(path, os.O_RDONLY), "rb")
