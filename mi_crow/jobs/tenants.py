"""Who uses a run or an SAE."""

from dataclasses import dataclass

from mi_crow.jobs.status import list_jobs
from mi_crow.store.workspace import Workspace


@dataclass(frozen=True)
class Users:
    """What depends on a run or an SAE."""

    jobs: list[str]  # active jobs that read or write it
    saes: list[str]  # SAEs that were trained on the run; none for an SAE


def users_of(workspace: Workspace, what: str, name: str) -> Users:
    """Who uses the run or SAE (`what` is "run" or "SAE") with the id `name`."""
    key, kinds = ("run_id", ("capture",)) if what == "run" else ("sae_id", ("train",))
    trained = {sae.sae_id: sae.run_id for sae in workspace.list_saes()}
    jobs = []
    for job in list_jobs(workspace):
        if not job.active:
            continue
        makes = job.kind in kinds and name in (job.output, job.params.get("name"))
        # Index and evaluate read the run that their SAE was trained on unless told another.
        implied = what == "run" and trained.get(job.params.get("sae_id", "")) == name
        if makes or implied or job.params.get(key) == name or job.kind == "demo":
            jobs.append(job.job_id)
    saes = [sae for sae, run in trained.items() if run == name] if what == "run" else []
    return Users(jobs, saes)
