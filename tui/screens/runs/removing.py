"""Removing a run, an SAE or an ended job from Runs, once it was said what goes."""

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from tui.screens.runs.rows import WHAT, job_name, job_target
from tui.text import size

if TYPE_CHECKING:
    from mi_crow.jobs import JobState
    from mi_crow.jobs.removing import Removal
    from tui.screens.base import MiCrowScreen as _Screen
else:
    _Screen = object


class RemovesThings(_Screen):
    """Mixed into the Runs screen: removes what is under the cursor."""

    if TYPE_CHECKING:
        _current: str

        @property
        def _key(self) -> str | None: ...
        @property
        def _selected_job(self) -> JobState | None: ...
        def _do(self, work: Callable[[], object]) -> None: ...
        def _not_done(self, error: Exception) -> None: ...

    def action_remove(self) -> None:
        """Asks first: what goes with it, and what stays."""
        from mi_crow.jobs.removing import plan_removal

        job, what, key = self._selected_job, WHAT.get(self._current), self._key
        if what is not None and key is not None:
            plan = partial(plan_removal, self.context.workspace, what, key)
            self.in_thread(plan, self._ask_to_remove, failed=self._not_done, opens=True)
        if job is None:
            return
        what = f"{job_name(job)} {job_target(job)}".strip()
        from tui.widgets.frame.popup import Confirm

        note = "Its log is deleted; its results stay."
        if job.resumable:
            note = "It could be started again; what it had made is deleted too."
        self.app.push_screen(
            Confirm(f"Remove {what}?", note), partial(self._remove_job, job.job_id)
        )

    def _remove_job(self, job_id: str, sure: bool | None) -> None:
        from mi_crow.jobs.removing import remove_job

        if sure:
            self._do(partial(remove_job, self.context.workspace, job_id, force=True))

    def _ask_to_remove(self, removal: "Removal") -> None:
        from tui.widgets.frame.popup import Confirm

        what, name = removal.what, removal.name
        kept = "its concepts stay" if what == "SAE" else "its SAEs stay"
        lines = [f"This frees {size(removal.bytes)}; {kept}.", *removal.consequences()]
        popup = Confirm(f"Remove {what} {name}?", "\n".join(lines))
        self.app.push_screen(popup, partial(self._remove, what, name))

    def _remove(self, what: str, name: str, sure: bool | None) -> None:
        from mi_crow.jobs.removing import plan_removal

        def remove() -> None:
            removal = plan_removal(self.context.workspace, what, name)  # a job may use it by now
            self.context.workspace.delete(removal.folder)

        if sure:
            done = partial(self._removed, what, name)
            self.in_thread(remove, lambda _: done(), failed=self._not_done)

    def _removed(self, what: str, name: str) -> None:
        if what == "SAE":
            self.mi_crow.close_sae(name)
        self.mi_crow.look_now()
