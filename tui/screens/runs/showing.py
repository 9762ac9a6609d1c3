"""What is beside the lists of Runs: the selected row in the pane at the right, and the machine
and a log under the lists; read in threads.

What reads and draws a row is imported with the first row: the lists are on the screen before.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING

from textual.content import Content
from textual.timer import Timer

from mi_crow.errors import NotFoundError
from tui.screens.runs.aside import Aside, AsideReader, aside_content, queues, room_for_more
from tui.screens.runs.rows import WHAT
from tui.widgets.detail_lines import DetailLines
from tui.widgets.facts import blocks
from tui.widgets.trouble import trouble_content

if TYPE_CHECKING:
    from mi_crow.jobs import JobState
    from mi_crow.jobs.device_lock import QueueLook
    from tui.screens.base import MiCrowScreen as _Screen
    from tui.screens.runs.charts import JobHistory, RunReading, SaeReading
    from tui.screens.runs.history import HistoryReader, Subject, SubjectReader

    Reading = JobHistory | SaeReading | RunReading | Exception
    """What is read of the selected row once the cursor rests. An error: why it cannot be read."""
else:
    _Screen = object

LATE_S = 0.35  # how long it may take to be read before what is known without it is drawn
QUEUES_S = 1.0  # the devices are looked at this often: nobody says what other workspaces do
TALL = 36  # lines of the screen from which there is more of everything


class ShowsDetail(_Screen):
    """Mixed into the Runs screen: reads and draws the two panes."""

    if TYPE_CHECKING:
        _current: str

        @property
        def _key(self) -> str | None: ...
        @property
        def _selected_job(self) -> JobState | None: ...

    def __init__(self) -> None:
        super().__init__()
        self._reading: Reading | None = None  # of the selected row, when it is read
        self._reader: HistoryReader | None = None
        self._subjects: SubjectReader | None = None
        self._aside_reader: AsideReader | None = None
        self._aside: Aside | None = None
        self._apart: tuple[Content, ...] = ()  # of the selected row, under the lists
        self._shown_subject: tuple[str, str | None] | None = None  # of the detail on the screen
        self._drawn_of: object = None  # what it was drawn of when it was last read
        self._late: Timer | None = None  # until the detail of the selected row is late

    def start_reading(self) -> None:
        """The screen was mounted."""
        self._aside_reader = AsideReader(self.context.workspace)
        self.set_interval(QUEUES_S, self.look_at_queues)

    # The pane at the right.

    # By its name, since Textual reads decorators in its own classes only.
    def on_detail_lines_width_changed(self, event: DetailLines.WidthChanged) -> None:
        subject = (self._current, self._key)
        if event.pane.id == "aside":
            self._look_at_room()
        elif self._shown_subject == subject or self._shown_subject is None:
            self._draw(subject)

    def _draw(self, subject: tuple[str, str | None]) -> None:
        self._shown_subject = subject
        self._apart = self._told_apart()
        content = self._detail()
        if isinstance(self._reading, Exception):
            content = blocks(content, trouble_content(self._reading))
        self.query_one("#detail", DetailLines).show(content, subject)
        self._draw_aside()

    def _told_apart(self) -> tuple[Content, ...]:
        """What of the selected row is under the lists: as much as there is room for."""
        pane, context, key = self.query_one("#aside", DetailLines), self.context, self._key
        if self._aside is None or not pane.display or not pane.size or not context.has_looked:
            return ()
        known = self._aside, context.runs(), context.saes()
        room = room_for_more(*known, pane.width, pane.size.height)
        parts: list[Content] = []
        for part in self._apart_of(key, pane.width) if key is not None else ():
            if len(blocks(*parts, part).plain.splitlines()) > room:
                break
            parts.append(part)
        return tuple(parts)

    def _apart_of(self, key: str, width: int) -> Sequence[Content]:
        from tui.screens.runs.charts import JobHistory, SaeReading
        from tui.screens.runs.job_view import job_apart
        from tui.screens.runs.run_view import run_apart
        from tui.screens.runs.sae_view import sae_apart

        reading = self._reading
        if (job := self._selected_job) is not None:
            return job_apart(job, reading if isinstance(reading, JobHistory) else None, width)
        if self._current == "runs" and (run := self.context.find_run(key)) is not None:
            return [run_apart(run, width)]
        if self._current == "saes" and isinstance(reading, SaeReading):
            return sae_apart(reading, width)
        return ()

    def _detail(self) -> Content:
        if self._key is None:
            return Content("")
        from tui.screens.runs import detail
        from tui.screens.runs.charts import JobHistory
        from tui.screens.runs.job_view import job_detail, subject_of

        context, key, reading = self.context, self._key, self._reading
        pane = self.query_one("#detail", DetailLines)
        width, height, tall = pane.width, pane.size.height, self.size.height >= TALL
        found = None if isinstance(reading, JobHistory | Exception) else reading
        about = self._about(self._current, key, found, width, height)
        if about is not None:
            return about
        what = WHAT.get(self._current, "")
        for one in context.unreadable(what):
            if one.name == key:
                return detail.unreadable_detail(one)
        for unfinished in context.unfinished(what):
            if unfinished.name == key:
                return detail.unfinished_detail(unfinished, context.jobs(), width)
        job = self._selected_job
        if job is None:
            return Content("")
        history = reading if isinstance(reading, JobHistory) else None
        found = history.about if history is not None else None
        beside = {"aside": self._aside_is_shown, "apart": len(self._apart)}
        about = None
        if found is not None:
            whole = job_detail(job, history, width, height, tall=tall, **beside, about=Content("–"))
            left = height - len(whole.plain.splitlines())
            about = self._about(*subject_of(job), found, width, max(left, 1), job)
        return job_detail(job, history, width, height, tall=tall, **beside, about=about)

    def _about(
        self,
        rows: str,
        key: str,
        reading: "RunReading | SaeReading | None",
        width: int,
        height: int,
        job: "JobState | None" = None,
    ) -> Content | None:
        """What is known of a run or an SAE, below what its `job` says; None for anything else."""
        from tui.screens.runs.charts import RunReading, SaeReading
        from tui.screens.runs.run_view import run_detail
        from tui.screens.runs.sae_view import sae_detail

        context, apart = self.context, len(self._apart) if job is None else 0
        if rows == "runs" and (run := context.find_run(key)) is not None:
            found = reading if isinstance(reading, RunReading) else None
            return run_detail(run, context.saes(), found, width, height, apart=apart)
        if rows == "saes" and (sae := context.find_sae(key)) is not None:
            known = reading if isinstance(reading, SaeReading) else None
            tall = self.size.height >= TALL
            says = job.kind if job is not None and job.status == "finished" else ""
            return sae_detail(
                sae,
                known,
                width,
                height,
                tall=tall,
                evaluated=says != "evaluate",
                trained=says != "train",
                apart=apart,
            )
        return None

    def follow_cursor(self) -> None:
        """Reads and draws what belongs to the selected row once the cursor rests."""
        self.when_rested("detail", self._read_detail)
        self.when_rested("aside", self._read_aside)

    def _read_detail(self) -> None:
        """Reads what belongs to the selected row and then draws it; once the cursor rests, where
        it does not yet."""
        if self.is_resting("detail"):
            return
        subject = (self._current, self._key)
        read = self._how_to_read()

        def work() -> "Reading | None":
            try:
                return read()
            except (NotFoundError, FileNotFoundError):
                return None  # removed meanwhile: the next look says so
            except Exception as error:  # the pane says it beside what is known
                return error

        self.in_thread(work, partial(self._detail_read, subject), group="detail")
        if self._late is not None:
            self._late.stop()
        if self._shown_subject != subject:
            self._late = self.set_timer(LATE_S, partial(self._draw_unread, subject))

    def _draw_unread(self, subject: tuple[str, str | None]) -> None:
        """The disk is slow: the pane must not go on showing another row."""
        if subject == (self._current, self._key) != self._shown_subject:
            self._reading = self._drawn_of = None
            self._draw(subject)

    def _how_to_read(self) -> "Callable[[], Reading | None]":
        job, key = self._selected_job, self._key
        if key is None:
            return _nothing
        from tui.screens.runs.history import HistoryReader, SubjectReader

        if self._subjects is None or self._reader is None:
            self._subjects = SubjectReader()
            self._reader = HistoryReader(self.context.workspace, self._subjects)
        if job is not None:
            from tui.screens.runs.job_view import subject_of

            return partial(self._reader.read, job, self._subject(*subject_of(job)))
        subject = self._subject(self._current, key)
        return partial(self._subjects.read, subject) if subject is not None else _nothing

    def _subject(self, rows: str, key: str) -> "Subject | None":
        from tui.screens.runs.history import Subject

        context = self.context
        find = {"runs": context.find_run, "saes": context.find_sae}.get(rows)
        summary = find(key) if find is not None else None
        if summary is None:
            return None
        return Subject(summary, context.saes(), context.features)

    def _detail_read(self, subject: tuple[str, str | None], reading: "Reading | None") -> None:
        moving = self.is_resting("detail") and self._shown_subject not in (None, subject)
        if subject != (self._current, self._key) or moving:
            return
        context = self.context
        job = self._selected_job if reading is not None else context.jobs()  # what is unfinished
        about = subject, reading, job, context.runs(), context.saes()
        if about != self._drawn_of:  # else another job has reported itself
            self._reading, self._drawn_of = reading, about
            self._draw(subject)

    # The pane under the lists, on screens that have room for it.

    @property
    def _aside_is_shown(self) -> bool:
        # Lists may be drawn when the pane is not there yet, or not any more.
        return any(pane.display for pane in self.query("#aside"))

    def _job_aside(self) -> "JobState | None":
        """Whose log is shown: the selected job, else the newest that runs, else the newest."""
        jobs = self.context.jobs()
        running = [job for job in jobs if job.status == "running"]
        return self._selected_job or next(reversed(running or list(jobs)), None)

    def _read_aside(self) -> None:
        if self._aside_reader is None or not self._aside_is_shown:
            return
        busy = any(one.status == "running" for one in self.context.jobs())
        read = partial(self._aside_reader.read, self._job_aside(), busy=busy)
        self.in_thread(read, self._aside_read, group="aside")

    def look_at_queues(self) -> None:
        """Reads the pane again once another job has a device, or waits for one."""
        if self._aside is not None and self._aside_is_shown and self.is_shown:
            self.in_thread(queues, self._queues_seen, group="queues", failed=lambda _: None)

    def _queues_seen(self, found: "tuple[QueueLook, ...]") -> None:
        if self._aside is not None and found != self._aside.queues:
            self._read_aside()

    def _aside_read(self, aside: Aside) -> None:
        self._aside = aside
        self._look_at_room()

    def _look_at_room(self) -> None:
        """Draws the pane under the lists, and the other one where it has to tell less or more."""
        subject = (self._current, self._key)
        if self._shown_subject not in (None, subject):
            return  # the detail is on its way and brings this pane with it: its lines are sent once
        if subject == self._shown_subject and len(self._told_apart()) != len(self._apart):
            self._draw(subject)
        else:
            self._draw_aside()

    def _draw_aside(self) -> None:
        """Nothing before the pane has a width and a look has found what the workspace holds."""
        pane, context = self.query_one("#aside", DetailLines), self.context
        if self._aside is not None and pane.display and pane.size and context.has_looked:
            height = pane.size.height
            about = self._aside, context.runs(), context.saes()
            shown = self._shown_subject == (self._current, self._key)
            more = blocks(*self._apart) if shown else None
            content = aside_content(*about, pane.width, height, more)
            pane.show(content, "aside")


def _nothing() -> None:
    """Of what cannot be read there is nothing to read."""
