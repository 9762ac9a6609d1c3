"""What measures on the Steer screen: a sweep of the stack and the search for a setting, as jobs."""

import contextlib
from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from textual.content import Content
from textual.widgets import Static

from mi_crow.errors import MiCrowError, UserError
from tui import messages
from tui.flags import of_a_job
from tui.preferences.key_words import key
from tui.screens.steer.measured.popups import ArmsPopup, MeasuredChoice, MeasurementsPopup
from tui.screens.steer.measured.results import (
    Measured,
    arm_constraint,
    arm_stack,
    is_about,
    matching_arm,
    side_figures,
)
from tui.screens.steer.presets import read_stack
from tui.screens.steer.stack import stack_text
from tui.screens.steer.writing_screen import SIDES, WritingScreen
from tui.text import duration, printable
from tui.widgets.frame.popup import Confirm

if TYPE_CHECKING:
    from mi_crow.jobs import JobState

KINDS = {"steer-sweep": "measuring", "steer-auto": "looking for a setting"}
_STRENGTHS = [0.5, 0.75, 1.0, 1.25, 1.5]


class MeasuresStacks(WritingScreen):
    """The part of Steer that measures. Its body has `#steer-job` and `#figures-SIDE`."""

    def __init__(self) -> None:
        super().__init__()
        self._measured: tuple[Measured, ...] = ()  # oldest first
        self._taken = ""  # the measurement whose setting was put on the screen
        self._own_jobs: set[str] = set()  # that were started here or shown, and have not ended

    # What runs.

    def on_jobs_changed(self, message: messages.JobsChanged) -> None:
        ended = [one for one in message.jobs if one.job_id in self._own_jobs and not one.active]
        self._own_jobs -= {one.job_id for one in ended}
        self._show_job(ended[-1] if ended else None)
        if ended or not self._measured:
            self.read_measured()
        self.refresh_bindings()

    def on_sae_renamed(self, message: messages.SaeRenamed) -> None:
        self.read_measured()

    def _active_job(self) -> "JobState | None":
        return next((one for one in self.context.jobs() if one.active and one.kind in KINDS), None)

    def _show_job(self, ended: "JobState | None" = None) -> None:
        """The line over the texts: what is measured now, or how it ended."""
        line, job = self.query_one("#steer-job", Static), self._active_job()
        if job is not None:
            self._own_jobs.add(job.job_id)  # whoever started it: its end is told too
            line.update(job_line(job))
            line.display = True
        elif ended is not None:
            line.update(ended_line(ended))
            line.display = True

    def action_cancel_measuring(self) -> None:
        job = self._active_job()
        if job is None:
            return
        from mi_crow.jobs import cancel

        self.in_thread(partial(cancel, self.context.workspace, job.job_id))

    # A sweep of the stack.

    def action_measure(self) -> None:
        """Opens the form of a sweep of the stack."""
        if not self.can_measure():
            return
        sae_id, constraint = self.context.sae_id, self._constraint
        stack = [one.in_sae(sae_id or "") for one in self._stack if one.enabled]
        params: dict[str, Any] = {
            "sae_id": sae_id,
            "interventions": [one.as_json(within=sae_id) for one in stack],
            "strengths": _STRENGTHS,
            "plausible": [constraint.plausible] if constraint.plausible else [],
            "kl_budgets": [constraint.kl_budget] if constraint.kl_budget else [],
            "trial": {"prompts": [self.area.text] if self.area.text.strip() else []},
        }
        self._open_form("measure", "steer-sweep", params, stack_text(stack))

    def _open_form(self, action: str, kind: str, params: dict[str, Any], note: str = "") -> None:
        from mi_crow.jobs.spec import JobSpec
        from tui.screens.runs.forms.finding import Situation
        from tui.screens.runs.forms.kinds import form_of_spec

        context = self.context
        at = Situation(
            context.workspace,
            context.runs(),
            context.saes(),
            context.jobs(),
            sae_id=context.sae_id,
            device=context.device,
        )
        form = form_of_spec(at, JobSpec(kind, params))
        form.way = "app.steer", f"steer.{action}"
        self.app.push_screen(form.popup(note), self._job_started)

    def can_measure(self) -> bool:
        """Whether the stack can be measured; if not, says why."""
        try:
            if self.model_alone is not None:
                raise UserError(
                    "measuring needs an SAE with an index, for the judge and the control",
                    hint=f"open an SAE on Runs ({key('app.runs')})",
                )
            if not any(one.enabled for one in self._stack):
                raise UserError(
                    "nothing on the stack is switched on", hint=f"{key('steer.new')} adds something"
                )
        except UserError as error:
            self.tell(error)
            return False
        return True

    def _job_started(self, job_id: str | None) -> None:
        if job_id is None:
            return
        self._own_jobs.add(job_id)
        line = self.query_one("#steer-job", Static)
        line.update(Content.styled("starting to measure…", "$accent"))
        line.display = True
        self.mi_crow.look_now()

    # The search for a setting.

    def action_auto(self) -> None:
        """Asks in a form what is to happen: a feature, a label or a description."""
        sae_id, one = self.context.sae_id, self.intervention
        if self.context.features is None or sae_id is None or self.model_alone is not None:
            self.tell(
                UserError(
                    "this needs an SAE with an index",
                    hint=f"{key('app.runs')} goes to Runs, where one is opened or indexed",
                )
            )
            return
        params: dict[str, Any] = {"sae_id": sae_id}
        if one is not None and one.feature is not None and one.sae in (None, sae_id):
            params["feature"] = one.feature
        self._open_form("auto", "steer-auto", params)

    # What was found.

    def read_measured(self) -> None:
        """Reads the measurements of the workspace, and shows what they say of the texts."""
        self.in_thread(
            partial(measured_in, self.context.workspace), self._keep_measured, group="measured"
        )

    def _keep_measured(self, found: tuple[Measured, ...]) -> None:
        self._measured = found
        self.show_figures()

    def action_measured(self) -> None:
        """Lists what was measured, that of this stack first."""

        def read() -> tuple[tuple[Measured, ...], dict[str, str]]:
            presets = {}
            with contextlib.suppress(MiCrowError):
                for preset in self.context.annotations.presets():
                    if held := read_stack(preset):
                        presets[stack_text(held)] = preset.name
            return measured_in(self.context.workspace), presets

        self.in_thread(read, self._list_measured, group="list measured", opens=True)

    def _list_measured(self, read: tuple[tuple[Measured, ...], dict[str, str]]) -> None:
        measured, presets = read
        self._keep_measured(measured)
        stack = tuple(self._stack)
        found = sorted(measured, key=lambda one: (not is_about(one, stack), -one.updated))
        self.app.push_screen(MeasurementsPopup(found, stack, presets), self._measured_chosen)

    def _measured_chosen(self, choice: MeasuredChoice | None) -> None:
        if choice is None:
            return
        if choice.action == "new":
            self.action_measure()
        elif choice.measured is not None and choice.action == "remove":
            found = choice.measured
            popup = Confirm(f"Remove the measurement {found.name}?", "Its figures are gone then.")
            self.app.push_screen(
                popup, lambda sure: self._remove_measurement(found) if sure else None
            )
        elif choice.measured is not None:
            take = partial(self._take_arm, choice.measured)
            self.app.push_screen(ArmsPopup(choice.measured), take)

    def _remove_measurement(self, found: Measured) -> None:
        from mi_crow.mechanistic.steering.measure.results import remove_measurement

        self.in_thread(
            partial(remove_measurement, self.context.workspace, found.name),
            lambda _: self.read_measured(),
        )

    def _take_arm(self, found: Measured, arm: Mapping[str, Any] | None) -> None:
        """Puts a measured setting on the screen."""
        if arm is None:
            return
        stack = arm_stack(arm, found.sae_id)
        if stack is None:
            self.tell(UserError("this setting cannot be read", hint="measure the stack again"))
            return
        self._constraint = arm_constraint(arm)
        self._taken = found.name
        self.set_stack(stack)
        self.stack_changed()
        within = self._constraint.words
        words = f"The stack is {stack_text(stack)}" + (f", {within}" if within else "")
        self.notify(printable(words))

    def show_figures(self) -> None:
        """The figures of exactly the stack that wrote, beside those of a random feature: of the
        measurement that it was taken from, or else of the newest one; its name stands first."""
        found, arm = None, None
        if self._board is not None and not self._board.plan.titles:
            plan = self._board.plan
            of = plan.stacks[0], plan.settings.constraint, plan.sae_id
            newest = list(reversed(self._measured))
            newest.sort(key=lambda one: one.name != self._taken)
            arms = ((one, matching_arm([one], *of)) for one in newest)
            found, arm = next(((one, arm) for one, arm in arms if arm is not None), (None, None))
        for side in SIDES:
            line = self.query_one(f"#figures-{side}", Static)
            name = f"{printable(found.name)} · " if found is not None else ""
            line.update(Content.assemble((name, "$muted"), side_figures(arm, side)))
            line.display = arm is not None


def job_line(job: "JobState") -> Content:
    """What is measured, how far it is, and the key that stops it."""
    parts: list[tuple[str, str]] = [(KINDS[job.kind], "$accent")]
    if job.status == "queued":
        parts.append((f"  waiting {job.waiting_for}".rstrip(), "$muted"))
    elif job.total:
        parts.append((f"  {job.unit} {min(job.done + 1, job.total)} of {job.total}", "$foreground"))
        if job.eta_s is not None:
            parts.append((f" · {duration(job.eta_s)} left", "$muted"))
    else:
        parts.append(("  loading the model", "$muted"))
    parts.append((f" · {key('steer.cancel')} cancels", "$faint"))
    return Content.assemble(*((printable(text), style) for text, style in parts))


def ended_line(job: "JobState") -> Content:
    """How a measurement ended, and the key that goes on."""
    if job.status == "finished":
        words = (f"measured: {key('steer.measured')} shows it", "$success")
    elif job.status == "failed":
        why = of_a_job("; ".join(filter(None, (job.error, job.hint))))
        words = (f"{KINDS[job.kind]} failed: {why}", "$error")
    else:
        resume = f"{key('runs.resume')} on Runs resumes it"
        words = (f"{KINDS[job.kind]}: {job.status}; {resume}", "$warning")
    return Content.styled(printable(words[0]), words[1])


def measured_in(workspace: Any) -> tuple[Measured, ...]:
    """The measurements of a workspace, oldest first."""
    from mi_crow.mechanistic.steering.measure.results import list_measurements

    return tuple(
        Measured(
            one["name"],
            str(one["kind"]),
            float(one["updated"] or 0.0),
            one["result"],
            tuple(one.get("config", {}).get("interventions") or ()),
        )
        for one in list_measurements(workspace)
    )
