"""Who uses a run or an SAE."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from mi_crow.causes import machine_error
from mi_crow.errors import UserError
from mi_crow.jobs.process import is_locked
from mi_crow.jobs.status import JobState, list_jobs
from mi_crow.store.workspace import Workspace

FOREGROUND_LOCK = ".lock-foreground"  # in a folder that a command fills without a job


@dataclass(frozen=True)
class Dependents:
    """What depends on a run or an SAE."""

    jobs: list[str]  # active jobs that read or write it
    saes: list[str]  # SAEs that were trained on the run; none for an SAE


def dependents_of(workspace: Workspace, what: str, name: str) -> Dependents:
    """Who uses the run or SAE (`what` is "run" or "SAE") with the id `name`."""
    trained = trained_on(workspace)
    jobs = [
        job.job_id
        for job in list_jobs(workspace)
        if job.active and (job.kind == "demo" or uses(job, what, name, trained))
    ]
    saes = [sae for sae, run in trained.items() if run == name] if what == "run" else []
    return Dependents(jobs, saes)


def refuse_in_use(workspace: Workspace, what: str, name: str, folder: Path) -> Dependents:
    """Who needs the run or SAE in `folder`, which nobody works on. Raises UserError when somebody
    does: an active job, or a command that torchrun started."""
    used = dependents_of(workspace, what, name)
    if used.jobs:
        raise UserError(
            f"{what} {name!r} is in use by job {', '.join(used.jobs)}",
            hint="cancel it or wait: mi-crow jobs",
        )
    if is_being_filled(folder):
        raise UserError(
            f"{what} {name!r} is being written by a command that torchrun started",
            hint="stop that (ctrl+c) or wait",
        )
    return used


def is_being_filled(folder: Path) -> bool:
    """Whether a command without a job writes to the folder now. Raises MachineError."""
    try:
        return is_locked(folder / FOREGROUND_LOCK)
    except OSError as error:
        raise machine_error(error, folder) or error from error


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
