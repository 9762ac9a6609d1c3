"""Who uses a run or an SAE."""

from collections.abc import Mapping
from dataclasses import dataclass

from mi_crow.jobs.status import JobState, list_jobs
from mi_crow.store.workspace import Workspace


@dataclass(frozen=True)
class Users:
    """What depends on a run or an SAE."""

    jobs: list[str]  # active jobs that read or write it
    saes: list[str]  # SAEs that were trained on the run; none for an SAE


def users_of(workspace: Workspace, what: str, name: str) -> Users:
    """Who uses the run or SAE (`what` is "run" or "SAE") with the id `name`."""
    trained = trained_on(workspace)
    jobs = [
        job.job_id
        for job in list_jobs(workspace)
        if job.active and (job.kind == "demo" or uses(job, what, name, trained))
    ]
    saes = [sae for sae, run in trained.items() if run == name] if what == "run" else []
    return Users(jobs, saes)


def trained_on(workspace: Workspace) -> dict[str, str | None]:
    """The run that each SAE was trained on, where that is known."""
    return {sae.sae_id: sae.run_id for sae in workspace.list_saes()}


def uses(job: JobState, what: str, name: str, trained: Mapping[str, str | None]) -> bool:
    """Whether a job reads or writes a run or an SAE. `trained` as `trained_on` gives it."""
    key, kind = ("run_id", "capture") if what == "run" else ("sae_id", "train")
    makes = job.kind == kind and name in (job.output, job.params.get("name"))
    # Index and evaluate read the run that their SAE was trained on unless told another.
    implied = what == "run" and trained.get(job.params.get("sae_id", "")) == name
    starts_from = what == "SAE" and job.params.get("init") == name
    return makes or implied or starts_from or job.params.get(key) == name
