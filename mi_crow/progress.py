"""Progress of long work: the one interface between the library and its viewers.

Long-running library functions accept a `Progress` and call it; behind it is a job, a bar or a
test.
"""

from collections.abc import Mapping
from typing import Protocol

from mi_crow.errors import CancelledError

LOADING = "loading the model"
OF_WEIGHTS = " of weights in "  # in the line that says what a model takes, before it is loaded


class Progress(Protocol):
    """What long work calls while it runs, from any of its threads. Calls are cheap: the receiver
    throttles them.
    """

    def update(
        self, done: int, total: int, unit: str, metrics: Mapping[str, float] | None = None
    ) -> None:
        """`done` of `total` `unit`s are finished; `metrics` are the latest readings by name."""
        ...

    def log(self, message: str) -> None:
        """One line for the log."""
        ...

    def checkpoint(self, name: str) -> None:
        """Everything up to here survives a kill; `name` says where (`step-400`, `part-3`)."""
        ...

    def should_stop(self) -> bool:
        """True once the work has been asked to save and stop."""
        ...


class NullProgress:
    """A `Progress` that does nothing."""

    def update(
        self, done: int, total: int, unit: str, metrics: Mapping[str, float] | None = None
    ) -> None:
        pass

    def log(self, message: str) -> None:
        pass

    def checkpoint(self, name: str) -> None:
        pass

    def should_stop(self) -> bool:
        return False


def raise_if_stopped(progress: Progress, *, resumable: bool = True) -> None:
    """Raises CancelledError when `progress` was asked to stop."""
    if progress.should_stop():
        raise CancelledError(resumable=resumable)


def several(unit: str) -> str:
    """The plural of what work counts in: `steps`, `tries`, `batches`."""
    if not unit.islower() or unit.endswith("s"):
        return unit
    if unit.endswith("ch"):
        return f"{unit}es"
    return f"{unit[:-1]}ies" if unit.endswith("y") else f"{unit}s"


def counted(number: float, unit: str) -> str:
    """So many of a thing: `1 text`, `1,200 texts`."""
    return f"{number:,.0f} {unit if number == 1 else several(unit)}"


def done_of(done: float, total: float, unit: str) -> str:
    """How far work is: `1,200 of 5,000 steps`, `48%`."""
    if unit == "%":
        return f"{100 * done / max(total, 1):.0f}%"
    return f"{done:,.0f} of {counted(total, unit)}"
