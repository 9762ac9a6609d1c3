"""How long work reports itself: the one border between the library and its viewers.

Library functions that take long accept a `Progress` and call it; a job, a progress bar or a
test stands behind it.
"""

from collections.abc import Mapping
from typing import Protocol

from mi_crow.errors import CancelledError


class Progress(Protocol):
    """What long work calls while it runs. Calls are cheap: the receiver does the throttling."""

    def update(
        self, done: int, total: int, unit: str, metrics: Mapping[str, float] | None = None
    ) -> None:
        """`done` of `total` `unit`s are finished; `metrics` holds the latest named readings."""
        ...

    def log(self, message: str) -> None:
        """One line for the log."""
        ...

    def checkpoint(self, name: str) -> None:
        """Everything up to here would survive a kill; `name` says where (`step-400`, `part-3`)."""
        ...

    def should_stop(self) -> bool:
        """True once somebody asked the work to save and stop."""
        ...


class NullProgress:
    """A `Progress` that nobody watches."""

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
