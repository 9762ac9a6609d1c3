"""What depends on a run or an SAE: jobs, and SAEs trained on the run."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from mi_crow.causes import machine_error
from mi_crow.errors import UserError
from mi_crow.jobs.process import is_locked
from mi_crow.jobs.status import JobState, list_jobs
from mi_crow.store.workspace import Workspace

FOREGROUND_LOCK = ".lock-foreground"  # in a folder that a command writes to without a job
# The parameters in which a job names a run or an SAE that it reads.
PARAMETERS: dict[str, tuple[str, ...]] = {
    "run": ("run_id", "tuned_run"),
    "SAE": ("sae_id", "init"),
}


@dataclass(frozen=True)
class Dependents:
    """What depends on a run or an SAE."""

    jobs: list[str]  # active ones that read or write it
    saes: list[str]  # those trained on the run; none for an SAE


def dependents_of(workspace: Workspace, what: str, name: str) -> Dependents:
    """The dependents of the run or SAE (`what` is "run" or "SAE") with the id `name`."""
    trained = trained_on(workspace)
    jobs = [
        job.job_id
        for job in list_jobs(workspace)
        if job.active and (job.kind == "demo" or uses(job, what, name, trained))
    ]
    saes = [sae for sae, runs in trained.items() if name in runs] if what == "run" else []
    return Dependents(jobs, saes)


def refuse_in_use(workspace: Workspace, what: str, name: str, folder: Path) -> Dependents:
    """The dependents of the run or SAE in `folder`. Raises UserError while an active job, or a
    command started by torchrun, uses it."""
    used = dependents_of(workspace, what, name)
    if used.jobs:
        raise UserError(
            f"{what} {name!r} is in use by job {', '.join(used.jobs)}",
            hint="cancel it or wait: mi-crow jobs",
        )
    if is_being_written(folder):
        raise UserError(
            f"{what} {name!r} is being written by a command started with torchrun",
            hint="stop it (ctrl+c) or wait",
        )
    return used


def is_being_written(folder: Path) -> bool:
    """Whether a command without a job is writing to the folder. Raises MachineError."""
    try:
        return is_locked(folder / FOREGROUND_LOCK)
    except OSError as error:
        raise machine_error(error, folder) or error from error


def trained_on(workspace: Workspace) -> dict[str, tuple[str, ...]]:
    """The runs that each SAE was trained on, where they are known: of a crosscoder of two models
    both."""
    found = {}
    for sae in workspace.list_saes():
        runs = [sae.run_id, *(run for _, _, run in sae.models)]
        found[sae.sae_id] = tuple(dict.fromkeys(run for run in runs if run is not None))
    return found


def uses(job: JobState, what: str, name: str, trained: Mapping[str, Sequence[str]]) -> bool:
    """Whether a job reads or writes a run or an SAE. `trained` is the result of `trained_on`."""
    from mi_crow.jobs.kinds import KINDS  # with the settings of every kind: 60 ms

    kind = KINDS.get(job.kind)
    makes = kind is not None and kind.makes == what
    # By default, index and evaluate read the run that their SAE was trained on.
    implied = what == "run" and name in trained.get(job.params.get("sae_id", ""), ())
    reads = any(job.params.get(key) == name for key in PARAMETERS[what])
    return implied or reads or (makes and name in (job.output, job.params.get("name")))
