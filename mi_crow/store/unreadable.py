"""What stands in a workspace and cannot be read: one row that says why and hides no other."""

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from mi_crow.causes import sentence_of


@dataclass(frozen=True)
class Unreadable:
    """A run, an SAE or a job whose files cannot be read or understood."""

    what: str  # run | SAE | job
    name: str  # of its folder
    reason: str  # one sentence

    @classmethod
    def because(cls, what: str, folder: Path, error: BaseException) -> "Unreadable":
        return cls(what, folder.name, sentence_of(error))


def folders_with(parent: Path, marker: str, what: str) -> Iterator[tuple[Path, Unreadable | None]]:
    """The folders in `parent` that hold the file `marker`, by name, and those where that cannot be
    told. Hidden ones and such without it are left out."""
    if not parent.is_dir():
        return
    for entry in sorted(parent.iterdir()):
        if entry.name.startswith("."):
            continue
        try:
            mode = os.stat(entry / marker).st_mode
        except (FileNotFoundError, NotADirectoryError):
            continue
        except OSError as error:  # no right to look into it, a link that leads in a circle, ...
            yield entry, Unreadable.because(what, entry, error)
            continue
        regular = stat.S_ISREG(mode)
        reason = f"{str(entry / marker)!r} is not a file"
        yield entry, None if regular else Unreadable(what, entry.name, reason)
