"""Which form starts which kind of job."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from tui.actions import scope_actions
from tui.screens.runs.forms import finding
from tui.screens.runs.forms.capture import CaptureForm
from tui.screens.runs.forms.demo import DemoForm
from tui.screens.runs.forms.explaining import ExplanationsForm
from tui.screens.runs.forms.exporting import ExportForm
from tui.screens.runs.forms.finding import Situation
from tui.screens.runs.forms.importing import ImportForm
from tui.screens.runs.forms.index import EvaluateForm, ExplainForm, IndexForm
from tui.screens.runs.forms.job_form import JobForm
from tui.screens.runs.forms.measuring import AutoForm, SweepForm
from tui.screens.runs.forms.scoring import ScoresForm
from tui.screens.runs.forms.train import TrainForm
from tui.screens.runs.forms.vector import VectorForm
from tui.widgets.forms.fields import Texts, filled_in

if TYPE_CHECKING:
    from mi_crow.jobs.spec import JobSpec

FORMS: dict[str, type[JobForm]] = {
    form.kind: form
    for form in (
        CaptureForm,
        TrainForm,
        IndexForm,
        ExplainForm,
        ExplanationsForm,
        EvaluateForm,
        ImportForm,
        ExportForm,
        DemoForm,
        SweepForm,
        AutoForm,
        ScoresForm,
        VectorForm,
    )
}


def new_form(kind: str, at: Situation, texts: Texts | None = None) -> JobForm:
    """The form for a new job of a kind, with some texts in its fields."""
    finding.forget()
    form = FORMS[kind](at)
    form.fields = filled_in(form.fields, texts or {})
    form.way = _way(kind)
    return form


def _way(kind: str) -> Sequence[str]:
    """The keys of Runs that open the form of a new job of this kind."""
    opens = f"new('{kind}')"
    names = [one.id.partition(".")[2] for one in scope_actions("runs") if one.action == opens]
    return ("app.runs", "runs.new", f"new.{names[0]}") if names else ()


def form_of_spec(at: Situation, spec: "JobSpec") -> JobForm:
    """The form of a job that begins with these values."""
    finding.forget()
    return FORMS[spec.kind](at, spec)


def form_of_job(at: Situation, job_id: str) -> JobForm:
    """The form with the values of an earlier job. Reads its file; raises MiCrowError."""
    from mi_crow.jobs.spec import JobSpec

    form = form_of_spec(at, JobSpec.load(at.workspace.job_dir(job_id)))
    form.way = "app.runs", "runs.again"
    return form
