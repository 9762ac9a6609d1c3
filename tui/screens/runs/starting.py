"""Starting jobs from Runs: the forms, the demo, and an earlier job's values once more."""

from functools import partial
from importlib import import_module
from typing import TYPE_CHECKING

from tui import messages
from tui.actions import BY_ID
from tui.preferences.key_words import key
from tui.text import printable
from tui.watch import check_there

if TYPE_CHECKING:
    from mi_crow.jobs import JobState
    from mi_crow.mechanistic.sae.library.published import PublishedSae
    from mi_crow.store.workspace import RunSummary, SaeSummary
    from tui.screens.base import MiCrowScreen as _Screen
    from tui.screens.runs.forms.finding import Situation
    from tui.screens.runs.forms.job_form import JobForm
    from tui.screens.runs.welcome import Welcome
else:
    _Screen = object

# The kinds that have a form.
WITH_FORMS = ("capture", "train", "index", "explain", "evaluate", "import", "export", "demo")
WITH_FORMS += ("explanations", "steer-sweep", "steer-auto", "steer-scores", "vector")

_LOOKS_AHEAD_S = 0.2  # once the menu is drawn


class StartsJobs(_Screen):
    """Mixed into the Runs screen. `new(kind)` opens the form of a kind of job."""

    _wanted_job: str | None  # selected as soon as a scan shows it

    if TYPE_CHECKING:

        def selected(self, name: str) -> str | None: ...
        def _not_done(self, error: Exception) -> None: ...

    def can_start(self, action: str, parameters: tuple[object, ...]) -> bool:
        """Whether there is what the job of this action reads."""
        if action != "new":
            return True
        needs = {"train": self._whole_runs, "index": self.context.saes}
        needs |= dict.fromkeys(("evaluate", "export"), self.context.saes)
        if parameters[0] in ("explain", "explanations", "steer-scores"):
            return any(sae.has_index for sae in self.context.saes())
        found = needs.get(str(parameters[0]))
        return found is None or bool(found())

    def _whole_runs(self) -> "list[RunSummary]":
        return [run for run in self.context.runs() if run.manifest.complete]

    def action_menu(self) -> None:
        """Everything that can be started, one letter each."""
        from tui.screens.runs.new_menu import NewMenu

        self.app.push_screen(NewMenu(self._why_not, self.mi_crow.keymap), self._start)
        self.set_timer(_LOOKS_AHEAD_S, self._look_ahead)

    def _look_ahead(self) -> None:
        """Reads what the library opens with, while somebody reads the menu."""
        self.in_thread(_first_library, group="library-ahead", failed=lambda _: None)

    def _why_not(self, name: str) -> str:
        """Why the action `runs.NAME` cannot be done now; empty when it can."""
        action, _, kind = BY_ID[f"runs.{name}"].action.partition("(")
        if self.check_action(action, (kind.strip("')"),)):
            return ""
        captured = "its run is not captured yet" if self.context.runs() else "needs a run"
        needs = {"train": captured, "index": "needs an SAE", "evaluate": "needs an SAE"}
        needs |= dict.fromkeys(("explain", "explanations", "scores"), "needs an index")
        needs |= {"export": "needs an SAE"}
        return needs.get(name, "not possible now")

    async def on_welcome_chosen(self, event: "Welcome.Chosen") -> None:
        await self._start(event.name)

    async def _start(self, name: str | None) -> None:
        if name is not None:
            await self.run_action(BY_ID[f"runs.{name}"].action)

    def train_on(self, run_id: str) -> None:
        """The form of a training on this run, once it can be trained on."""
        run = self.context.find_run(run_id)
        if run is not None and run.manifest.complete:
            self.action_new("train")
        else:
            self.say_not_whole("run", run_id)

    def say_not_whole(self, what: str, name: str) -> None:
        """Why nothing can be done with this run or SAE yet, and what finishes it."""
        from mi_crow.jobs.demo.run import RUN_ID, SAE_ID

        kinds, done, of_demo = {
            "run": (("capture",), "trained on", RUN_ID),
            "SAE": (("train", "import"), "opened", SAE_ID),
        }[what]
        goes_on = {
            "capture": "its capture",
            "train": "its training",
            "import": "its import",
            "demo": "the demo",
        }
        makes = [
            one
            for one in self.context.jobs()
            if (one.kind in kinds and name in (one.output, one.name))
            or (one.kind == "demo" and name == of_demo)
        ]
        said = f"{name} cannot be {done} before it is whole"
        if any(name == one.name for one in self.context.unreadable(what)):
            said, remedy = f"{name} cannot be read", f"{key('runs.remove')} removes it"
        elif active := [job.kind for job in makes if job.active]:
            remedy = f"wait for {goes_on[active[-1]]} to finish"
        elif can := [job.kind for job in makes if job.resumable]:
            resumes = key("runs.resume")
            remedy = f"resume {goes_on[can[-1]]} with {resumes} in the list of jobs"
        else:
            remedy = f"no job can finish it; {key('runs.remove')} removes it"
        self.mi_crow.notify(printable(said), severity="warning", remedy=remedy)

    def action_new(self, kind: str) -> None:
        """Opens the form for a job of this kind, on the run or SAE under the cursor. The first
        form brings the configs of all jobs: a quarter of a second, and more on a busy machine."""

        def ask(_: object) -> None:
            from tui.screens.runs.forms.kinds import new_form

            self._ask(new_form(kind, self._situation()))

        work = partial(import_module, "tui.screens.runs.forms.kinds")
        self.in_thread(work, ask, group="form", opens=True)

    def action_library(self) -> None:
        """The published SAEs; the one that is chosen goes into the form of an import."""
        from tui.screens.runs.library import LibraryPopup

        self.app.push_screen(LibraryPopup(), self._import_published)

    def _import_published(self, chosen: "PublishedSae | None") -> None:
        if chosen is None:
            return
        from tui.screens.runs.forms.kinds import new_form
        from tui.screens.runs.library import import_values

        form = new_form("import", self._situation(), import_values(chosen))
        form.way = "app.runs", "runs.new", "new.library"
        self._ask(form)

    def index_imported(self, sae: "SaeSummary", job: "JobState") -> None:
        """The form of the index of an SAE that came in, over the texts that it was checked on."""
        from tui.screens.runs.forms.kinds import new_form

        check = job.params.get("check") or {}
        texts = str((check.get("dataset") or {}).get("source") or "sample")
        given = {"sae_id": sae.sae_id, "live.dataset.source": texts}
        form = new_form("index", self._situation(), given)
        form.way = "app.runs", "list.open"
        self._ask(form)

    def on_capture_layer(self, message: messages.CaptureLayer) -> None:
        """The form of a capture, with the model and layer that another screen names."""
        from tui.screens.runs.forms.kinds import new_form

        texts = {"model.model": message.model_id, "layers": message.layer}
        form = new_form("capture", self._situation(), texts)
        form.way = "app.control", "control.capture"
        self._ask(form)

    def _situation(self) -> "Situation":
        from tui.screens.runs.forms.finding import Situation

        return Situation.of(self.context, self._selected_run(), self.selected("saes"))

    def _selected_run(self) -> str | None:
        """The run under the cursor, or the one that the SAE under it was trained on."""
        selected = self.selected("saes")
        sae = self.context.find_sae(selected)
        return sae.run_id if sae is not None else self.selected("runs")

    def can_repeat(self, job: "JobState | None") -> bool:
        """Whether there is a form that takes the values of this job."""
        return job is not None and job.kind in WITH_FORMS

    def repeat(self, job: "JobState") -> None:
        """Opens the form with the values of an earlier job; a failed one says why it failed."""
        from tui.screens.runs.forms.kinds import form_of_job

        read = partial(form_of_job, self._situation(), job.job_id)
        self.in_thread(read, partial(self._ask_again, job), group="repeat", opens=True)

    def _ask_again(self, job: "JobState", form: "JobForm") -> None:
        failed = job.status == "failed" and job.error
        why = "; ".join(filter(None, (job.error, job.hint)))
        self._ask(form, f"It failed: {form.in_words(why)}" if failed else "")

    def _ask(self, form: "JobForm", note: str = "") -> None:
        self.app.push_screen(form.popup(note), self._started)

    def _started(self, job_id: str | None) -> None:
        if job_id is not None:
            self._wanted_job = job_id
            self.mi_crow.look_now()

    async def action_run_demo(self) -> None:
        """Starts the demo; where there is one already, goes to what there is of it."""
        from mi_crow.jobs.demo.run import RUN_ID, SAE_ID
        from mi_crow.jobs.demo.standing import standing

        context, app = self.context, self.mi_crow
        found = standing(context.runs(), context.saes(), context.jobs())
        if found.state == "absent":
            self.in_thread(self._submit_demo, self._started, failed=self._not_done)
        elif found.state == "there":
            app.notify(
                f"The demo is here already, as SAE {SAE_ID}",
                remedy=f"to run it again, remove {SAE_ID} or rename it",
            )
            app.open_sae(SAE_ID)
            await app.go("features")
        elif found.state == "taken":
            self._select("runs", RUN_ID)
            said = f"The demo calls its run {RUN_ID}, and another run has this name"
            app.notify(said, severity="warning", remedy=f"rename it with {key('runs.rename')}")
        else:
            self._select("jobs", found.job)
            if found.state == "active":
                app.notify("The demo is running already")
            else:
                remedy = f"{key('runs.resume')} resumes it"
                app.notify("The demo was started but not finished", remedy=remedy)

    def _select(self, rows: str, key: str) -> None:
        self.post_message(messages.ShowInRuns(rows, key))

    def _submit_demo(self) -> str:
        from mi_crow.jobs import submit

        check_there(self.context.workspace)
        device = self.context.device
        return submit(self.context.workspace, "demo", {"device": device}, device)


def _first_library() -> None:
    from tui.screens.runs.library import first_look

    first_look()
