"""Deleting jobs and unfinished runs and SAEs, and the reasons not to."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mi_crow.errors import MiCrowError, NotFoundError, UserError
from mi_crow.jobs.dependents import is_being_written, refuse_in_use, trained_on, uses
from mi_crow.jobs.process import LEAVING_S, LOCK_NAME, take_lock
from mi_crow.jobs.spec import SPEC_NAME
from mi_crow.jobs.status import JobState, list_jobs, read_state
from mi_crow.store.ids import validate_id
from mi_crow.store.runs.manifest import RunManifest
from mi_crow.store.workspace import MARKERS, Workspace, folder_bytes


@dataclass(frozen=True)
class Unfinished:
    """The folder of a run or SAE that was never finished."""

    what: str  # run | SAE
    name: str
    path: Path
    bytes: int
    changed: tuple[int, ...] = ()  # nanoseconds: the folder, and each of those in it


@dataclass(frozen=True)
class Removal:
    """The consequences of deleting a run or an SAE."""

    what: str  # run | SAE
    name: str
    folder: Path
    bytes: int
    orphans: tuple[str, ...]  # SAEs trained on the run
    indexed: tuple[str, ...]  # SAEs whose index was built from the run
    waiting: tuple[str, ...]  # resumable jobs that need it
    begun_by: tuple[str, ...]  # those of them that have begun to make it

    def consequences(self) -> list[str]:
        """What becomes impossible, a sentence each."""
        lists = (
            ("index and evaluate need another run: ", self.orphans),
            ("index --append cannot add to the index of ", self.indexed),
            ("these jobs cannot be resumed: ", sorted({*self.waiting} - {*self.begun_by})),
            ("these jobs would start again from nothing: ", self.begun_by),
        )
        return [f"without it, {words}{', '.join(names)}" for words, names in lists if names]


def plan_removal(workspace: Workspace, what: str, name: str) -> Removal:
    """The consequences of deleting the run or SAE (`what`) with the id `name`, finished or not.

    Raises NotFoundError; UserError while an active job or another command uses it.
    """
    from mi_crow.mechanistic.features.index.origins import indexed_over  # settings: 10 ms

    folder = any_folder(workspace, what, name)
    used = refuse_in_use(workspace, what, name, folder)
    waiting = waiting_for(workspace, what, name)
    begun_by = [job.job_id for job in waiting if unfinished_output(workspace, job) == folder]
    return Removal(
        what,
        name,
        folder,
        folder_bytes(folder),
        tuple(used.saes),
        tuple(indexed_over(workspace, name)) if what == "run" else (),
        tuple(job.job_id for job in waiting),
        tuple(begun_by),
    )


def unfinished(
    workspace: Workspace,
    what: str,
    jobs: Sequence[JobState] | None = None,
    before: Sequence[Unfinished] = (),
) -> list[Unfinished]:
    """The non-empty folders of runs or SAEs (`what`) that were never finished and are not being
    written now, by name. An unfinished run with a manifest counts as a run.

    `jobs`: those of the workspace, where they are already known. `before`: what was found last; the
    files of folders that have not changed since are not counted again.
    """
    parent, marker = workspace.parent_of(what), MARKERS[what]
    known = list_jobs(workspace) if jobs is None else jobs
    active = [job for job in known if job.active]
    in_progress = {job.output for job in active}
    if not parent.is_dir() or any(job.kind == "demo" for job in active):
        return []
    return [
        _unfinished(what, folder, before)
        for folder in sorted(parent.iterdir())
        if folder.is_dir()
        and not folder.name.startswith(".")
        and folder.name not in in_progress
        and not os.path.lexists(folder / marker)
        and _has_files(folder)
        and not is_being_written(folder)
    ]


def _unfinished(what: str, folder: Path, before: Sequence[Unfinished]) -> Unfinished:
    changed = _changed(folder)
    for one in before:
        if changed and (one.what, one.path, one.changed) == (what, folder, changed):
            return one
    return Unfinished(what, folder.name, folder, folder_bytes(folder), changed)


def _changed(folder: Path) -> tuple[int, ...]:
    """When something was added to a folder or to those in it, or taken away; empty where that is
    unknown."""
    try:
        inside = sorted(entry.path for entry in os.scandir(folder) if entry.is_dir())
        return tuple(os.stat(path).st_mtime_ns for path in (folder, *inside))
    except OSError:
        return ()


def any_folder(workspace: Workspace, what: str, name: str) -> Path:
    """The folder of a run, SAE or job, finished or not. Raises UserError or NotFoundError."""
    folder = workspace.parent_of(what) / validate_id(name, what)
    return folder if folder.is_dir() else workspace.folder_of(what, name)  # raises


def waiting_for(workspace: Workspace, what: str, name: str) -> list[JobState]:
    """The resumable jobs that would read or continue a run or an SAE."""
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
    """The output that a job has started and not finished, if any."""
    from mi_crow.jobs.kinds import KINDS

    what = KINDS[job.kind].makes if job.kind in KINDS else None
    if what is None or job.output is None:
        return None
    folder = workspace.parent_of(what) / job.output
    try:
        validate_id(job.output, what)
        if not folder.is_dir():
            return None
        if what == "SAE":
            return None if (folder / MARKERS[what]).exists() else folder
        return None if RunManifest.load(folder).complete else folder
    except NotFoundError:
        return folder
    except MiCrowError:
        return None  # unreadable: for the user to decide


def remove_job(workspace: Workspace, job_id: str, *, force: bool = False) -> list[str]:
    """Deletes a job that has ended and its unfinished output; gives the deleted folders, relative
    to the workspace.

    Raises NotFoundError; UserError for an active job, and without `force` for one that could be
    resumed to finish its output.
    """
    job_dir = any_folder(workspace, "job", job_id)
    lock = take_lock(job_dir / LOCK_NAME, LEAVING_S)
    if lock is None:
        raise UserError(
            f"job {job_id!r} is active", hint=f"cancel it first: mi-crow jobs cancel {job_id}"
        )
    try:
        output = None
        if (job_dir / SPEC_NAME).exists():
            state = _state(job_dir)
            output = None if state is None else unfinished_output(workspace, state)
            if state is not None and state.active:  # held by Slurm
                raise UserError(
                    f"job {job_id!r} is {state.status}",
                    hint=f"cancel it first: mi-crow jobs cancel {job_id}",
                )
            if output is not None and not force:
                raise UserError(
                    f"job {job_id!r} can be resumed; deleting it also deletes its unfinished "
                    f"output in {output.relative_to(workspace.root)}",
                    hint=f"mi-crow jobs resume {job_id}, or --force",
                )
        deleted = [folder for folder in (output, job_dir) if folder is not None]
        for folder in deleted:
            workspace.delete(folder)
    finally:
        os.close(lock)
    return [str(folder.relative_to(workspace.root)) for folder in deleted]


def _state(job_dir: Path) -> JobState | None:
    """The job's state; None when its files are unreadable and it can only be deleted."""
    try:
        return read_state(job_dir, lock_held=False)
    except MiCrowError:
        return None


def _has_files(folder: Path) -> bool:
    try:
        return any(folder.iterdir())
    except OSError:  # it is listed as unreadable
        return False
