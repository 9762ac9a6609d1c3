"""Giving a run or an SAE another id: one operation, though its name stands in many places.

The folder moves in one step, but concepts, the SAEs of a run and jobs name it too. So what is to be
done is written down first; whoever opens the workspace next finishes what a killed process began,
or takes it back when nothing had moved yet. Every step can be done twice.
"""

import fcntl
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from mi_crow.errors import MiCrowError, UserError
from mi_crow.jobs.dependents import refuse_in_use
from mi_crow.jobs.spec import SPEC_NAME
from mi_crow.jobs.status import STATUS_NAME
from mi_crow.store.atomic import read_json, sync_folder, write_json
from mi_crow.store.ids import validate_id
from mi_crow.store.runs.manifest import changing
from mi_crow.store.workspace import RENAMING_NAME, Workspace

_LOCK_NAME = ".renaming.lock"
_JOB_FILES = (SPEC_NAME, STATUS_NAME, "output.json")
# Where a job's parameters name a run or an SAE.
_PARAMETERS = {"run": ("run_id",), "SAE": ("sae_id", "init")}


@dataclass(frozen=True)
class Renaming:
    """A renaming that has started."""

    what: str  # "run" or "SAE"
    old: str
    new: str


def rename_run(workspace: Workspace, name: str, new: str) -> None:
    """Gives a run another id, and tells the SAEs and jobs that name it.

    Raises UserError or NotFoundError.
    """
    _rename(workspace, Renaming("run", name, new), workspace.run_dir(name))


def rename_sae(workspace: Workspace, name: str, new: str) -> None:
    """Gives an SAE another id; its concepts go with it. Raises UserError or NotFoundError."""
    _rename(workspace, Renaming("SAE", name, new), workspace.sae_dir(name))


def finish_renaming(workspace: Workspace) -> None:
    """Finishes or takes back a renaming whose process died. One that still runs is left alone, and
    so is everything in a workspace that cannot be written to."""
    try:
        with _exclusive(workspace, wait=False) as alone:
            if alone:
                _finish(workspace)
    except (MiCrowError, OSError):
        return  # who opens the workspace meets the cause where it matters; the record stays


def _rename(workspace: Workspace, renaming: Renaming, folder: Path) -> None:
    target = folder.with_name(validate_id(renaming.new, renaming.what))
    with _exclusive(workspace, wait=True):
        _finish(workspace)
        if target.exists():
            raise UserError(
                f"{renaming.what} {renaming.new!r} exists already", hint="choose another id"
            )
        refuse_in_use(workspace, renaming.what, renaming.old, folder)
        write_json(workspace.root / RENAMING_NAME, asdict(renaming))
        try:
            _move(folder, target)
            _settle(workspace, renaming)
        except MiCrowError:
            _take_back(workspace, renaming)
            raise
        _forget(workspace)


def _finish(workspace: Workspace) -> None:
    """Finishes the renaming that the record describes. The caller holds the lock."""
    path = workspace.root / RENAMING_NAME
    if not path.exists():
        return
    try:
        data = read_json(path)
        renaming = Renaming(**{key: validate_id(data[key], key) for key in ("what", "old", "new")})
        parent = _parent(workspace, renaming)
    except (MiCrowError, KeyError, TypeError):
        _forget(workspace)  # not one that we wrote
        return
    old, new = parent / renaming.old, parent / renaming.new
    if new.is_dir() and not old.exists():
        try:
            _settle(workspace, renaming)
        except UserError:
            _take_back(workspace, renaming)
            return
    _forget(workspace)


def _settle(workspace: Workspace, renaming: Renaming) -> None:
    """Tells everything that names what was moved. Raises UserError, with nothing told yet, where
    the concepts of another SAE bear the new id."""
    old, new = renaming.old, renaming.new
    if renaming.what == "run":
        with changing(workspace.activations_dir / new) as manifest:
            manifest.run_id = new
            manifest.former_ids = [*(one for one in manifest.former_ids if one != old), old]
        for sae in workspace.list_saes():
            _edit_json(sae.path / "cfg.json", lambda cfg: _tell_cfg(cfg, old, new))
            _edit_json(sae.path / "training.json", lambda told: _tell_training(told, old, new))
    else:
        if workspace.annotations_path.exists():
            from mi_crow.mechanistic.concepts.annotations import Annotations

            annotations = Annotations(workspace.annotations_path)
            try:
                annotations.rename_sae(old, new)
            finally:
                annotations.close()
        for sweep in workspace.saes_dir.glob("*/sweep.json"):
            _edit_json(sweep, lambda told: _tell_sweep(told, old, new))
    for job in workspace.jobs_dir.glob("*"):
        for name in _JOB_FILES:
            _edit_json(job / name, lambda told: _tell_job(told, renaming))


def _take_back(workspace: Workspace, renaming: Renaming) -> None:
    parent = _parent(workspace, renaming)
    old, new = parent / renaming.old, parent / renaming.new
    if new.is_dir() and not old.exists():
        _move(new, old)
    _forget(workspace)


def _move(folder: Path, target: Path) -> None:
    folder.rename(target)
    sync_folder(target.parent)


def _forget(workspace: Workspace) -> None:
    (workspace.root / RENAMING_NAME).unlink(missing_ok=True)
    sync_folder(workspace.root)


def _parent(workspace: Workspace, renaming: Renaming) -> Path:
    return {"run": workspace.activations_dir, "SAE": workspace.saes_dir}[renaming.what]


@contextmanager
def _exclusive(workspace: Workspace, *, wait: bool) -> Iterator[bool]:
    """No other process renames anything in the block; false when one does and we do not wait."""
    with (workspace.root / _LOCK_NAME).open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            yield False
            return
        yield True


def _tell_cfg(cfg: Any, old: str, new: str) -> bool:
    own = cfg["metadata"]["mi_crow"]
    return _replace(own, "run_id", old, new)


def _tell_training(told: Any, old: str, new: str) -> bool:
    return _replace(told["config"], "run_id", old, new)


def _tell_sweep(told: Any, old: str, new: str) -> bool:
    if old not in told["saes"]:
        return False
    told["saes"] = [new if name == old else name for name in told["saes"]]
    return True


def _tell_job(told: Any, renaming: Renaming) -> bool:
    """A job's spec names what it reads in its parameters; its status and output what it makes."""
    old, new = renaming.old, renaming.new
    makes = {"run": ("run",), "SAE": ("sae", "SAE")}[renaming.what]
    changed = [
        _replace(told.get("params", {}), name, old, new) for name in _PARAMETERS[renaming.what]
    ]
    if told.get("what") in makes:
        changed.append(_replace(told, "id", old, new))
    if "heartbeat" in told or "status" in told:
        changed.append(_replace(told, "output", old, new))
    return any(changed)


def _replace(told: dict[str, Any], key: str, old: str, new: str) -> bool:
    if told.get(key) != old:
        return False
    told[key] = new
    return True


def _edit_json(path: Path, edit: Callable[[Any], bool]) -> None:
    """Changes a file of ours; one that is not there or holds something else stays as it is."""
    try:
        value = read_json(path)
        changed = edit(value)
    except (MiCrowError, KeyError, TypeError, AttributeError):
        return
    if changed:
        write_json(path, value)
