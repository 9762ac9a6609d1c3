"""Removing jobs, and runs and SAEs that were never finished; and what speaks against it."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mi_crow.errors import MiCrowError, NotFoundError, UserError
from mi_crow.jobs.dependents import is_being_filled, refuse_in_use, trained_on, uses
from mi_crow.jobs.process import LOCK_NAME, take_lock
from mi_crow.jobs.spec import SPEC_NAME
from mi_crow.jobs.status import JobState, list_jobs, read_state
from mi_crow.mechanistic.features.index.origins import indexed_over
from mi_crow.store.ids import validate_id
from mi_crow.store.runs.manifest import MANIFEST_NAME, RunManifest
from mi_crow.store.workspace import Workspace, folder_bytes

_LEAVING_S = 5.0  # a worker that has said its last word lets go of the lock in a moment


@dataclass(frozen=True)
class Unfinished:
    """The folder of an SAE or run that nothing has finished."""

    what: str  # run | SAE
    name: str
    path: Path
    bytes: int


@dataclass(frozen=True)
class Removal:
    """What removing a run or an SAE means."""

    what: str  # run | SAE
    name: str
    folder: Path
    bytes: int
    orphans: tuple[str, ...]  # SAEs that were trained on the run
    indexed: tuple[str, ...]  # SAEs whose index was built over the run
    waiting: tuple[str, ...]  # ended jobs that could be resumed and need it

    def consequences(self) -> list[str]:
        """What can no longer be done without it, a sentence each."""
        told = (
            ("index and evaluate need another run: ", self.orphans),
            ("index --append cannot add to the index of ", self.indexed),
            ("these jobs cannot be resumed: ", self.waiting),
        )
        return [f"without it, {words}{', '.join(names)}" for words, names in told if names]


def plan_removal(workspace: Workspace, what: str, name: str) -> Removal:
    """What removing the run or the SAE (`what`) with the id `name`, finished or not, means.

    Raises NotFoundError; UserError while an active job or another command uses it.
    """
    folder = any_folder(workspace, what, name)
    used = refuse_in_use(workspace, what, name, folder)
    return Removal(
        what,
        name,
        folder,
        folder_bytes(folder),
        tuple(used.saes),
        tuple(indexed_over(workspace, name)) if what == "run" else (),
        tuple(job.job_id for job in waiting_for(workspace, what, name)),
    )


def unfinished(
    workspace: Workspace, what: str, jobs: Sequence[JobState] | None = None
) -> list[Unfinished]:
    """The folders of runs or SAEs (`what`) that hold something and were never finished, by name,
    without those that a job or another command fills now. An unfinished run with a manifest is a
    run like others.

    `jobs`: those of the workspace, where they are known already.
    """
    parent, marker = _shelf(workspace, what)
    known = list_jobs(workspace) if jobs is None else jobs
    active = [job for job in known if job.active]
    filling = {job.output for job in active}
    if not parent.is_dir() or any(job.kind == "demo" for job in active):
        return []
    return [
        Unfinished(what, folder.name, folder, folder_bytes(folder))
        for folder in sorted(parent.iterdir())
        if folder.is_dir()
        and not folder.name.startswith(".")
        and folder.name not in filling
        and not os.path.lexists(folder / marker)
        and _holds_something(folder)
        and not is_being_filled(folder)
    ]


def any_folder(workspace: Workspace, what: str, name: str) -> Path:
    """The folder of a run or an SAE, finished or not. Raises UserError or NotFoundError."""
    parent, _ = _shelf(workspace, what)
    folder = parent / validate_id(name, what)
    if not folder.is_dir():
        return workspace.run_dir(name) if what == "run" else workspace.sae_dir(name)  # raises
    return folder


def waiting_for(workspace: Workspace, what: str, name: str) -> list[JobState]:
    """The jobs that ended, can be resumed and would then read or go on with a run or an SAE."""
    trained = trained_on(workspace)
    return [
        job
        for job in list_jobs(workspace)
        if not job.active
        and job.resumable
        and (job.status == "lost" or unfinished_output(workspace, job) is not None)
        and uses(job, what, name, trained)
    ]


def unfinished_output(workspace: Workspace, job: JobState) -> Path | None:
    """What a job began and has not finished; None for nothing."""
    what = {"capture": "run", "train": "SAE"}.get(job.kind)
    if what is None or job.output is None:
        return None
    parent, marker = _shelf(workspace, what)
    try:
        folder = parent / validate_id(job.output, what)
        if not folder.is_dir():
            return None
        if what == "SAE":
            return None if (folder / marker).exists() else folder
        return None if RunManifest.load(folder).complete else folder
    except NotFoundError:
        return folder
    except MiCrowError:
        return None  # not understood: a person's to decide


def remove_job(workspace: Workspace, job_id: str, *, force: bool = False) -> list[str]:
    """Removes an ended job and what it left unfinished; gives the removed folders, relative to the
    workspace.

    Raises NotFoundError; UserError for a job that is active, and without `force` for one that could
    be resumed to finish what it began.
    """
    job_dir = workspace.jobs_dir / validate_id(job_id, "job")
    if not job_dir.is_dir():
        job_dir = workspace.job_dir(job_id)  # raises
    lock = take_lock(job_dir / LOCK_NAME, _LEAVING_S)
    if lock is None:
        raise UserError(
            f"job {job_id!r} is active", hint=f"cancel it first: mi-crow jobs cancel {job_id}"
        )
    try:
        output = None
        if (job_dir / SPEC_NAME).exists():
            state = _state(job_dir)
            output = None if state is None else unfinished_output(workspace, state)
            if state is not None and state.active:  # slurm has it
                raise UserError(
                    f"job {job_id!r} is {state.status}",
                    hint=f"cancel it first: mi-crow jobs cancel {job_id}",
                )
            if output is not None and not force:
                raise UserError(
                    f"job {job_id!r} can be resumed; without it, what it began in "
                    f"{output.relative_to(workspace.root)} is of no use and goes too",
                    hint=f"mi-crow jobs resume {job_id}, or --force",
                )
        gone = [folder for folder in (output, job_dir) if folder is not None]
        for folder in gone:
            workspace.delete(folder)
    finally:
        os.close(lock)
    return [str(folder.relative_to(workspace.root)) for folder in gone]


def _state(job_dir: Path) -> JobState | None:
    """None for a job whose files cannot be understood: it can only be removed."""
    try:
        return read_state(job_dir, lock_held=False)
    except MiCrowError:
        return None


def _holds_something(folder: Path) -> bool:
    try:
        return any(folder.iterdir())
    except OSError:  # what may not be looked into is told as unreadable
        return False


def _shelf(workspace: Workspace, what: str) -> tuple[Path, str]:
    if what == "run":
        return workspace.activations_dir, MANIFEST_NAME
    return workspace.saes_dir, "cfg.json"
