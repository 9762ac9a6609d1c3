"""Where the sockets of open apps are: one file an app, in the user's runtime folder."""

import os
import secrets
import socket
import stat
import struct
from pathlib import Path

from mi_crow.errors import MiCrowError
from mi_crow.store.runtime_folder import known_runtime_folders, runtime_folder

_PREFIX, _SUFFIX = "app-", ".sock"
_MOST_PATH = 103  # bytes of a socket's path where the system takes the fewest


def bind_socket() -> tuple[socket.socket, Path]:
    """A listening socket that only this user can connect to, and its path.

    Nobody sees it before it has its permissions and listens, so one that refuses is a dead one.
    Raises MiCrowError and OSError.
    """
    folder = runtime_folder()
    folder.chmod(0o700)
    path = folder / f"{_PREFIX}{secrets.token_hex(6)}{_SUFFIX}"
    hidden = path.with_suffix("")
    if len(os.fsencode(path)) > _MOST_PATH:
        raise MiCrowError(
            f"the path of a socket in {str(folder)!r} is too long",
            hint="set XDG_RUNTIME_DIR to a folder with a shorter path",
        )
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        listening.bind(str(hidden))
        hidden.chmod(0o600)
        listening.listen()
        hidden.rename(path)
    except OSError:
        listening.close()
        hidden.unlink(missing_ok=True)
        raise
    return listening, path


def sockets() -> list[Path]:
    """The sockets of this user, also those that a dead app left."""
    found = []
    for folder in known_runtime_folders():
        for path in sorted(folder.glob(f"{_PREFIX}*{_SUFFIX}")):
            try:
                status = path.lstat()
            except OSError:
                continue
            if stat.S_ISSOCK(status.st_mode) and status.st_uid == os.getuid():
                found.append(path)
    return found


def is_of_this_user(connection: socket.socket) -> bool:
    """Whether a process of this user is at the other end. Where the system does not tell, only the
    permissions of the socket and its folder keep others out."""
    option = getattr(socket, "SO_PEERCRED", None)
    if option is None:
        return True
    found = connection.getsockopt(socket.SOL_SOCKET, option, struct.calcsize("3i"))
    _, uid, _ = struct.unpack("3i", found)  # between the process and its group
    return uid == os.getuid()
