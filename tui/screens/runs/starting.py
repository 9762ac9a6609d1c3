"""Starting jobs from Runs: the forms, the demo, and an earlier job's values once more."""

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from tui.actions import BY_ID

if TYPE_CHECKING:
    from tui.screens.base import MiCrowScreen as _Screen
    from tui.screens.runs.forms import JobForm
else:
    _Screen = object


class StartsJobs(_Screen):
    """Mixed into the Runs screen. `new(kind)` opens the form of a kind of job."""

    _wanted_job: str | None  # selected as soon as a scan shows it

    if TYPE_CHECKING:

        def selected(self, name: str) -> str | None: ...
        def _do(self, work: Callable[[], object]) -> None: ...

    def can_start(self, action: str, parameters: tuple[object, ...]) -> bool:
        """Whether there is what the job of this action reads."""
        if action != "new":
            return True
        needs = {"train": self.context.runs, "index": self.context.saes}
        needs |= dict.fromkeys(("evaluate", "export"), self.context.saes)
        found = needs.get(str(parameters[0]))
        return found is None or bool(found())

    def action_menu(self) -> None:
        """Everything that can be started, one letter each."""
        from tui.screens.runs.new_menu import NewMenu

        self.app.push_screen(NewMenu(self._why_not, self.mi_crow.keymap), self._start)

    def _why_not(self, name: str) -> str:
        """Why the action `runs.NAME` cannot be done now; empty when it can."""
        action, _, kind = BY_ID[f"runs.{name}"].action.partition("(")
        if self.check_action(action, (kind.strip("')"),)):
            return ""
        needs = {"train": "needs a run", "index": "needs an SAE", "evaluate": "needs an SAE"}
        return needs.get(name, "not possible now")

    async def _start(self, name: str | None) -> None:
        if name is not None:
            await self.run_action(BY_ID[f"runs.{name}"].action)

    def action_new(self, kind: str) -> None:
        """Opens the form for a job of this kind, on the run or SAE under the cursor."""
        from tui.screens.runs import forms  # with the configs of all jobs: not at the start

        context = self.context
        sae_id = self.selected("saes") or context.sae_id
        if kind == "capture":
            self._ask(forms.capture_form(context.runs()))
        elif kind == "train":
            self._ask(forms.train_form(context.runs(), self.selected("runs")))
        elif kind == "index":
            self._ask(forms.index_form(context.saes(), sae_id))
        elif kind == "evaluate":
            self._ask(forms.evaluate_form(context.saes(), sae_id))

    def _ask(self, form: "JobForm") -> None:
        from tui.screens.runs.preset_device import with_device
        from tui.widgets.forms.popup import FormPopup

        submit = partial(form.submit, self.context.workspace)
        fields = with_device(form.fields, self.context.device)
        self.app.push_screen(FormPopup(form.title, fields, submit), self._started)

    def _started(self, job_id: str | None) -> None:
        if job_id is not None:
            self._wanted_job = job_id
            self.mi_crow.look_now()

    def action_run_demo(self) -> None:
        self._do(self._submit_demo)

    def _submit_demo(self) -> str:
        from mi_crow.jobs import submit

        return submit(self.context.workspace, "demo", {})
