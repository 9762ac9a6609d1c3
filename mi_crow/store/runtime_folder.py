"""The user's own folder for what lives as long as a session: queues of devices, sockets of apps."""

import os
import stat
from pathlib import Path
from tempfile import gettempdir

from mi_crow.errors import MiCrowError


def runtime_folder() -> Path:
    """The folder below the user's runtime or temp folder; made if missing.

    Either may be shared: the first one that this user owns or can create is used. Raises
    MiCrowError when others own all of them, or one is a link.
    """
    folders = _places()
    base = next((one for one in folders if one.is_symlink() or _is_ours(one)), folders[-1])
    if base.is_symlink() or not _is_ours(base):
        raise MiCrowError(
            f"{str(base)!r} is a link, belongs to somebody else or cannot be created",
            hint="set XDG_RUNTIME_DIR to a folder that you own",
        )
    return base


def known_runtime_folders() -> list[Path]:
    """Those of this user that exist, wherever a process with another environment may have made
    its own."""
    return [one for one in _places() if not one.is_symlink() and _belongs_to_us(one)]


def _places() -> list[Path]:
    own = f"mi-crow-{os.getuid()}"
    places = [Path(gettempdir()) / own]
    if runtime := os.environ.get("XDG_RUNTIME_DIR"):
        places = [Path(runtime) / "mi-crow", Path(runtime) / own, *places]
    return places


def _is_ours(base: Path) -> bool:
    """Whether the folder is this user's own and can be written to; created when missing."""
    try:
        base.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError:
        return False
    return _belongs_to_us(base) and os.access(base, os.W_OK | os.X_OK)


def _belongs_to_us(base: Path) -> bool:
    try:
        status = base.lstat()
    except OSError:
        return False
    return stat.S_ISDIR(status.st_mode) and status.st_uid == os.getuid()
