"""How much of an import or export is done: bytes downloaded, read and written. Torch-free."""

from typing import Any

from mi_crow.progress import Progress, raise_if_stopped

UNIT, _BYTES = "MB", 1_000_000


class Moved:
    """Counts the bytes that have been moved, and stops where `progress` was asked to stop."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._done = self._total = 0

    def expect(self, rest: int) -> None:
        """So many bytes are still to be moved, all in all. Raises CancelledError."""
        self._total = self._done + rest
        self.add(0)

    def add(self, count: int) -> None:
        """So many bytes more have been moved. Raises CancelledError."""
        raise_if_stopped(self._progress)
        self._done += count
        self._report()

    def finish(self) -> None:
        """Everything is there: it is too late to stop."""
        self._done = self._total
        self._report()

    def _report(self) -> None:
        total = max(round(self._total / _BYTES), 1)
        done = total * self._done // self._total if self._total else 0
        self._progress.update(min(done, total), total, UNIT)


def counting(moved: Moved) -> type[Any]:
    """The class of progress bars for downloads by the Hub's client: draws nothing, only counts."""
    from huggingface_hub.utils import tqdm

    class Counting(tqdm):
        def __init__(self, *arguments: Any, **settings: Any) -> None:
            super().__init__(*arguments, **settings)
            moved.add(settings.get("initial") or 0)  # what an earlier attempt had downloaded

        def update(self, n: float | None = 1) -> bool | None:
            moved.add(int(n or 0))
            return super().update(n)

    return Counting
