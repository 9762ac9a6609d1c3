"""A job's progress bar on the terminal."""

from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn
from rich.text import Text

from mi_crow.cli.text import duration, number, visible

_SHOWN_METRICS = ("loss", "fvu", "l0", "dead_share", "tokens_s")


class JobBar:
    """Shows the events of one job as one bar and the lines of its log above it."""

    def __init__(self) -> None:
        self._console = Console(stderr=True, markup=False, highlight=False, emoji=False)
        self._progress = Progress(
            BarColumn(bar_width=24),
            TextColumn("{task.percentage:>3.0f}%"),
            TextColumn("{task.description}", markup=False),
            console=self._console,
            transient=True,
            refresh_per_second=4,
        )
        self._task = self._progress.add_task("starting", total=None)

    def __enter__(self) -> "JobBar":
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def show(self, event: dict[str, Any]) -> None:
        """Takes in one event."""
        name = event["event"]
        if name in ("queued", "resumed"):
            self._progress.update(self._task, description="queued")
        elif name == "started":
            self._progress.update(self._task, description="running")
        elif name == "log":
            self._console.print(Text(visible(str(event.get("message", "")))))
        elif name == "progress":
            self._progress.update(
                self._task,
                completed=event["done"],
                total=event["total"] or None,
                description=describe(event),
            )


def describe(event: dict[str, Any]) -> str:
    """The words beside the bar: how far, how fast, how long still, and the readings."""
    metrics = event.get("metrics") or {}
    words = [f"{event['done']:,}/{event['total']:,} {event['unit']}"]
    if event["unit"] == "%":
        words = []
    if event.get("eta_s") is not None:
        words.append(f"{duration(event['eta_s'])} left")
    words += [f"{key} {number(metrics[key], 3)}" for key in _SHOWN_METRICS if key in metrics]
    return "  ".join(words)
