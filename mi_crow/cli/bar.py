"""A job's progress bar on the terminal."""

from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn
from rich.text import Text

from mi_crow.cli.text import duration, number
from mi_crow.visible import visible

BAR_CELLS = 20
SHOWN_METRICS = ("fvu", "loss", "l0", "dead_share", "tokens_s")


class JobBar:
    """Shows the events of one job as one bar and the lines of its log above it.

    It draws only when there is news, so that a waiting job sends nothing down the line.
    """

    def __init__(self) -> None:
        self._console = Console(stderr=True, markup=False, highlight=False, emoji=False)
        self._progress = Progress(
            BarColumn(bar_width=BAR_CELLS),
            TextColumn("{task.percentage:>3.0f}%"),
            TextColumn("{task.description}", markup=False),
            console=self._console,
            transient=True,
            auto_refresh=False,
        )
        self._task = self._progress.add_task("starting", total=1)

    def __enter__(self) -> "JobBar":
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def waits(self, what: str) -> None:
        """Says what the job is queued for."""
        words = f"queued: waits for {visible(what)}"
        self._progress.update(self._task, description=words, refresh=True)

    def show(self, event: dict[str, Any]) -> None:
        """Takes in one event."""
        name = event["event"]
        if name in ("queued", "resumed"):
            self._progress.update(self._task, description="queued", refresh=True)
        elif name == "started":
            self._progress.update(self._task, description="running", refresh=True)
        elif name == "log":
            self._console.print(Text(visible(str(event.get("message", "")))))
        elif name == "progress":
            self._progress.update(
                self._task,
                completed=event["done"],
                total=max(event["total"], 1),
                description=describe(event, self._console.width - BAR_CELLS - 7),
                refresh=True,
            )


def describe(event: dict[str, Any], room: int) -> str:
    """The words beside the bar, as many as fit: how far, how long still, and the readings."""
    metrics = event.get("metrics") or {}
    percent_only = event["unit"] == "%"
    words = [] if percent_only else [f"{event['done']:,}/{event['total']:,} {event['unit']}"]
    if event.get("eta_s") is not None:
        words.append(f"{duration(event['eta_s'])} left")
    words += [f"{key} {number(metrics[key], 3)}" for key in SHOWN_METRICS if key in metrics]
    while len("  ".join(words)) > room and len(words) > 1:
        words.pop()
    return visible("  ".join(words))
