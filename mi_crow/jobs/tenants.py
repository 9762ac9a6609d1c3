"""Who uses a run or an SAE, and renaming one without breaking those who name it."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mi_crow.errors import MiCrowError, UserError
from mi_crow.jobs.status import list_jobs
from mi_crow.store.atomic import read_json, write_json
from mi_crow.store.ids import validate_id
from mi_crow.store.manifest import RunManifest
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


def rename_run(workspace: Workspace, name: str, new: str) -> None:
    """Gives a run another id, and tells the SAEs that were trained on it.

    Raises UserError or NotFoundError.
    """
    target = _rename(workspace, "run", workspace.run_dir(name), new)
    manifest = RunManifest.load(target)
    manifest.run_id = new
    manifest.save(target)

    def moved(cfg: dict[str, Any]) -> bool:
        own = cfg.get("metadata", {}).get("mi_crow", {})
        if own.get("run_id") != name:
            return False
        own["run_id"] = new
        return True

    for sae in workspace.list_saes():
        _edit_json(sae.path / "cfg.json", moved)


def rename_sae(workspace: Workspace, name: str, new: str) -> None:
    """Gives an SAE another id; its concepts go with it. Raises UserError or NotFoundError."""
    folder = workspace.sae_dir(name)
    target = _rename(workspace, "SAE", folder, new)
    if workspace.annotations_path.exists():
        from mi_crow.mechanistic.concepts.annotations import Annotations

        try:
            Annotations(workspace.annotations_path).rename_sae(name, new)
        except MiCrowError:
            target.rename(folder)  # both or neither: concepts find their SAE by its id
            raise


def _rename(workspace: Workspace, what: str, folder: Path, new: str) -> Path:
    target = folder.with_name(validate_id(new, what))
    if target.exists():
        raise UserError(f"{what} {new!r} exists already", hint="choose another id")
    used = users_of(workspace, what, folder.name)
    if used.jobs:
        raise UserError(
            f"{what} {folder.name!r} is in use by job {', '.join(used.jobs)}",
            hint="cancel it or wait: mi-crow jobs",
        )
    folder.rename(target)
    return target


def _edit_json(path: Path, edit: Callable[[dict[str, Any]], bool]) -> None:
    value = read_json(path)
    if edit(value):
        write_json(path, value)
