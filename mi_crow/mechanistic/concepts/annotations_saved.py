"""Presets and saved generations: what Steer keeps in the annotations."""

import sqlite3
import time
from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any

from mi_crow.clean_text import clean_text
from mi_crow.errors import NotFoundError, UserError, nearest
from mi_crow.mechanistic.concepts.annotations_database import AnnotationsDatabase
from mi_crow.mechanistic.concepts.annotations_rows import (
    CONSTRAINTS,
    Preset,
    SavedGeneration,
    dump,
    generation_of,
    preset_of,
    visible_name,
)
from mi_crow.store.json_file import parse_json

READINGS = "readings"  # of the texts, among the metrics of a generation
_MOST_NUMBER = 2**63 - 1  # SQLite's largest integer


class SavedSteering:
    """The part of the annotations that keeps stacks of interventions and their generations."""

    _database: AnnotationsDatabase

    # Presets.

    def presets(self) -> list[Preset]:
        """All presets by name."""
        rows = self._database.rows("SELECT * FROM presets ORDER BY name")
        return [preset_of(row) for row in rows]

    def preset(self, name: str) -> Preset:
        """One preset. Raises NotFoundError."""
        presets = {preset.name: preset for preset in self.presets()}
        found = presets.get(clean_text(name))
        if found is None:
            hint = f"there is {nearest(name, [*presets])}" if presets else "there are no presets"
            raise NotFoundError(f"preset {name!r} not found", hint=hint)
        return found

    def save_preset(
        self,
        name: str,
        interventions: Sequence[Mapping[str, Any]],
        plausible: float | None = None,
        kl_budget: float | None = None,
    ) -> bool:
        """Saves a stack of interventions (their JSON objects) with its constraints as `name`,
        replacing an older one; returns whether there was another one of that name.

        Raises UserError for a name that is empty or not all visible.
        """
        name = visible_name(name, "a preset")
        stack = [dict(one) for one in interventions]
        limits = dict(zip(CONSTRAINTS, (plausible, kl_budget), strict=True))
        limits = {key: value for key, value in limits.items() if value is not None}
        # A list alone is what earlier versions read.
        text = dump({"interventions": stack, **limits} if limits else stack)
        now = time.time()
        with self._database.writing() as connection:
            there = connection.execute(
                "SELECT 1 FROM presets WHERE name = ? AND interventions != ?", (name, text)
            ).fetchone()
            connection.execute(
                "INSERT INTO presets VALUES (?, ?, ?, ?) ON CONFLICT (name) DO UPDATE SET "
                "interventions = excluded.interventions, updated = excluded.updated",
                (name, text, now, now),
            )
        return there is not None

    def rename_preset(self, name: str, new: str) -> None:
        """Gives a preset another name. Raises NotFoundError, and UserError for a name that is
        empty, not all visible or another preset's."""
        name = self.preset(name).name
        if clean_text(new).strip() == name:
            return
        new = visible_name(new, "a preset")
        with self._database.writing() as connection:
            self.preset(name)  # another process may have removed it meanwhile
            if new in {preset.name for preset in self.presets()}:
                raise UserError(f"there is a preset {new!r} already", hint="choose another name")
            connection.execute("UPDATE presets SET name = ? WHERE name = ?", (new, name))

    def delete_preset(self, name: str) -> None:
        """Deletes a preset. Raises NotFoundError."""
        name = self.preset(name).name
        with self._database.writing() as connection:
            connection.execute("DELETE FROM presets WHERE name = ?", (name,))

    # Generations.

    def save_generation(
        self,
        *,
        model_id: str,
        prompt: str,
        baseline: str,
        steered: str,
        seed: int = 0,
        revision: str | None = None,
        sae_ids: Sequence[str] = (),
        weight_hashes: Sequence[str] = (),
        device: str = "",
        versions: Mapping[str, str] | None = None,
        preset: str | None = None,
        settings: Mapping[str, Any] | None = None,
        metrics: Mapping[str, Any] | None = None,
    ) -> int:
        """Saves a pair of texts with everything needed to repeat them; returns its number."""
        row = {
            "created": time.time(),
            "model_id": model_id,
            "revision": revision,
            "sae_ids": dump(list(sae_ids)),
            "weight_hashes": dump(list(weight_hashes)),
            "device": device,
            "versions": dump(dict(versions or {})),
            "prompt": prompt,
            "preset": preset,
            "seed": seed,
            "settings": dump(dict(settings or {})),
            "baseline": baseline,
            "steered": steered,
            "metrics": dump(dict(metrics or {})),
        }
        names, marks = ", ".join(row), ", ".join("?" * len(row))
        values = [clean_text(value) if isinstance(value, str) else value for value in row.values()]
        with self._database.writing() as connection:
            cursor = connection.execute(
                f"INSERT INTO generations ({names}) VALUES ({marks})", values
            )
        return int(cursor.lastrowid or 0)

    def generations(self, limit: int = 100, *, readings: bool = True) -> list[SavedGeneration]:
        """The latest saved generations, newest first. What was read in their texts, token by token,
        is with them unless a list has no use for so much."""
        columns = {one.name: one.name for one in fields(SavedGeneration)}
        if not readings:
            without = f"json_remove(metrics, '$.{READINGS}')"
            columns["metrics"] = f"CASE WHEN json_valid(metrics) THEN {without} ELSE metrics END"
        selected = ", ".join(f"{what} AS {name}" for name, what in columns.items())
        query = f"SELECT {selected} FROM generations ORDER BY id DESC LIMIT ?"
        return [generation_of(row) for row in self._database.rows(query, (limit,))]

    def generation(self, number: int) -> SavedGeneration:
        """One saved generation. Raises NotFoundError."""
        query = "SELECT * FROM generations WHERE id = ?"
        rows = self._database.rows(query, (number,)) if number <= _MOST_NUMBER else []
        if not rows:
            raise NotFoundError(
                f"generation {number} not found", hint="mi-crow generations lists the latest"
            )
        return generation_of(rows[0])

    def delete_generation(self, number: int) -> None:
        """Deletes a saved generation. Raises NotFoundError."""
        self.generation(number)
        with self._database.writing() as connection:
            connection.execute("DELETE FROM generations WHERE id = ?", (number,))


def rename_in_steering(connection: sqlite3.Connection, sae_id: str, new: str) -> None:
    """Makes presets and saved generations follow an SAE to its new id."""
    for row in connection.execute("SELECT name, interventions FROM presets").fetchall():
        held = parse_json(row["interventions"], "a preset")
        if rename_in_stack(held["interventions"] if isinstance(held, dict) else held, sae_id, new):
            values = (dump(held), row["name"])
            connection.execute("UPDATE presets SET interventions = ? WHERE name = ?", values)
    wanted = "SELECT id, sae_ids, settings, metrics FROM generations"
    for row in connection.execute(wanted).fetchall():
        ids = parse_json(row["sae_ids"], "the SAEs of a generation")
        settings = parse_json(row["settings"], "the settings of a generation")
        # The stack may hold features of an SAE that is not the one that was open.
        if not rename_in_stack(settings.get("interventions"), sae_id, new) and sae_id not in ids:
            continue
        metrics = parse_json(row["metrics"], "the metrics of a generation")
        _rename_in_readings(metrics, sae_id, new)
        ids = [new if one == sae_id else one for one in ids]
        connection.execute(
            "UPDATE generations SET sae_ids = ?, settings = ?, metrics = ? WHERE id = ?",
            (dump(ids), dump(settings), dump(metrics), row["id"]),
        )


def _rename_in_readings(metrics: Any, sae_id: str, new: str) -> None:
    """Renames the SAE of what was read in the texts of a generation, in place."""
    readings = metrics.get(READINGS) if isinstance(metrics, dict) else None
    targets = readings.get("targets") if isinstance(readings, dict) else None
    if isinstance(targets, list):
        targets[:] = [renamed_target(str(one), sae_id, new) for one in targets]


def renamed_target(target: str, sae_id: str, new: str) -> str:
    """A target with its SAE under its new id; others as they are.

    >>> renamed_target("group:boats/3+7", "boats", "harbour")
    'group:harbour/3+7'
    """
    kind, _, rest = target.partition(":")
    if kind in ("feature", "group", "tag") and rest.startswith(f"{sae_id}/"):
        return f"{kind}:{new}/{rest.removeprefix(f'{sae_id}/')}"
    return target


def rename_in_stack(stack: Any, sae_id: str, new: str) -> bool:
    """Renames the SAE of interventions (their JSON objects) in place; True if one had it."""
    found = False
    for one in stack if isinstance(stack, list) else ():
        if not isinstance(one, dict):
            continue
        for key in ("target", "rivals"):
            target = renamed_target(str(one.get(key, "")), sae_id, new)
            if target != one.get(key, ""):
                one[key], found = target, True
        for held in (one, one.get("condition")):
            if isinstance(held, dict) and held.get("sae") == sae_id:
                held["sae"], found = new, True
    return found
