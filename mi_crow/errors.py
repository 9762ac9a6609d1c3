"""The error tree: raised where the cause is known, caught once, at the edge.

`exit_code` is what the command line exits with: 2 for what the user can fix, 1 otherwise.
"""

from collections.abc import Iterable
from difflib import get_close_matches
from typing import ClassVar


class MiCrowError(Exception):
    """Anything mi-crow reports in one sentence; `hint` says what would work."""

    exit_code: ClassVar[int] = 1

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint

    @property
    def sentence(self) -> str:
        """The message and its hint as one line."""
        return f"{self}; {self.hint}" if self.hint else str(self)


class UserError(MiCrowError):
    """Bad input that the user can fix."""

    exit_code: ClassVar[int] = 2


class NotFiniteError(UserError):
    """Predictions that are not finite, as under interventions that are far too strong."""


class NotFoundError(UserError):
    """A named thing (run, SAE, layer, feature, job) that does not exist."""


class LayerNotFoundError(NotFoundError, ValueError):
    """A layer that the model does not have; a ValueError too, which the published guides catch."""


class CorruptDataError(MiCrowError):
    """A file that is not what it claims to be."""


class MachineError(MiCrowError):
    """What the system refused: memory, disk space, a permission, another open file. The data is
    not at fault; the same call works once the cause is gone."""


class CancelledError(MiCrowError):
    """The work was asked to stop; `resumable` says whether it can be continued."""

    def __init__(self, message: str = "cancelled", *, resumable: bool = True) -> None:
        super().__init__(message)
        self.resumable = resumable


def exit_code_of(error: BaseException) -> int:
    """What the command line exits with after `error`."""
    return error.exit_code if isinstance(error, MiCrowError) else 1


def nearest(name: str, known: Iterable[str], count: int = 3) -> str:
    """`count` known names, those most like `name` first, for the hint of a NotFoundError:
    `a, b, c and 4 more`."""
    options = list(dict.fromkeys(known))
    close = get_close_matches(name, options, n=count, cutoff=0.3)
    shown = [*close, *(one for one in options if one not in close)][:count]
    more = f" and {len(options) - len(shown)} more" if len(options) > len(shown) else ""
    return ", ".join(shown) + more
