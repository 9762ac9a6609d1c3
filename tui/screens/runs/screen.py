"""Screen 1, Runs: activation runs, SAEs and jobs, and the forms that start jobs."""

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from textual import on
from textual.app import ComposeResult
from textual.containers import Horizontal

from mi_crow.errors import CorruptDataError
from mi_crow.store.json_object import JsonObject
from tui import messages
from tui.actions import bindings
from tui.preferences.key_words import key
from tui.preferences.list_columns import LISTS as COLUMNS
from tui.screens.base import MiCrowScreen
from tui.screens.runs import rows
from tui.screens.runs.aside import LEAST_HEIGHT, AsidePane, ListsPane
from tui.screens.runs.comparing import MARKING, ComparesSaes
from tui.screens.runs.naming import NamesThings
from tui.screens.runs.removing import RemovesThings
from tui.screens.runs.rows import WHAT
from tui.screens.runs.showing import TALL, ShowsDetail
from tui.screens.runs.starting import StartsJobs
from tui.screens.runs.welcome import Welcome
from tui.widgets.detail_lines import DetailLines
from tui.widgets.lists.marks import Marks
from tui.widgets.lists.row_list import ListHeading, RowList
from tui.widgets.lists.sorted_list import SortedList
from tui.widgets.sharing import share_heights

if TYPE_CHECKING:
    from mi_crow.jobs import JobState

LISTS = ("runs", "saes", "jobs")
_EMPTY = {
    "runs": lambda: f"none yet: {key('runs.new', 'new.capture')} captures one",
    "saes": lambda: (
        f"none yet: {key('runs.new', 'new.train')} trains one,"
        f" {key('runs.new', 'new.library')} imports one"
    ),
    "jobs": lambda: "no jobs yet",
}
_TITLES = {"runs": "Activation runs", "saes": "SAEs", "jobs": "Jobs"}


class RunsScreen(ComparesSaes, NamesThings, RemovesThings, StartsJobs, ShowsDetail, MiCrowScreen):
    """What the workspace holds and what runs on it."""

    NAME = "runs"
    HOME = "#list-runs"
    CSS_PATH = "runs.tcss"
    BINDINGS = bindings("runs")

    def __init__(self) -> None:
        super().__init__()
        self.add_class("-empty")  # later it would style every widget again
        self._current = "runs"  # the list whose row the detail pane shows
        self._outdated = False  # something changed while another screen was shown
        self._wanted_job: str | None = None  # selected as soon as a scan shows it
        self._wanted_row: str | None = None  # selected as soon as a scan shows it, like the job
        self._marked = Marks[str]()  # SAEs

    def compose_body(self) -> ComposeResult:
        yield Welcome(self.context.workspace.root)
        with Horizontal(id="runs-body"):
            with ListsPane(id="lists", classes="pane -across -shown"):
                for name in LISTS:
                    row_list = SortedList(
                        COLUMNS[name], empty=_EMPTY[name], id=f"list-{name}", listed=name
                    )
                    yield ListHeading(_TITLES[name], row_list)
                    yield row_list
                yield AsidePane(id="aside")
            yield DetailLines(id="detail").add_class("pane", "-across")

    def on_mount(self) -> None:
        self.start_reading()
        self._show_lists()
        self.call_after_refresh(self._share_heights)  # now the room is known

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
        self._show_now_or_later()

    def on_sae_changed(self, _: messages.SaeChanged) -> None:
        self._show_now_or_later()

    def on_jobs_changed(self, _: messages.JobsChanged) -> None:
        self._show_now_or_later()

    def _show_now_or_later(self) -> None:
        if self.is_shown:
            self._show_lists()
        else:  # every second while a job runs, and it would hold up the keys of the screen that is
            self._outdated = True

    def on_concepts_changed(self, _: messages.ConceptsChanged) -> None:
        self._read_soon()

    def on_files_changed(self, _: messages.FilesChanged) -> None:
        self._read_soon()

    def on_sae_renamed(self, message: messages.SaeRenamed) -> None:
        names = (message.new if one == message.old else one for one in self._marked)
        self._marked = Marks(names)

    def _read_soon(self) -> None:
        """Reads the selected row again, once it is shown."""
        if self.is_shown:
            self._read_detail()
        else:
            self._outdated = True

    def on_screen_resume(self) -> None:
        if self._outdated:
            self._show_lists()
        self.look_at_queues()

    def on_keys_changed(self, _: messages.KeysChanged) -> None:
        self._drawn_of = None
        self._read_detail()

    @on(ListsPane.Resized)
    def _resized(self) -> None:
        self._share_heights()

    def _show_lists(self) -> None:
        self._outdated = False
        context = self.context
        shown = {
            "runs": rows.run_rows(context.runs(), context.jobs()),
            "saes": rows.sae_rows(context.saes(), context.sae_id, self._marked),
            "jobs": rows.job_rows(context.jobs()),
        }
        for name, what in WHAT.items():
            broken = context.unreadable(what), context.unfinished(what)
            shown[name] += rows.broken_rows(*broken, len(COLUMNS[name]))
        self._welcome(not any(shown.values()))
        for name, found in shown.items():
            self._list(name).set_rows(found)
        if self._wanted_job is not None and context.find_job(self._wanted_job) is not None:
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
        self.call_after_refresh(self._share_heights)

    def _welcome(self, empty: bool) -> None:
        """Shows the ways to begin while the workspace is empty, and only then."""
        welcome, was_empty = self.query_one(Welcome), self.has_class("-empty")
        self.set_class(empty, "-empty")
        if empty and self.context.has_looked:
            welcome.show_ways()
        elif was_empty and (self.focused is None or welcome in self.focused.ancestors):
            self.focus_home()

    def _share_heights(self) -> None:
        aside = self.query_one("#aside", AsidePane)
        if self.zoomed is not None:
            for one in (*(self._list(name) for name in LISTS), aside):
                one.styles.height = "1fr"
            aside.display = aside in self.zoomed.ancestors_with_self
            self.call_after_refresh(self._beside_lists)
            return
        frame = 2 if self.has_class("-very-wide") else 3  # lines of header and footer
        room = self.query_one("#lists").size.height or self.size.height - frame
        low = self.has_class("-low")
        available = room - len(LISTS) - (0 if low else 2)
        needs = [max(len(self._list(name).rows), 1) for name in LISTS]
        spare = available - sum(needs) - 1  # and a line above
        aside.display = self.size.height >= TALL and spare >= LEAST_HEIGHT
        if aside.display:
            available, aside.styles.height = sum(needs), spare
        heights = share_heights(available, needs)
        if low:  # the list with the cursor is open, of the others the headings show
            heights = [available if name == self._current else 0 for name in LISTS]
        for name, height in zip(LISTS, heights, strict=True):
            self._list(name).styles.height = height
        self.call_after_refresh(self._beside_lists)

    def _beside_lists(self) -> None:
        for heading in self.query(ListHeading):
            heading.refresh()
        self._read_aside()

    def _list(self, name: str) -> RowList:
        return self.query_one(f"#list-{name}", RowList)

    def on_show_in_runs(self, message: messages.ShowInRuns) -> None:
        shown = self._list(message.rows)
        if message.key not in [row.key for row in shown.rows]:
            self.mi_crow.tell_gone(message.key)
            return
        shown.select(message.key)
        shown.focus()

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
            self.follow_cursor()
            self.refresh_bindings()

    @on(RowList.Overrun)
    def _next_list(self, event: RowList.Overrun) -> None:
        at = LISTS.index((event.row_list.id or "").removeprefix("list-")) + event.direction
        if 0 <= at < len(LISTS):
            target = self._list(LISTS[at])
            target.focus()
            target.cursor = 0 if event.direction > 0 else target.item_count - 1

    @on(RowList.ToEnd)
    def _end_of_lists(self, event: RowList.ToEnd) -> None:
        """The three lists are one column, for these keys as for those that go row by row; one that
        is zoomed is all that there is."""
        if self.zoomed is not None:
            return
        target = next(
            (found for name in LISTS[:: -event.direction] if (found := self._list(name)).rows),
            event.row_list,
        )
        target.focus()
        target.cursor = 0 if event.direction < 0 else target.item_count - 1

    @property
    def _key(self) -> str | None:
        return self._list(self._current).key

    def selected(self, name: str) -> str | None:
        """The id under the cursor of the list `name`, when that list is the current one."""
        return self._key if self._current == name else None

    @property
    def _selected_job(self) -> "JobState | None":
        return self.context.find_job(self.selected("jobs"))

    def chosen(self) -> tuple[str, str] | None:
        """The kind and id of the whole run or SAE under the cursor; None for anything else."""
        what, key = WHAT.get(self._current), self._key
        find = self.context.find_sae if what == "SAE" else self.context.find_run
        return (what, key) if what is not None and key is not None and find(key) else None

    def renamed(self, new: str | None) -> None:
        """Something about the chosen row was written: look, and read it again."""
        if new is not None:
            self._wanted_row = new
            self.mi_crow.look_now()
            self._read_detail()

    @property
    def left_out_keys(self) -> tuple[str, ...]:
        """What the footer leaves to help: it is not about the row under the cursor."""
        return () if self._current == "saes" and self.chosen() else ("runs.export",)

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
            if self.context.find_sae(event.key) is None:
                self.say_not_whole("SAE", event.key)
                return
            self.mi_crow.open_sae(event.key)
            await self.mi_crow.go("features")
        elif event.row_list.id == "list-runs":
            self.train_on(event.key)
        elif (job := self._selected_job) is not None and job.status == "failed":
            self.action_again()
        elif job is not None and job.status == "finished" and job.kind == "import":
            await self._follow_import(job)
        else:
            self.action_show_log()

    async def _follow_import(self, job: "JobState") -> None:
        """The features of the imported SAE, or the form of its index; its log once it is gone."""
        sae = self.context.find_sae(str(job.output or job.name or ""))
        if sae is None:
            self.action_show_log()
        elif sae.has_index:
            self.mi_crow.open_sae(sae.sae_id)
            await self.mi_crow.go("features")
        else:
            self.index_imported(sae, job)

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
        from tui.widgets.frame.popup import Confirm

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
