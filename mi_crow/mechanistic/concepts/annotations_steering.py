"""The SAEs that presets and saved generations name, on an open transaction."""

import sqlite3
from typing import Any

from mi_crow.mechanistic.concepts.annotations_rows import dump
from mi_crow.store.json_file import parse_json


def rename_in_steering(connection: sqlite3.Connection, sae_id: str, new: str) -> None:
    """Makes presets and saved generations follow an SAE to its new id."""
    for row in connection.execute("SELECT name, interventions FROM presets").fetchall():
        stack = parse_json(row["interventions"], "a preset")
        if _renamed(stack, sae_id, new):
            values = (dump(stack), row["name"])
            connection.execute("UPDATE presets SET interventions = ? WHERE name = ?", values)
    for row in connection.execute("SELECT id, sae_ids, settings FROM generations").fetchall():
        ids = parse_json(row["sae_ids"], "the SAEs of a generation")
        settings = parse_json(row["settings"], "the settings of a generation")
        if sae_id not in ids:
            continue
        _renamed(settings.get("interventions"), sae_id, new)
        values = (dump([new if one == sae_id else one for one in ids]), dump(settings), row["id"])
        connection.execute("UPDATE generations SET sae_ids = ?, settings = ? WHERE id = ?", values)


def _renamed(stack: Any, sae_id: str, new: str) -> bool:
    """Renames the SAE of the interventions (their JSON objects) in place; whether one had it."""
    found = False
    for one in stack if isinstance(stack, list) else ():
        if not isinstance(one, dict):
            continue
        start = f"feature:{sae_id}/"
        if str(one.get("target", "")).startswith(start):
            one["target"] = f"feature:{new}/{one['target'].removeprefix(start)}"
            found = True
        if one.get("sae") == sae_id:
            one["sae"], found = new, True
    return found
