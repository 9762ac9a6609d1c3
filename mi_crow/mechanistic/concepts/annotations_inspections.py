"""Saved inspections: what was found out about a text, with the settings, under a name.

Their table is made with the first of them, so that older files stay as they are until then.
"""

import sqlite3
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from mi_crow.clean_text import clean_text
from mi_crow.errors import CorruptDataError, NotFoundError, UserError, nearest
from mi_crow.mechanistic.concepts.annotations_database import AnnotationsDatabase, check_schema
from mi_crow.mechanistic.concepts.annotations_rows import dump, visible_name
from mi_crow.store.json_file import parse_json

InspectionKind = Literal["inspect", "compare", "contrast", "attribute", "lens", "layers", "patch"]
KINDS: tuple[InspectionKind, ...] = get_args(InspectionKind)

_TABLE = """
CREATE TABLE inspections (
    name TEXT PRIMARY KEY, kind TEXT NOT NULL, created REAL NOT NULL, model_id TEXT NOT NULL,
    sae_ids TEXT NOT NULL, text TEXT NOT NULL, settings TEXT NOT NULL, results TEXT NOT NULL
)"""
_LINE = "name, kind, created, model_id, sae_ids, text"
_MOST = 32 << 20  # characters of the results; SQLite returns values of up to 64 MiB


@dataclass(frozen=True)
class InspectionLine:
    """One saved inspection, without what was found."""

    name: str
    kind: InspectionKind
    created: float
    model_id: str
    sae_ids: tuple[str, ...]
    text: str


@dataclass(frozen=True)
class SavedInspection(InspectionLine):
    """One saved inspection: `results` is what the command prints with --json."""

    settings: dict[str, Any]
    results: dict[str, Any]


class SavedInspections:
    """The part of the annotations that keeps inspections."""

    _database: AnnotationsDatabase
    path: Path

    def inspections(self) -> list[InspectionLine]:
        """All saved inspections, newest first."""
        with self._database.reading() as connection:
            if connection is None or not self._has_table(connection):
                return []
            rows = connection.execute(
                f"SELECT {_LINE} FROM inspections ORDER BY created DESC, name"
            ).fetchall()
        return [InspectionLine(**_line(row)) for row in rows]

    def inspection(self, name: str) -> SavedInspection:
        """One saved inspection. Raises NotFoundError, CorruptDataError."""
        with self._database.reading() as connection:
            row = None
            if connection is not None and self._has_table(connection):
                row = connection.execute(
                    "SELECT * FROM inspections WHERE name = ?", (clean_text(name),)
                ).fetchone()
        if row is None:
            known = [one.name for one in self.inspections()]
            hint = f"there is {nearest(name, known)}" if known else "none is saved"
            raise NotFoundError(f"inspection {name!r} not found", hint=hint)
        return SavedInspection(
            **_line(row), settings=_object(row, "settings"), results=_object(row, "results")
        )

    def save_inspection(
        self,
        name: str,
        kind: InspectionKind,
        text: str,
        results: Mapping[str, Any],
        *,
        settings: Mapping[str, Any] | None = None,
        model_id: str = "",
        sae_ids: Sequence[str] = (),
    ) -> str:
        """Saves what was found out about a text under a new name, and returns that.

        Raises UserError for a name that is empty, not all visible, too long or taken, and for
        results that are too large.
        """
        name = self.check_new(name)
        found = dump(dict(results))
        if len(found) > _MOST:
            raise UserError(
                f"the inspection takes {len(found) >> 20} MiB, at most {_MOST >> 20} can be saved",
                hint="a shorter text fits, or a smaller number of top features or tokens",
            )
        values = (
            name,
            kind,
            time.time(),
            clean_text(model_id),
            dump(list(sae_ids)),
            clean_text(text),
            dump(dict(settings or {})),
            found,
        )
        with self._database.writing() as connection:
            if not self._has_table(connection):
                connection.execute(_TABLE)
            self.check_new(name)  # another process may have saved one meanwhile
            connection.execute(f"INSERT INTO inspections VALUES ({', '.join('?' * 8)})", values)
        return name

    def check_new(self, name: str) -> str:
        """A name as it is saved. Raises UserError where it is empty, not all visible, too long or
        taken."""
        clean = visible_name(name, "an inspection")
        if clean in {one.name for one in self.inspections()}:
            raise UserError(f"there is an inspection {clean!r} already", hint="choose another name")
        return clean

    def rename_inspection(self, name: str, new: str) -> str:
        """Gives an inspection another name, and returns that. Raises NotFoundError, UserError."""
        old = self.inspection(name).name
        if clean_text(new).strip() == old:
            return old
        new = self.check_new(new)
        with self._database.writing() as connection:
            self.check_new(new)  # another process may have saved one meanwhile
            connection.execute("UPDATE inspections SET name = ? WHERE name = ?", (new, old))
        return new

    def delete_inspection(self, name: str) -> None:
        """Deletes an inspection, also one that cannot be read. Raises NotFoundError."""
        if clean_text(name) not in {one.name for one in self.inspections()}:
            self.inspection(name)  # says which there are
        with self._database.writing() as connection:
            connection.execute("DELETE FROM inspections WHERE name = ?", (clean_text(name),))

    def _has_table(self, connection: sqlite3.Connection) -> bool:
        query = "SELECT 1 FROM sqlite_schema WHERE type = 'table' AND name = 'inspections'"
        if connection.execute(query).fetchone() is None:
            return False
        check_schema(connection, _TABLE, self.path)
        return True


def rename_in_inspections(connection: sqlite3.Connection, sae_id: str, new: str) -> None:
    """Makes saved inspections follow an SAE to its new id."""
    query = "SELECT 1 FROM sqlite_schema WHERE type = 'table' AND name = 'inspections'"
    if connection.execute(query).fetchone() is None:
        return
    for row in connection.execute("SELECT name, sae_ids, results FROM inspections").fetchall():
        ids = parse_json(row["sae_ids"], "the SAEs of an inspection")
        if not isinstance(ids, list) or sae_id not in ids:
            continue
        results = renamed_in_results(parse_json(row["results"], "an inspection"), sae_id, new)
        values = dump([new if one == sae_id else one for one in ids]), dump(results), row["name"]
        connection.execute("UPDATE inspections SET sae_ids = ?, results = ? WHERE name = ?", values)


def renamed_in_results(value: Any, sae_id: str, new: str) -> Any:
    """`value` with the SAE's id replaced wherever one is under `sae_id`."""
    if isinstance(value, list):
        return [renamed_in_results(one, sae_id, new) for one in value]
    if not isinstance(value, dict):
        return value
    return {
        key: new if key == "sae_id" and one == sae_id else renamed_in_results(one, sae_id, new)
        for key, one in value.items()
    }


def _line(row: sqlite3.Row) -> dict[str, Any]:
    found = parse_json(row["sae_ids"], "the SAEs of an inspection")
    sae_ids = tuple(map(str, found)) if isinstance(found, list) else ()
    if row["kind"] not in KINDS or not isinstance(row["created"], float | int):
        raise CorruptDataError(
            f"inspection {row['name']!r} is of kind {row['kind']!r}, which is not known",
            hint="remove it, or upgrade mi-crow",
        )
    texts = {name: str(row[name]) for name in ("name", "kind", "model_id", "text")}
    return {**texts, "created": float(row["created"]), "sae_ids": sae_ids}


def _object(row: sqlite3.Row, column: str) -> dict[str, Any]:
    found = parse_json(row[column], f"the {column} of an inspection")
    if not isinstance(found, dict):
        raise CorruptDataError(f"the {column} of inspection {row['name']!r} are not an object")
    return found
