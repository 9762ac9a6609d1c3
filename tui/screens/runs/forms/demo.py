"""The form of the demo: where it runs, and its seed. Everything else about it is fixed."""

from collections.abc import Iterator

from mi_crow.errors import UserError
from mi_crow.jobs.demo import DURATION
from mi_crow.jobs.demo.run import RUN_ID, SAE_ID
from mi_crow.jobs.demo.standing import standing
from tui.screens.runs.forms.job_form import JobForm, Reading
from tui.screens.runs.forms.shared import device_field, job_fields, seed_field
from tui.widgets.forms.fields import FormField, Values

_IN_THE_WAY = {
    "active": ("the demo is running already", "wait for it, or cancel it"),
    "stopped": ("the demo was started but not finished", f"resume it, or remove {RUN_ID}"),
    "there": (f"the demo is here already, as SAE {SAE_ID}", f"remove {SAE_ID}, or rename it"),
    "taken": (f"the demo calls its run {RUN_ID}, and another run has this name", "rename that one"),
}


class DemoForm(JobForm):
    kind = "demo"
    title = "Run the demo"

    def make_fields(self) -> tuple[FormField, ...]:
        ask = self.ask
        return (device_field(ask, self.at.device), seed_field(ask), *job_fields(ranked=False))

    def refuse(self, reading: Reading) -> Iterator[UserError]:
        found = standing(self.at.runs, self.at.saes, self.at.jobs)
        if found.state in _IN_THE_WAY:
            said, hint = _IN_THE_WAY[found.state]
            yield UserError(said, hint=hint)

    def expect(self, spec: object) -> tuple[str, ...]:
        return (DURATION,)

    def command(self, values: Values) -> str:
        """The command line has the demo begin an empty workspace, and wait for nothing."""
        if self.at.runs or self.at.saes or values["job.after"]:
            return ""
        return super().command(values)
