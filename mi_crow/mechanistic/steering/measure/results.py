"""Measurements of steering as files of the workspace: one JSON file each, whole after each step."""

import hashlib
import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mi_crow.errors import NotFoundError, nearest
from mi_crow.mechanistic.concepts.annotations_saved import rename_in_stack, renamed_target
from mi_crow.store.atomic import write_json
from mi_crow.store.ids import validate_id
from mi_crow.store.json_file import read_object
from mi_crow.store.workspace import Workspace

FOLDER = "steering"
PATTERN = "the pattern "  # how a judge by a regular expression is called


def measurement_id(kind: str, config: Mapping[str, Any], weights: str | None) -> str:
    """The name of a measurement that was given none: equal settings on equal weights have equal
    ones, so that a resumed job finds what it had measured."""
    settings = {key: value for key, value in config.items() if key not in ("device", "name")}
    text = json.dumps([kind, settings, weights], sort_keys=True)
    return f"{kind}-{hashlib.sha256(text.encode()).hexdigest()[:10]}"


class Measurement:
    """The parts of one measurement, kept on disk as soon as they are there."""

    def __init__(self, path: Path, head: Mapping[str, Any]) -> None:
        """Continues the file at `path` if it is an unfinished one with the same `head`."""
        self._path = path
        self._head = dict(head)
        self._parts: dict[str, Any] = {}
        if path.exists():
            held = read_object(path).values
            same = all(held.get(key) == value for key, value in self._head.items())
            if same and held.get("result") is None and isinstance(held.get("parts"), dict):
                self._parts = dict(held["parts"])

    def part(self, key: str) -> Any:
        """A part that was measured before; None if it was not."""
        return self._parts.get(key)

    def keep(self, key: str, value: Any) -> None:
        """Writes a part."""
        self._parts[key] = value
        self._write(None)

    def finish(self, result: Mapping[str, Any]) -> None:
        """Writes the result; the parts are in it."""
        self._write(result)

    def _write(self, result: Mapping[str, Any] | None) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        parts = self._parts if result is None else {}
        write_json(
            self._path, {**self._head, "updated": time.time(), "parts": parts, "result": result}
        )


def open_measurement(
    workspace: Workspace, name: str, kind: str, config: Mapping[str, Any]
) -> Measurement:
    """A new measurement, or the unfinished one with this name and these settings."""
    path = workspace.root / FOLDER / f"{validate_id(name, 'measurement')}.json"
    settings = {key: value for key, value in config.items() if key != "device"}
    plain = json.loads(json.dumps(settings))
    return Measurement(path, {"kind": kind, "config": plain})


def list_measurements(workspace: Workspace) -> list[dict[str, Any]]:
    """The finished measurements, oldest first: name, kind, config, updated, result."""
    found = []
    for path in sorted((workspace.root / FOLDER).glob("*.json")):
        held = read_object(path).values
        if isinstance(held.get("result"), dict):
            found.append(
                {
                    "name": path.stem,
                    **{k: held.get(k) for k in ("kind", "config", "updated")},
                    "result": held["result"],
                }
            )
    return sorted(found, key=lambda one: one["updated"] or 0.0)


def rename_in_measurement(held: Any, sae_id: str, new: str) -> bool:
    """Renames an SAE wherever a measurement names it, in place; True if it did anywhere."""
    if isinstance(held, list):
        each = [rename_in_measurement(one, sae_id, new) for one in held]
        return any(each)
    if not isinstance(held, dict):
        return False
    found = rename_in_stack(held.get("interventions"), sae_id, new)
    if held.get("sae_id") == sae_id:
        held["sae_id"], found = new, True
    if isinstance(stand_ins := held.get("control_targets"), dict):
        held["control_targets"] = {
            renamed_target(target, sae_id, new): renamed_target(str(other), sae_id, new)
            for target, other in stand_ins.items()
        }
        found = found or held["control_targets"] != stand_ins
    inside = [rename_in_measurement(one, sae_id, new) for one in held.values()]
    return found or any(inside)


def by_pattern(result: Mapping[str, Any]) -> bool:
    """Whether a pattern decided what a hit is, and not which words texts on a topic have."""
    return str(result.get("judge", "")).startswith(PATTERN)


def remove_measurement(workspace: Workspace, name: str) -> None:
    """Deletes a measurement. Raises UserError, NotFoundError."""
    path = workspace.root / FOLDER / f"{validate_id(name, 'measurement')}.json"
    if not path.is_file():
        raise NotFoundError(f"measurement {name!r} not found")
    path.unlink()


def read_measurement(workspace: Workspace, name: str) -> dict[str, Any]:
    """The result of one. Raises NotFoundError."""
    known = {one["name"]: one["result"] for one in list_measurements(workspace)}
    if name not in known:
        hint = (
            f"there is {nearest(name, [*known])}" if known else "mi-crow steer evaluate makes one"
        )
        raise NotFoundError(f"measurement {name!r} not found", hint=hint)
    return known[name]
