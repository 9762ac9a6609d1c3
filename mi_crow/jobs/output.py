"""The output folder of a job: reserved once, recorded in the job, found again by a resume."""

from pathlib import Path
from typing import Any

from mi_crow.errors import CorruptDataError, MiCrowError, NotFoundError, UserError
from mi_crow.jobs.dependents import refuse_in_use
from mi_crow.jobs.kinds import Kind
from mi_crow.jobs.status import read_state
from mi_crow.mechanistic.sae.formats.config import ImportConfig
from mi_crow.store.atomic import remove_stale, write_json
from mi_crow.store.ids import make_folder, validate_id
from mi_crow.store.json_file import read_object
from mi_crow.store.runs.manifest import MANIFEST_NAME, RunManifest
from mi_crow.store.workspace import Workspace

OUTPUT_NAME = "output.json"


def reserve_output(workspace: Workspace, job_dir: Path, kind: Kind, config: Any) -> Path | None:
    """The folder that this job writes to, made now or by an earlier attempt; None without output.

    Raises UserError when the name chosen by the user is taken.
    """
    if kind.makes is None:
        return None
    path = job_dir / OUTPUT_NAME
    if path.exists():
        folder = workspace.parent_of(kind.makes) / validate_id(_reserved(job_dir, path), kind.makes)
        folder.mkdir(parents=True, exist_ok=True)
        remove_stale(folder)
        return folder
    folder = _make(workspace, kind.makes, config)
    write_json(path, {"what": kind.makes.lower(), "id": folder.name})
    return folder


def _reserved(job_dir: Path, path: Path) -> str:
    """The id in `output.json`; when a power cut damaged it, the one in the job's status. Raises
    CorruptDataError when there is neither."""
    try:
        return read_object(path).text("id")
    except CorruptDataError:
        name = read_state(job_dir, lock_held=True).output
        if name is None:
            raise
        return name


def withdraw_output(workspace: Workspace, job_dir: Path, folder: Path | None) -> None:
    """Removes a reserved folder to which nothing was committed."""
    if folder is None or _has_output(folder):
        return
    (job_dir / OUTPUT_NAME).unlink(missing_ok=True)
    remove_empty(workspace, folder)


def claim_output(workspace: Workspace, kind: Kind, config: Any) -> Path:
    """The folder for work without a job: a new one, or the unfinished one with its name.

    Raises UserError when the name belongs to something finished or is in use by a job.
    """
    what = kind.makes or "SAE"
    if config.name is None or not (workspace.parent_of(what) / config.name).exists():
        return _make(workspace, what, config)
    folder = workspace.parent_of(what) / validate_id(config.name, what)
    if _is_finished(folder):
        raise UserError(
            f"{what} {config.name!r} exists already", hint="choose another --name or remove it"
        )
    refuse_in_use(workspace, what, config.name, folder)
    remove_stale(folder)
    return folder


def remove_empty(workspace: Workspace, folder: Path) -> None:
    """Removes an output folder to which nothing was committed."""
    if _has_output(folder):
        return
    try:
        workspace.delete(folder)
    except (MiCrowError, OSError):
        return  # the failure that led here is the one to report


def _make(workspace: Workspace, what: str, config: Any) -> Path:
    return make_folder(workspace.parent_of(what), config.name, _short(config), what)


def _is_finished(folder: Path) -> bool:
    """True for finished output and for foreign files; false for what can be continued."""
    if (folder / "cfg.json").exists():
        return True
    if (folder / MANIFEST_NAME).exists():
        return RunManifest.load(folder).status == "complete"
    visible = {entry.name for entry in folder.iterdir() if not entry.name.startswith(".")}
    return bool(visible - {"checkpoints"})


def _has_output(folder: Path) -> bool:
    """True for a run with a committed part, an SAE, or a checkpoint of one."""
    if (folder / "cfg.json").exists() or any(folder.glob("checkpoints/step-*")):
        return True
    try:
        return bool(RunManifest.load(folder).parts)
    except NotFoundError:
        return False
    except MiCrowError:
        return True  # unreadable: left for the user to look at


def _short(config: Any) -> str:
    """The descriptive part of an id that the user did not choose."""
    if hasattr(config, "arch"):
        return config.arch
    if isinstance(config, ImportConfig):
        return Path(config.path).name
    return Path(config.model.model).name
