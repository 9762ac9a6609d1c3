"""What cannot be read in a workspace: one row that says why, without hiding the others."""

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from mi_crow.causes import sentence_of


@dataclass(frozen=True)
class Unreadable:
    """A run, an SAE or a job whose files cannot be read."""

    what: str  # run | SAE | job
    name: str  # of its folder
    reason: str  # one sentence

    @classmethod
    def because(cls, what: str, folder: Path, error: BaseException) -> "Unreadable":
        return cls(what, folder.name, sentence_of(error))


def folders_with(parent: Path, marker: str, what: str) -> Iterator[tuple[Path, Unreadable | None]]:
    """The folders in `parent` that contain the file `marker`, by name, and those where that is
    unknown, with the reason. Others and hidden ones are left out."""
    if not parent.is_dir():
        return
    for entry in sorted(parent.iterdir()):
        if entry.name.startswith("."):
            continue
        try:
            mode = os.stat(entry / marker).st_mode
        except (FileNotFoundError, NotADirectoryError):
            continue
        except OSError as error:  # no permission, a circular link, ...
            yield entry, Unreadable.because(what, entry, error)
            continue
        regular = stat.S_ISREG(mode)
        reason = f"{str(entry / marker)!r} is not a file"
        yield entry, None if regular else Unreadable(what, entry.name, reason)
