"""Looking at the workspace once a second, in a thread: what changed on disk since the last look."""

import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from mi_crow.errors import NotFoundError
from mi_crow.store.unreadable import Unreadable
from mi_crow.store.workspace import MARKERS, RunSummary, SaeSummary, Workspace

if TYPE_CHECKING:
    from mi_crow.jobs import JobState
    from mi_crow.jobs.removing import Unfinished

ACTIVE = ("queued", "running")
ENDED = ("finished", "failed", "cancelled")  # a lost one may be found again

Marks = tuple[tuple[str, int, int], ...]


@dataclass(frozen=True)
class Scan:
    """One look. The marks are names, times and inodes: equal marks mean that nothing changed."""

    jobs: "tuple[JobState, ...]" = ()
    runs: tuple[RunSummary, ...] = ()
    saes: tuple[SaeSummary, ...] = ()
    job_marks: Marks = ()
    store_marks: Marks = ()
    folder_marks: Marks = ()  # of runs and SAEs: a note, or a file that is gone
    unreadable: tuple[Unreadable, ...] = ()  # runs and SAEs
    unfinished: "tuple[Unfinished, ...]" = ()  # runs and SAEs

    def store(self) -> tuple[object, ...]:
        """What is shown of the runs and SAEs."""
        return self.runs, self.saes, self.unreadable, self.unfinished


def look(workspace: Workspace, before: Scan | None) -> Scan:
    """Scans the workspace, reading only what changed since `before`. Blocks on the disk.

    Raises NotFoundError when the workspace is gone: an empty one is something else.
    """
    check_there(workspace)
    job_marks = _marks(workspace.jobs_dir, ("spec.json", "status.json", "events.jsonl", "cancel"))
    store_marks = _store_marks(workspace)
    folder_marks = _folder_marks(workspace.activations_dir, workspace.saes_dir)
    same_jobs = before is not None and job_marks == before.job_marks
    # Whether a running job is lost shows in its lock, not in a file's time.
    if before is None or not same_jobs or any(job.status in ACTIVE for job in before.jobs):
        jobs = _jobs(workspace, _still_ended(before, job_marks) if before is not None else {})
    else:
        jobs = before.jobs
    unfinished = _unfinished(workspace, jobs, before.unfinished if before is not None else ())
    if before is not None and store_marks == before.store_marks:
        return replace(
            before,
            jobs=jobs,
            job_marks=job_marks,
            folder_marks=folder_marks,
            unfinished=unfinished,
        )
    (runs, unread_runs), (saes, unread_saes) = workspace.scan_runs(), workspace.scan_saes()
    if (marks := _store_marks(workspace)) != store_marks:
        # Something was renamed meanwhile: its id and its mark would be of two moments.
        store_marks = marks
        (runs, unread_runs), (saes, unread_saes) = workspace.scan_runs(), workspace.scan_saes()
    unreadable = (*unread_runs, *unread_saes)
    return Scan(
        jobs,
        tuple(runs),
        tuple(saes),
        job_marks,
        store_marks,
        folder_marks,
        unreadable,
        unfinished,
    )


def check_there(workspace: Workspace) -> None:
    """Raises NotFoundError when the workspace is gone: what is written then would make another one
    in its place."""
    if not workspace.exists():
        raise NotFoundError(
            f"the workspace is gone: {str(workspace.root)!r} is not there",
            hint="what you see is as it was, and goes on once the folder is back",
        )


def why_read_only(workspace: Workspace) -> str:
    """Why nothing in the workspace can be changed; empty where it can."""
    root = workspace.root
    if os.statvfs(root).f_flag & os.ST_RDONLY:
        return "the file system is read-only"
    if not os.access(root, os.W_OK | os.X_OK):
        return f"you may not write to {str(root)!r}"
    return ""


def ended(before: "Sequence[JobState]", now: "Sequence[JobState]") -> "list[JobState]":
    """The jobs that were active at the last look and no longer are."""
    active = {job.job_id for job in before if job.status in ACTIVE}
    return [job for job in now if job.job_id in active and job.status not in ACTIVE]


def renamed(before: Scan, now: Scan) -> dict[str, str]:
    """The SAEs that have another id now, by the one that they had: their file is the same."""
    old, new = _sae_files(before), _sae_files(now)
    gone = {old[file]: file for file in old if old[file] not in new.values()}
    return {name: new[file] for name, file in gone.items() if file in new}


def is_gone(sae_id: str, before: Scan, now: Scan) -> bool:
    """Whether an SAE was removed since; one that cannot be read is still there."""
    there = (one.name for one in (*now.unreadable, *now.unfinished) if one.what == "SAE")
    known = (sae.sae_id for sae in now.saes)
    return sae_id in {sae.sae_id for sae in before.saes} and sae_id not in {*there, *known}


def _sae_files(scan: Scan) -> dict[tuple[int, int], str]:
    """The ids of the SAEs by time and inode of the file that makes them whole."""
    ids, marker = {sae.sae_id for sae in scan.saes}, MARKERS["SAE"]
    found = ((os.path.split(path), mark) for path, *mark in scan.store_marks)
    return {
        (mark[0], mark[1]): name
        for (folder, file), mark in found
        if file == marker and (name := os.path.basename(folder)) in ids
    }


def _still_ended(before: Scan, job_marks: Marks) -> "dict[str, JobState]":
    """The jobs that had ended at the last look and have not changed since: while one runs, the
    hundreds before it are not read every second."""
    marks = {*job_marks} ^ {*before.job_marks}
    changed = {os.path.basename(os.path.dirname(path)) for path, *_ in marks}
    return {
        job.job_id: job for job in before.jobs if job.status in ENDED and job.job_id not in changed
    }


def _jobs(workspace: Workspace, known: "Mapping[str, JobState]") -> "tuple[JobState, ...]":
    if not workspace.jobs_dir.is_dir():
        return ()
    from mi_crow.jobs import scan_jobs

    return tuple(scan_jobs(workspace, known))


def _unfinished(
    workspace: Workspace, jobs: "Sequence[JobState]", before: "Sequence[Unfinished]"
) -> "tuple[Unfinished, ...]":
    """Looked for each time: an unfinished folder has no file yet whose mark would change."""
    lacking = [what for what in ("run", "SAE") if _lacks_marker(workspace.parent_of(what), what)]
    if not lacking:  # nor is there a reason to import what deletes
        return ()
    from mi_crow.jobs.removing import unfinished

    return tuple(one for what in lacking for one in unfinished(workspace, what, jobs, before))


def _lacks_marker(parent: Path, what: str) -> bool:
    """Whether some folder of a run or an SAE lacks the file that makes it whole."""
    return any(
        not os.path.lexists(os.path.join(folder, MARKERS[what]))
        for folder in _folders(parent)
        if not os.path.basename(folder).startswith(".")
    )


def _marks(parent: Path, names: tuple[str, ...]) -> Marks:
    marks = []
    for folder in _folders(parent):
        for name in names:
            try:
                stat = os.stat(os.path.join(folder, name))
            except OSError:
                continue
            marks.append((f"{folder}/{name}", stat.st_mtime_ns, stat.st_ino))
    return tuple(marks)


def _store_marks(workspace: Workspace) -> Marks:
    return _marks(workspace.activations_dir, ("manifest.json",)) + _marks(
        workspace.saes_dir, ("cfg.json", "evaluation.json", "features.duckdb")
    )


def _folder_marks(*parents: Path) -> Marks:
    """When files were last added to the folders in each of `parents`, replaced or taken away."""
    marks = []
    for folder in (one for parent in parents for one in _folders(parent)):
        with suppress(OSError):  # removed meanwhile
            stat = os.stat(folder)
            marks.append((folder, stat.st_mtime_ns, stat.st_ino))
    return tuple(marks)


def _folders(parent: Path) -> list[str]:
    """The folders in `parent`; none where it cannot be read."""
    try:
        return sorted(entry.path for entry in os.scandir(parent) if entry.is_dir())
    except OSError:
        return []
