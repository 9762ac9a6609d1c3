"""Giving a run or an SAE another id in one operation, although many files contain it.

The folder moves in one step, but concepts, the SAEs of a run and jobs name it too. So the renaming
is recorded first; whoever opens the workspace next finishes what a killed process started, or
undoes it when nothing had moved yet. Every step can be repeated.
"""

import fcntl
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from mi_crow.errors import MiCrowError, UserError
from mi_crow.jobs.dependents import PARAMETERS, refuse_in_use
from mi_crow.jobs.spec import SPEC_NAME
from mi_crow.jobs.status import STATUS_NAME
from mi_crow.store.atomic import read_json, sync_folder, write_json
from mi_crow.store.ids import validate_id
from mi_crow.store.runs.manifest import updating_manifest
from mi_crow.store.workspace import RENAMING_NAME, Workspace

_LOCK_NAME = ".renaming.lock"
_JOB_FILES = (SPEC_NAME, STATUS_NAME, "output.json")


@dataclass(frozen=True)
class Renaming:
    """A renaming in progress."""

    what: str  # "run" or "SAE"
    old: str
    new: str


def rename_run(workspace: Workspace, name: str, new: str) -> None:
    """Gives a run another id, and updates the SAEs and jobs that name it.

    Raises UserError or NotFoundError.
    """
    _rename(workspace, Renaming("run", name, new), workspace.run_dir(name))


def rename_sae(workspace: Workspace, name: str, new: str) -> None:
    """Gives an SAE another id; its concepts go with it. Raises UserError or NotFoundError."""
    _rename(workspace, Renaming("SAE", name, new), workspace.sae_dir(name))


def finish_renaming(workspace: Workspace) -> None:
    """Finishes or undoes a renaming whose process died. Does nothing while it still runs, or in a
    workspace that is not writable."""
    try:
        with _exclusive(workspace, wait=False) as locked:
            if locked:
                _finish(workspace)
    except (MiCrowError, OSError):
        return  # the cause shows up where it matters; the record stays


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
            _update_references(workspace, renaming)
        except MiCrowError:
            _undo(workspace, renaming)
            raise
        _forget(workspace)


def _finish(workspace: Workspace) -> None:
    """Finishes the recorded renaming. The caller holds the lock."""
    path = workspace.root / RENAMING_NAME
    if not path.exists():
        return
    try:
        data = read_json(path)
        renaming = Renaming(**{key: validate_id(data[key], key) for key in ("what", "old", "new")})
        parent = workspace.parent_of(renaming.what)
    except (MiCrowError, KeyError, TypeError):
        _forget(workspace)  # not a record of ours
        return
    old, new = parent / renaming.old, parent / renaming.new
    if new.is_dir() and not old.exists():
        try:
            _update_references(workspace, renaming)
        except UserError:
            _undo(workspace, renaming)
            return
    _forget(workspace)


def _update_references(workspace: Workspace, renaming: Renaming) -> None:
    """Updates every file that names what was moved. Raises UserError, with nothing changed yet,
    when concepts of another SAE have the new id."""
    old, new = renaming.old, renaming.new
    if renaming.what == "run":
        with updating_manifest(workspace.activations_dir / new) as manifest:
            manifest.run_id = new
            manifest.former_ids = [*(one for one in manifest.former_ids if one != old), old]
        for sae in workspace.list_saes():
            _edit_json(sae.path / "cfg.json", lambda cfg: _in_cfg(cfg, old, new))
            _edit_json(sae.path / "training.json", lambda data: _in_training(data, old, new))
    else:
        if workspace.annotations_path.exists():
            from mi_crow.mechanistic.concepts.annotations import Annotations

            annotations = Annotations(workspace.annotations_path)
            try:
                annotations.rename_sae(old, new)
            finally:
                annotations.close()
        from mi_crow.mechanistic.steering.measure.results import FOLDER, rename_in_measurement

        for measured in (workspace.root / FOLDER).glob("*.json"):
            _edit_json(measured, lambda data: rename_in_measurement(data, old, new))
        from mi_crow.mechanistic.vectors.noting import rename_in_vectors

        rename_in_vectors(workspace, old, new)
        for sweep in workspace.saes_dir.glob("*/sweep.json"):
            _edit_json(sweep, lambda data: _in_sweep(data, old, new))
        for training in workspace.saes_dir.glob("*/training.json"):
            _edit_json(training, lambda data: _in_training_of_sae(data, old, new))
        evaluation = workspace.saes_dir / new / "evaluation.json"
        _edit_json(evaluation, lambda data: _replace(data, "sae_id", old, new))
    for job in workspace.jobs_dir.glob("*"):
        for name in _JOB_FILES:
            _edit_json(job / name, lambda data: _in_job(data, renaming))


def _undo(workspace: Workspace, renaming: Renaming) -> None:
    parent = workspace.parent_of(renaming.what)
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


@contextmanager
def _exclusive(workspace: Workspace, *, wait: bool) -> Iterator[bool]:
    """Keeps other processes from renaming in the block; false when one does and `wait` is off."""
    with (workspace.root / _LOCK_NAME).open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            yield False
            return
        yield True


def _in_cfg(cfg: Any, old: str, new: str) -> bool:
    own = cfg["metadata"]["mi_crow"]
    changed = [_replace(one, "run_id", old, new) for one in (own, *cfg.get("models", ()))]
    return any(changed)


def _in_training(data: Any, old: str, new: str) -> bool:
    config = data["config"]
    changed = [_replace(config, key, old, new) for key in PARAMETERS["run"]]
    return any(changed)


def _in_training_of_sae(data: Any, old: str, new: str) -> bool:
    """An SAE's training names the SAE itself, and the one that it was continued from."""
    config, result = data["config"], data.get("result") or {}
    named = [_replace(config, key, old, new) for key in (*PARAMETERS["SAE"], "name")]
    return any([*named, _replace(result, "sae_id", old, new)])


def _in_sweep(data: Any, old: str, new: str) -> bool:
    if old not in data["saes"]:
        return False
    data["saes"] = [new if name == old else name for name in data["saes"]]
    return True


def _in_job(data: Any, renaming: Renaming) -> bool:
    """A job's spec names what it reads, its status and output what it makes."""
    old, new = renaming.old, renaming.new
    makes = {"run": ("run",), "SAE": ("sae", "SAE")}[renaming.what]
    params = data.get("params", {})
    changed = [_replace(params, name, old, new) for name in PARAMETERS[renaming.what]]
    if renaming.what == "SAE":
        from mi_crow.mechanistic.concepts.annotations_saved import rename_in_stack

        changed.append(rename_in_stack(params.get("interventions"), old, new))
    if data.get("what") in makes:
        changed.append(_replace(data, "id", old, new))
    if "heartbeat" in data or "status" in data:
        changed.append(_replace(data, "output", old, new))
    return any(changed)


def _replace(data: dict[str, Any], key: str, old: str, new: str) -> bool:
    if data.get(key) != old:
        return False
    data[key] = new
    return True


def _edit_json(path: Path, edit: Callable[[Any], bool]) -> None:
    """Changes a file of ours; a missing or foreign one stays as it is."""
    try:
        value = read_json(path)
        changed = edit(value)
    except (MiCrowError, KeyError, TypeError, AttributeError):
        return
    if changed:
        write_json(path, value)
