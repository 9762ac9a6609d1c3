"""A progress that remembers what it is told, and asks the work to stop."""

from collections.abc import Mapping

from mi_crow.progress import NullProgress


class Watched(NullProgress):
    """Asks to stop at the look after so many `looks`, once there were so many `updates` or
    `checkpoints`, or once `done` units are finished; without any of them never."""

    def __init__(
        self,
        *,
        looks: int | None = None,
        updates: int | None = None,
        checkpoints: int | None = None,
        done: int | None = None,
    ) -> None:
        self.updates: list[tuple[int, int, str]] = []  # done, total, unit
        self.metrics: dict[str, float] = {}  # the latest
        self.lines: list[str] = []
        self.checkpoints: list[str] = []
        self.looks = 0
        self._most = looks, updates, checkpoints, done

    def update(
        self, done: int, total: int, unit: str, metrics: Mapping[str, float] | None = None
    ) -> None:
        self.updates.append((done, total, unit))
        self.metrics = dict(metrics or {})

    def log(self, message: str) -> None:
        self.lines.append(message)

    def checkpoint(self, name: str) -> None:
        self.checkpoints.append(name)

    def should_stop(self) -> bool:
        done = self.updates[-1][0] if self.updates else 0
        now = self.looks, len(self.updates), len(self.checkpoints), done
        self.looks += 1
        return any(
            most is not None and one >= most for one, most in zip(now, self._most, strict=True)
        )
