"""The form that scores how strongly each feature steers."""

from typing import TYPE_CHECKING, Any

from mi_crow.bounds import FACTOR, SIZE
from tui.screens.runs.forms.command import arguments, command_line
from tui.screens.runs.forms.index import ExplainForm
from tui.screens.runs.forms.job_form import shown_root
from tui.screens.runs.forms.measuring import prompts_in
from tui.screens.runs.forms.parameters import BETWEEN
from tui.screens.runs.forms.shared import device_field, job_fields
from tui.widgets.forms.fields import Default, FormField, Values

if TYPE_CHECKING:
    from mi_crow.jobs.spec import JobSpec


class ScoresForm(ExplainForm):
    kind = "steer-scores"
    title = "Score how strongly each feature steers"

    def make_fields(self) -> tuple[FormField, ...]:
        ask = self.ask
        return (
            self.sae_fields()[0],
            ask("strength", "strength", "of each feature, in norms of the token", FACTOR),
            FormField(
                "prompts",
                "prompts",
                hint="a neutral prompt, several with | between them, or a file with one a line",
                default=Default("", "the two commonest openings of the texts"),
            ),
            ask("batch_size", "batch", "features at once; fewer need less memory", SIZE),
            device_field(ask, self.at.device),
            *job_fields(ranked=False),
        )

    def parameters(self, values: Values) -> dict[str, Any]:
        found = super().parameters(values)
        return found | {"prompts": prompts_in(str(found["prompts"] or ""))}

    def values_of(self, spec: "JobSpec") -> dict[str, Any]:
        prompts = BETWEEN.join(spec.params.get("prompts", ()))
        return super().values_of(spec) | {"prompts": prompts}

    def command(self, values: Values) -> str:
        words = ["steer", "scores"]
        for prompt in self.parameters(values)["prompts"]:
            words += ["--prompt", prompt]
        words += arguments(self.kind, self.config, self.fields, values, self.at.device)[1:]
        return command_line(words, shown_root(self.at.workspace))
