"""What a screen says that needs an SAE while none is open."""

from tui.context import AppContext
from tui.preferences.key_words import key

_MAKE_ONE = ("demo", "train", "import")  # kinds of jobs that end with an SAE


def no_sae(context: AppContext) -> str:
    """Why there is nothing to see, and the keys that change that; empty while an SAE is open."""
    if context.sae_id is not None:
        return ""
    if not context.has_looked:
        return "Looking at the workspace…"
    runs = key("app.runs")
    if context.saes():
        return f"No SAE is open: {runs} goes to Runs, where {key('list.open')} opens one"
    if job := making_one(context):
        return f"No SAE yet: {runs} goes to Runs, where {job} makes one"
    return f"No SAE yet: {runs} goes to Runs, where {key('runs.new')} starts the demo or a capture"


def making_one(context: AppContext) -> str:
    """The job, waiting or running, that ends with an SAE; empty when there is none."""
    making = (job for job in context.jobs() if job.active and job.kind in _MAKE_ONE)
    return next((job.name or job.job_id for job in making), "")
