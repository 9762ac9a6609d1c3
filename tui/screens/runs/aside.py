"""What is under the lists of Runs where there is room: the machine, the workspace, a log."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from textual.containers import Vertical
from textual.content import Content
from textual.message import Message

from mi_crow.errors import MiCrowError
from mi_crow.store.workspace import RunSummary, SaeSummary, Workspace
from tui.screens.runs.rows import job_name, job_target
from tui.text import count, printable, progress_bar, size
from tui.widgets.detail_lines import DetailLines
from tui.widgets.facts import blocks, section

if TYPE_CHECKING:
    from mi_crow.jobs import JobState
    from mi_crow.jobs.device_lock import QueueLook
    from mi_crow.jobs.gauges import Gauges

LEAST_HEIGHT = 8  # lines; below, the lists take them
_LOG_LINES = 60
_LEAST_LOG = 4  # lines
_GAUGE_S = 5.0  # the machine is asked this often
_NAME, _BAR = 9, 12  # cells


class ListsPane(Vertical):
    """The lists, and what is under them."""

    class Resized(Message):
        """It has other lines, which are shared anew. A screen that comes back hears of another size
        of the terminal before these are known."""

    def on_resize(self) -> None:
        self.post_message(self.Resized())


class AsidePane(DetailLines, can_focus=False):
    """Only to look at."""


@dataclass(frozen=True)
class Aside:
    """One reading. `busy`: a job runs, so that another reading follows soon."""

    gauges: "Gauges"
    queues: "tuple[QueueLook, ...]" = ()
    busy: bool = False
    title: str = ""
    log: tuple[str, ...] = ()


class AsideReader:
    """Asks the machine now and then; `read` is called from one thread at a time."""

    def __init__(self, workspace: Workspace) -> None:
        self._workspace = workspace
        self._gauges: Gauges | None = None
        self._asked = 0.0

    def read(self, job: "JobState | None", *, busy: bool) -> Aside:
        """What the machine does, and the end of the job's log; without one where it is gone."""
        from mi_crow.jobs import gauges, tail_log

        if self._gauges is None or time.monotonic() - self._asked >= _GAUGE_S:
            self._gauges = gauges.read_gauges(self._workspace.root)
            self._asked = time.monotonic()
        title, log = "", ()
        if job is not None:
            title = f"Log of {job_name(job)} {job_target(job)}".strip()
            try:
                log = tuple(tail_log(self._workspace, job.job_id, _LOG_LINES))
            except (MiCrowError, OSError):
                log = ()
        return Aside(self._gauges, queues(), busy, title, log)


def queues() -> "tuple[QueueLook, ...]":
    """The devices that a job has or waits for, in any workspace."""
    from mi_crow.jobs import device_lock

    return tuple(device_lock.look_at_queues())


def aside_content(
    aside: Aside,
    runs: Sequence[RunSummary],
    saes: Sequence[SaeSummary],
    width: int,
    height: int,
    more: Content | None = None,
) -> Content:
    """The machine, what the workspace holds, `more`, and as much of the log as `height` leaves room
    for."""
    top = blocks(_top(aside, runs, saes, width), more)
    room = height - len(top.plain.splitlines()) - 2
    if not aside.title or room < 1:
        return top
    lines = [printable(line) for line in aside.log[-room:]] or ["empty"]
    log = [Content.styled(line, "$muted").truncate(width, ellipsis=True) for line in lines]
    return blocks(top, section(aside.title, Content("\n").join(log)))


def room_for_more(
    aside: Aside, runs: Sequence[RunSummary], saes: Sequence[SaeSummary], width: int, height: int
) -> int:
    """Lines for what is shown besides, with some of the log left."""
    top = len(_top(aside, runs, saes, width).plain.splitlines())
    return height - top - 2 - (_LEAST_LOG + 2 if aside.title else 0)


def _top(
    aside: Aside, runs: Sequence[RunSummary], saes: Sequence[SaeSummary], width: int
) -> Content:
    machine = section("This machine", Content("\n").join(_machine(aside, width)))
    return blocks(machine, section("This workspace", _holds(runs, saes)))


def _machine(aside: Aside, width: int) -> list[Content]:
    """A line each. What changes by the second only while a job runs: afterwards nobody reads it
    again, and it would be taken for the present."""
    gauges, busy = aside.gauges, aside.busy
    lines: list[Content] = []
    cores = f"{gauges.cores} cores"
    if busy and gauges.load is not None:
        share = gauges.load / max(gauges.cores, 1)
        lines.append(_gauge("CPU", share, f"load {gauges.load:.1f} on {cores}"))
    elif gauges.cores:
        lines.append(_gauge("CPU", None, cores))
    if gauges.memory_total and gauges.memory_used is not None:
        total = size(gauges.memory_total)
        used = f"{size(gauges.memory_used)} of {total}" if busy else total
        share = gauges.memory_used / gauges.memory_total
        lines.append(_gauge("memory", share if busy else None, used))
    for gpu in gauges.gpus:
        words = f"{size(gpu.used)} of {size(gpu.total)}" if busy else size(gpu.total)
        words += f", {100 * gpu.busy:.0f}% busy" if busy and gpu.busy is not None else ""
        share = gpu.used / gpu.total if busy and gpu.total else None
        number, _, name = gpu.name.partition(" ")
        lines.append(_gauge(f"GPU {number}", share, f"{words} · {printable(name)}"))
    if gauges.disk_total and gauges.disk_free is not None:
        share = 1 - gauges.disk_free / gauges.disk_total
        words = f"{size(gauges.disk_free)} of {size(gauges.disk_total)} free"
        lines.append(_gauge("disk", share, words))
    lines += [_gauge("queue", None, _queue(one)) for one in aside.queues]
    return [line.truncate(width, ellipsis=True) for line in lines]


def _gauge(name: str, share: float | None, words: str) -> Content:
    head = (f"{name:<{_NAME}}", "$muted")
    if share is None:
        return Content.assemble(head, words)
    used, free = progress_bar(share, _BAR)
    return Content.assemble(head, (used, "$accent"), (free, "$rule"), f"  {words}")


def _queue(queue: "QueueLook") -> str:
    words = [f"{queue.device}: {queue.job or 'free'}"]
    if queue.waiting:
        words.append(f"{len(queue.waiting)} waiting")
    if queue.workspace:
        words.append(f"workspace {queue.workspace}")
    return printable(" · ".join(words))


def _holds(runs: Sequence[RunSummary], saes: Sequence[SaeSummary]) -> Content:
    tokens = sum(run.manifest.n_tokens for run in runs)
    indexed = sum(sae.has_index for sae in saes)
    evaluated = sum(sae.evaluation is not None for sae in saes)
    lines = [
        ("runs", f"{len(runs)}, {count(tokens)} tokens, {size(sum(run.bytes for run in runs))}"),
        (
            "SAEs",
            f"{len(saes)}, {indexed} indexed, {evaluated} evaluated, "
            f"{size(sum(sae.bytes for sae in saes))}",
        ),
    ]
    return Content("\n").join([_gauge(name, None, words) for name, words in lines])
