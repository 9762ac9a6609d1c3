"""The folder a job makes: reserved once, remembered in the job, found again by a resume."""

from pathlib import Path
from typing import Any

from mi_crow.errors import MiCrowError
from mi_crow.jobs.kinds import Kind
from mi_crow.store.atomic import read_json, write_json
from mi_crow.store.workspace import Workspace

OUTPUT_NAME = "output.json"
# What a folder that is worth keeping holds: a manifest, or an SAE or a checkpoint of one.
_KEEP = ("manifest.json", "cfg.json", "checkpoints/step-*")


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
        return folder
    make = workspace.make_run_dir if kind.makes == "run" else workspace.make_sae_dir
    folder = make(config.name, _short(config))
    write_json(path, {"what": kind.makes, "id": folder.name})
    return folder


def withdraw_output(workspace: Workspace, job_dir: Path, folder: Path | None) -> None:
    """Removes a reserved folder in which nothing was committed."""
    if folder is None or any(any(folder.glob(pattern)) for pattern in _KEEP):
        return
    (job_dir / OUTPUT_NAME).unlink(missing_ok=True)
    try:
        workspace.delete(folder)
    except (MiCrowError, OSError):
        return  # the failure that brought us here is the one to report


def _short(config: Any) -> str:
    """A few letters for an id that nobody chose."""
    if hasattr(config, "arch"):
        return config.arch
    return Path(config.model.model).name
