"""The folder a job makes: reserved once, remembered in the job, found again by a resume."""

from pathlib import Path
from typing import Any

from mi_crow.errors import MiCrowError, NotFoundError
from mi_crow.jobs.kinds import Kind
from mi_crow.store.atomic import read_json, remove_stale, write_json
from mi_crow.store.manifest import RunManifest
from mi_crow.store.workspace import Workspace

OUTPUT_NAME = "output.json"


def reserve_output(workspace: Workspace, job_dir: Path, kind: Kind, config: Any) -> Path | None:
    """The folder that this job writes to, made now or by an earlier attempt; None for no folder.

    Raises UserError when the name that the user chose is taken.
    """
    if kind.makes is None:
        return None
    parent = workspace.activations_dir if kind.makes == "run" else workspace.saes_dir
    path = job_dir / OUTPUT_NAME
    if path.exists():
        folder = parent / read_json(path)["id"]
        folder.mkdir(parents=True, exist_ok=True)
        remove_stale(folder)
        return folder
    make = workspace.make_run_dir if kind.makes == "run" else workspace.make_sae_dir
    folder = make(config.name, _short(config))
    write_json(path, {"what": kind.makes, "id": folder.name})
    return folder


def withdraw_output(workspace: Workspace, job_dir: Path, folder: Path | None) -> None:
    """Removes a reserved folder in which nothing was committed."""
    if folder is None or _holds_something(folder):
        return
    (job_dir / OUTPUT_NAME).unlink(missing_ok=True)
    try:
        workspace.delete(folder)
    except (MiCrowError, OSError):
        return  # the failure that brought us here is the one to report


def _holds_something(folder: Path) -> bool:
    """True for a run with a committed part, an SAE, or a checkpoint of one."""
    if (folder / "cfg.json").exists() or any(folder.glob("checkpoints/step-*")):
        return True
    try:
        return bool(RunManifest.load(folder).parts)
    except NotFoundError:
        return False
    except MiCrowError:
        return True  # not understood: leave it for a person to look at


def _short(config: Any) -> str:
    """A few letters for an id that nobody chose."""
    if hasattr(config, "arch"):
        return config.arch
    return Path(config.model.model).name
