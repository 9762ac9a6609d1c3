"""Screen 1, Runs: activation runs, SAEs and jobs, and the forms that start jobs."""

import time
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from textual import on
from textual.app import ComposeResult
from textual.containers import Horizontal, Vertical
from textual.content import Content
from textual.widgets import Static

from mi_crow.errors import CorruptDataError, NotFoundError
from mi_crow.store.json_object import JsonObject
from mi_crow.store.notes import read_note
from tui import messages
from tui.actions import bindings
from tui.screens.base import MiCrowScreen
from tui.screens.runs import detail, rows
from tui.screens.runs.charts import JobHistory, SaeReading
from tui.screens.runs.comparing import MARKING, ComparesSaes
from tui.screens.runs.history import HistoryReader, read_sae
from tui.screens.runs.naming import NamesThings
from tui.screens.runs.removing import RemovesThings
from tui.screens.runs.rows import WHAT
from tui.screens.runs.starting import StartsJobs
from tui.widgets.detail_lines import DetailLines
from tui.widgets.facts import blocks
from tui.widgets.frame.popup import Confirm
from tui.widgets.lists.marks import Marks
from tui.widgets.lists.row_list import ListHeading, RowList
from tui.widgets.lists.sorted_list import SortedList
from tui.widgets.sharing import share_heights
from tui.widgets.trouble import trouble_content

if TYPE_CHECKING:
    from mi_crow.jobs import JobState

LISTS = ("runs", "saes", "jobs")
_TITLES = {"runs": "Activation runs", "saes": "SAEs", "jobs": "Jobs"}

Reading = JobHistory | SaeReading | str | Exception
"""What is read of the selected row once the cursor rests: of a run, its note. An error: why it
cannot be read."""

REST_S = 0.12  # how long the cursor rests before its row's detail is read and drawn


class RunsScreen(ComparesSaes, NamesThings, RemovesThings, StartsJobs, MiCrowScreen):
    """What the workspace holds and what runs on it."""

    NAME = "runs"
    HOME = "#list-runs"
    CSS_PATH = "runs.tcss"
    BINDINGS = bindings("runs")

    def __init__(self) -> None:
        super().__init__()
        self.add_class("-empty")  # later it would style every widget again
        self._current = "runs"  # the list whose row the detail pane shows
        self._reading: Reading | None = None  # of the selected row, when it is read
        self._reader: HistoryReader | None = None
        self._shown_subject: tuple[str, str | None] | None = None  # of the detail on the screen
        self._wanted_job: str | None = None  # selected as soon as a scan shows it
        self._wanted_row: str | None = None  # selected as soon as a scan shows it, like the job
        self._marked = Marks[str]()  # SAEs

    def compose_body(self) -> ComposeResult:
        yield Static(WELCOME, id="welcome", classes="stays")
        with Horizontal(id="runs-body"):
            with Vertical(id="lists", classes="pane -across -shown"):
                for name, columns, empty in (
                    ("runs", rows.RUN_COLUMNS, "none yet: n c captures one"),
                    ("saes", rows.SAE_COLUMNS, "none yet: n t trains one"),
                    ("jobs", rows.JOB_COLUMNS, "no jobs yet"),
                ):
                    row_list = SortedList(columns, empty=empty, id=f"list-{name}")
                    yield ListHeading(_TITLES[name], row_list)
                    yield row_list
            yield DetailLines(id="detail").add_class("pane", "-across")

    def on_mount(self) -> None:
        self._reader = HistoryReader(self.context.workspace)
        self._show_lists()

    # What comes back at the next start.

    def state(self) -> dict[str, Any]:
        return {"list": self._current, "row": self._key, "marks": list(self._marked)}

    def restore(self, saved: JsonObject) -> None:
        current = saved.text("list", LISTS[0])
        if current not in LISTS:
            raise CorruptDataError(f"{current!r:.40} is not a list of Runs")
        self._marked = Marks(saved.texts("marks", ()))
        self._current, self._wanted_row = current, saved.text("row", None)
        self.set_focus(self._list(current))

    def close_popup(self) -> bool:
        return self.clear_marks()

    # What changed.

    def on_workspace_changed(self, _: messages.WorkspaceChanged) -> None:
        self._show_lists()

    def on_sae_changed(self, _: messages.SaeChanged) -> None:
        self._show_lists()

    def on_jobs_changed(self, _: messages.JobsChanged) -> None:
        self._show_lists()
        self._read_detail()

    def on_resize(self) -> None:
        self._share_heights()

    def _show_lists(self) -> None:
        context = self.context
        shown = {
            "runs": rows.run_rows(context.runs())
            + rows.unreadable_rows(context.unreadable("run"), len(rows.RUN_COLUMNS))
            + rows.unfinished_rows(context.unfinished("run"), len(rows.RUN_COLUMNS)),
            "saes": rows.sae_rows(context.saes(), context.sae_id, self._marked)
            + rows.unreadable_rows(context.unreadable("SAE"), len(rows.SAE_COLUMNS))
            + rows.unfinished_rows(context.unfinished("SAE"), len(rows.SAE_COLUMNS)),
            "jobs": rows.job_rows(context.jobs()),
        }
        self.set_class(not any(shown.values()), "-empty")
        for name, found in shown.items():
            self._list(name).set_rows(found)
        if self._wanted_job is not None and self._job(self._wanted_job) is not None:
            self._list("jobs").select(self._wanted_job)
            self._list("jobs").focus()
            self._wanted_job = None
        wanted = self._list(self._current)
        if self._wanted_row in [row.key for row in wanted.rows]:
            wanted.select(self._wanted_row or "")
            wanted.focus()
            self._wanted_row = None
        self._share_heights()
        self._read_detail()
        self.refresh_bindings()

    def zoom_changed(self) -> None:
        self._share_heights()

    def _share_heights(self) -> None:
        if self.zoomed is not None:
            for name in LISTS:
                self._list(name).styles.height = "1fr"
            self.call_after_refresh(self._show_headings)
            return
        room = self.query_one("#lists").size.height or self.size.height - 3
        low = self.has_class("-low")
        available = room - len(LISTS) - (0 if low else 2)
        needs = [max(len(self._list(name).rows), 1) for name in LISTS]
        heights = share_heights(available, needs)
        if low:  # the list with the cursor is open, of the others the headings show
            heights = [available if name == self._current else 0 for name in LISTS]
        for name, height in zip(LISTS, heights, strict=True):
            self._list(name).styles.height = height
        self.call_after_refresh(self._show_headings)

    def _show_headings(self) -> None:
        for heading in self.query(ListHeading):
            heading.refresh()

    def _list(self, name: str) -> RowList:
        return self.query_one(f"#list-{name}", RowList)

    def on_show_in_runs(self, message: messages.ShowInRuns) -> None:
        self._list(message.rows).select(message.key)
        self._list(message.rows).focus()

    # The row that has the cursor.

    @on(RowList.Highlighted)
    def _highlighted(self, event: RowList.Highlighted) -> None:
        name = (event.row_list.id or "").removeprefix("list-")
        if event.row_list.has_focus:
            self._current = name
            for other in LISTS:
                self._list(other).set_class(other == name, "-current")
            if self.has_class("-low"):
                self._share_heights()
        if name == self._current:
            self._read_detail(REST_S)
            self.refresh_bindings()

    @on(RowList.Overrun)
    def _next_list(self, event: RowList.Overrun) -> None:
        at = LISTS.index((event.row_list.id or "").removeprefix("list-")) + event.direction
        if 0 <= at < len(LISTS):
            target = self._list(LISTS[at])
            target.focus()
            if event.direction > 0:
                target.action_first()
            else:
                target.action_last()

    @property
    def _key(self) -> str | None:
        return self._list(self._current).key

    def selected(self, name: str) -> str | None:
        """The id under the cursor of the list `name`, when that list is the current one."""
        return self._key if self._current == name else None

    def _job(self, job_id: str | None) -> "JobState | None":
        return next((job for job in self.context.jobs() if job.job_id == job_id), None)

    @property
    def _selected_job(self) -> "JobState | None":
        return self._job(self.selected("jobs"))

    def chosen(self) -> tuple[str, str] | None:
        """The kind and id of the whole run or SAE under the cursor; None for anything else."""
        what, key = WHAT.get(self._current), self._key
        known = {run.run_id for run in self.context.runs()}
        if what == "SAE":
            known = {sae.sae_id for sae in self.context.saes()}
        return (what, key) if what is not None and key in known else None

    def renamed(self, new: str | None) -> None:
        """Something about the chosen row was written: look, and read it again."""
        if new is not None:
            self._wanted_row = new
            self.mi_crow.look_now()
            self._read_detail()

    @on(DetailLines.WidthChanged)
    def _show_detail(self) -> None:
        subject = (self._current, self._key)
        if self._shown_subject == subject or self._shown_subject is None:
            self._draw(subject)

    def _draw(self, subject: tuple[str, str | None]) -> None:
        self._shown_subject = subject
        content = self._detail()
        if isinstance(self._reading, Exception):
            content = blocks(content, trouble_content(self._reading))
        self.query_one("#detail", DetailLines).show(content, subject)

    def _detail(self) -> Content:
        context, key, reading = self.context, self._key, self._reading
        width = self.query_one("#detail", DetailLines).width
        tall = self.size.height >= 36
        if self._current == "runs":
            for run in context.runs():
                if run.run_id == key:
                    note = reading if isinstance(reading, str) else ""
                    return detail.run_detail(run, context.saes(), note, width)
        elif self._current == "saes":
            for sae in context.saes():
                if sae.sae_id == key:
                    found = reading if isinstance(reading, SaeReading) else None
                    return detail.sae_detail(sae, found, width, tall)
        what = WHAT.get(self._current, "")
        for found in context.unreadable(what):
            if found.name == key:
                return detail.unreadable_detail(found)
        for unfinished in context.unfinished(what):
            if unfinished.name == key:
                return detail.unfinished_detail(unfinished, context.jobs(), width)
        job = self._selected_job
        if job is None:
            return Content("")
        history = reading if isinstance(reading, JobHistory) else None
        return detail.job_detail(job, history, width, tall)

    def _read_detail(self, rest: float = 0.0) -> None:
        """Reads what belongs to the selected row and then draws it; `rest` seconds later, when the
        cursor moves meanwhile never."""
        subject = (self._current, self._key)
        read = self._how_to_read()

        def work() -> Reading | None:
            time.sleep(rest)
            try:
                return read()
            except (NotFoundError, FileNotFoundError):
                return None  # removed meanwhile: the next look says so
            except Exception as error:  # the pane says it beside what is known
                return error

        self.in_thread(work, partial(self._detail_read, subject), group="detail")

    def _how_to_read(self) -> Callable[[], Reading | None]:
        job, key, saes = self._selected_job, self._key, self.context.saes()
        if job is not None and self._reader is not None:
            return partial(self._reader.read, job)
        if self._current == "saes":
            sae = next((one for one in saes if one.sae_id == key), None)
            return partial(read_sae, sae, saes) if sae is not None else _nothing
        run = next((run for run in self.context.runs() if run.run_id == key), None)
        if self._current == "runs" and run is not None:
            return partial(read_note, run.path)
        return _nothing

    def _detail_read(self, subject: tuple[str, str | None], reading: Reading | None) -> None:
        if subject == (self._current, self._key):
            self._reading = reading
            self._draw(subject)

    # Actions.

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        job = self._selected_job if self.is_mounted else None
        if action == "cancel_job":
            return job is not None and (job.active or job.status == "lost")
        if action == "resume_job":
            return job is not None and job.status in ("lost", "failed", "cancelled")
        if action == "again":
            return self.can_repeat(job)
        if action == "show_log":
            return job is not None
        if action in (*MARKING, "compare"):
            return self.is_mounted and self.can_compare(action)
        if action in ("rename", "note"):
            return self.is_mounted and self.chosen() is not None
        if action == "remove":
            return not job.active if job is not None else self.is_mounted and self._key is not None
        return self.can_start(action, parameters)

    @on(RowList.Opened)
    async def _open(self, event: RowList.Opened) -> None:
        if event.row_list.id == "list-saes":
            self.mi_crow.open_sae(event.key)
            await self.mi_crow.go("features")
        elif event.row_list.id == "list-runs":
            self.action_new("train")
        elif (job := self._selected_job) is not None and job.status == "failed":
            self.action_again()
        else:
            self.action_show_log()

    def action_again(self) -> None:
        """The form with the values of the selected job."""
        job = self._selected_job
        if job is not None and self.can_repeat(job):
            self.repeat(job)
        else:
            self.action_show_log()

    def action_show_log(self) -> None:
        job = self._selected_job
        if job is not None:
            from tui.widgets.log_view import LogPopup

            self.app.push_screen(LogPopup(self.context.workspace, job.job_id))

    def action_cancel_job(self) -> None:
        job = self._selected_job
        if job is None:
            return
        what = f"{rows.job_name(job)} {rows.job_target(job)}".strip()
        if job.stopping:
            popup = Confirm(
                f"Stop {what} now?",
                "Progress since its last checkpoint is lost.",
            )
        else:
            popup = Confirm(f"Cancel {what}?", "It saves its progress and can be resumed.")
        self.app.push_screen(popup, partial(self._cancel, job.job_id))

    def _cancel(self, job_id: str, sure: bool | None) -> None:
        from mi_crow.jobs import cancel

        if sure:
            self._do(partial(cancel, self.context.workspace, job_id))

    def action_resume_job(self) -> None:
        from mi_crow.jobs import resume

        job = self._selected_job
        if job is not None:
            self._do(partial(resume, self.context.workspace, job.job_id))

    def _do(self, work: Callable[[], object]) -> None:
        """Does something to a job in a thread; says what went wrong; looks at the result."""
        self.in_thread(work, lambda _: self.mi_crow.look_now(), failed=self._not_done)

    def _not_done(self, error: Exception) -> None:
        self.tell(error)
        self.mi_crow.look_now()


def _nothing() -> None:
    """Of what cannot be read there is nothing to read."""


WELCOME = Content.assemble(
    ("This workspace is empty", "bold $foreground"),
    "\n\n",
    ("n d", "bold $primary"),
    ("   run the demo: a small model, its activations, an SAE and its features", "$muted"),
    "\n",
    ("n c", "bold $primary"),
    ("   capture activations of your own model", "$muted"),
    "\n",
    ("?", "bold $primary"),
    ("     all keys", "$muted"),
)
