"""What shows a job's events: a bar on a terminal, plain lines on stderr otherwise."""

import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Protocol

from rich.text import Text

from mi_crow.cli.formatting import reading, time_left
from mi_crow.progress import NullProgress, done_of
from mi_crow.visible import visible

BAR_CELLS = 20
SHOWN_METRICS = ("fvu", "loss", "l0", "dead_share", "tokens_s", "gpu_memory", "memory")


class Display(Protocol):
    """What shows a job's events."""

    def show(self, event: dict[str, Any]) -> None: ...

    def waits(self, what: str) -> None:
        """The queued job is waiting for `what`."""
        ...

    def is_silent(self) -> None:
        """The running job has said nothing for a second."""
        ...


@contextmanager
def display_of(quiet: bool) -> Iterator[Display]:
    """A bar on a terminal, plain lines otherwise."""
    if sys.stderr.isatty():
        with JobBar() as bar:
            yield bar
    else:
        yield PlainLines(quiet)


@contextmanager
def shown_progress(quiet: bool) -> Iterator["ShownProgress"]:
    """The progress of work in this process, on `display_of`."""
    with display_of(quiet) as display:
        yield ShownProgress(display)


class ShownProgress(NullProgress):
    """Work in this process shown as a job's is; it has no checkpoints and is not stopped."""

    def __init__(self, display: Display) -> None:
        self._display = display

    def update(
        self, done: int, total: int, unit: str, metrics: Mapping[str, float] | None = None
    ) -> None:
        event = {"event": "progress", "done": done, "total": total, "unit": unit}
        self._display.show({**event, "metrics": dict(metrics or {})})

    def log(self, message: str) -> None:
        self._display.show({"event": "log", "message": message})


class JobBar:
    """Shows the events of one job as one bar and the lines of its log above it.

    It draws only when something changes, so that a waiting job causes no traffic. While a job says
    nothing, the time that it has left is counted down.
    """

    COUNTS_DOWN_S = 4.0  # of silence: longer than the time between two readings

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        # Only a terminal needs these: they are slow to import.
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn

        self._clock = clock
        self._event: dict[str, Any] = {}  # the latest reading
        self._read_at = 0.0
        self._stage = ""
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
        """Shows what the job is queued for."""
        words = f"queued: waiting for {visible(what)}"
        self._progress.update(self._task, description=words, refresh=True)

    def is_silent(self) -> None:
        silent = self._clock() - self._read_at
        left = self._event.get("eta_s")
        if left is not None and silent >= self.COUNTS_DOWN_S:
            self._draw(self._event | {"eta_s": left - silent if left > silent else None})

    def show(self, event: dict[str, Any]) -> None:
        """Shows one event."""
        name = event["event"]
        if name in ("queued", "resumed"):
            self._event, self._stage = {}, ""
            self._progress.update(self._task, description="queued", refresh=True)
        elif name == "started":
            self._progress.update(self._task, description="running", refresh=True)
        elif name == "log":
            self._console.print(Text(visible(str(event.get("message", "")))))
            if "stage" in event:
                self._stage = event["stage"]
                if self._event:
                    self._draw(self._event)
                else:
                    words = visible(self._stage) or "running"
                    self._progress.update(self._task, description=words, refresh=True)
        elif name == "progress":
            now = self._clock()  # events that are followed late tell when they were written
            self._event, self._read_at = event, min(event.get("t", now), now)
            self._draw(event)

    def _draw(self, reading: dict[str, Any]) -> None:
        self._progress.update(
            self._task,
            completed=reading["done"],
            total=max(reading["total"], 1),
            description=describe(reading, self._console.width - BAR_CELLS - 7, self._stage),
            refresh=True,
        )


def describe(event: dict[str, Any], room: int, stage: str = "") -> str:
    """The text beside the bar, as much as fits: what the job does, where it says so, progress, time
    left and metrics."""
    metrics = _readings_of(event)
    percent_only = event["unit"] == "%"
    words = [stage] if stage else []
    words += [] if percent_only else [done_of(event["done"], event["total"], event["unit"])]
    if event.get("eta_s") is not None:
        words.append(f"{time_left(event['eta_s'])} left")
    words += [reading(key, metrics[key]) for key in SHOWN_METRICS if key in metrics]
    while len("  ".join(words)) > room and len(words) > 1:
        words.pop()
    return visible("  ".join(words))


def _readings_of(event: dict[str, Any]) -> dict[str, float]:
    """The metrics of an event; a loss that is the FVU is not one of its own."""
    metrics = dict(event.get("metrics") or {})
    if "loss" in metrics and metrics["loss"] == metrics.get("fvu"):
        del metrics["loss"]
    return metrics


class PlainLines:
    """Progress as plain lines on stderr, at most one every ten seconds; none when quiet.

    What a job is waiting for is repeated every fifteen seconds.
    """

    GAP_S = 10.0
    WAIT_GAP_S = 15.0

    def __init__(self, quiet: bool, clock: Callable[[], float] = time.monotonic) -> None:
        self._quiet = quiet
        self._clock = clock
        self._last = -self.GAP_S
        self._waited, self._wait_said = "", 0.0

    def is_silent(self) -> None:
        pass  # the next line says more

    def waits(self, what: str) -> None:
        now = self._clock()
        if self._quiet or (what == self._waited and now - self._wait_said < self.WAIT_GAP_S):
            return
        again = "still " if what == self._waited else ""
        self._waited, self._wait_said = what, now
        self._write(f"queued: {again}waiting for {what}")

    def show(self, event: dict[str, Any]) -> None:
        if self._quiet:
            return
        if event["event"] == "log":
            self._write(str(event.get("message", "")))
        elif event["event"] == "progress" and self._clock() - self._last >= self.GAP_S:
            self._last = self._clock()
            readings = (reading(name, one, 4) for name, one in _readings_of(event).items())
            done = done_of(event["done"], event["total"], event["unit"])
            self._write("  ".join([done, *readings]))

    def _write(self, line: str) -> None:
        sys.stderr.write(f"{visible(line)}\n")
        sys.stderr.flush()
