"""The rows of the annotations as frozen dataclasses, and how they are read and written."""

import json
import sqlite3
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from mi_crow.clean_text import clean_text
from mi_crow.errors import CorruptDataError
from mi_crow.mechanistic.features.records import Concept
from mi_crow.store.field_types import check_types
from mi_crow.store.json_file import parse_json
from mi_crow.store.json_object import JsonObject


@dataclass(frozen=True)
class Change:
    """One line of the history."""

    id: int
    t: float
    actor: str
    session: str
    action: str  # set | remove | undo | redo
    sae_id: str
    feature: int
    before: Concept | None
    after: Concept | None
    undone: bool
    change: int  # number that all lines of one change share


@dataclass(frozen=True)
class Preset:
    """A named stack of interventions, as their JSON objects."""

    name: str
    interventions: tuple[dict[str, Any], ...]
    created: float
    updated: float


@dataclass(frozen=True)
class SavedGeneration:
    """A baseline and a steered text with everything needed to generate them again."""

    id: int
    created: float
    model_id: str
    revision: str | None
    sae_ids: tuple[str, ...]
    weight_hashes: tuple[str, ...]
    device: str
    versions: dict[str, str]
    prompt: str
    preset: str | None
    seed: int
    settings: dict[str, Any]
    baseline: str
    steered: str
    metrics: dict[str, Any]


COLUMNS = "sae_id, feature, name, confidence, note, tags, source, created, updated"

MOST_FEATURE = 2**31 - 1  # features are 32-bit integers in an index
_CONCEPT_TYPES = (str, int, str, float, str, str, str, float, float)


def dump(value: Any) -> str:
    return clean_text(json.dumps(value, ensure_ascii=False))


def concept_of(row: sqlite3.Row) -> Concept:
    """A row of COLUMNS. Kept fast: thousands are read before the app shows its first page."""
    sae_id, feature, name, confidence, note, tags, source, created, updated = row
    if tuple(map(type, row)) != _CONCEPT_TYPES or not (
        0 <= feature <= MOST_FEATURE and 0 <= confidence <= 1
    ):
        raise CorruptDataError(
            f"annotations.sqlite has an invalid concept ({tuple(row)!r:.120})",
            hint="remove that row, or move the file away",
        )
    return Concept(
        sae_id, feature, name, confidence, note, _tags_of(tags), source, created, updated
    )


@lru_cache(maxsize=4096)  # most concepts have the tags of some other
def _tags_of(text: str) -> tuple[str, ...]:
    return _texts(text, "the tags of a concept")


def _texts(text: str, what: str) -> tuple[str, ...]:
    found = parse_json(text, what)
    if not isinstance(found, list) or any(not isinstance(one, str) for one in found):
        raise CorruptDataError(f"{what} must be a list of texts, not {found!r:.80}")
    return tuple(found)


def read_concept(
    connection: sqlite3.Connection, sae_id: str, feature: int, name: str
) -> Concept | None:
    row = connection.execute(
        f"SELECT {COLUMNS} FROM concepts WHERE sae_id = ? AND feature = ? AND name = ?",
        (sae_id, feature, name),
    ).fetchone()
    return concept_of(row) if row is not None else None


def put_concept(connection: sqlite3.Connection, concept: Concept) -> None:
    values = dict(vars(concept)) | {"tags": dump(list(concept.tags))}
    connection.execute(
        f"INSERT OR REPLACE INTO concepts ({COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
        tuple(values[column] for column in COLUMNS.split(", ")),
    )


def delete_concept(connection: sqlite3.Connection, concept: Concept) -> None:
    connection.execute(
        "DELETE FROM concepts WHERE sae_id = ? AND feature = ? AND name = ?",
        (concept.sae_id, concept.feature, concept.name),
    )


def as_text(concept: Concept | None) -> str | None:
    return None if concept is None else dump(vars(concept))


def _from_text(text: str | None) -> Concept | None:
    if text is None:
        return None
    what = "a change of a concept"
    data = JsonObject.of(parse_json(text, what), what)
    return Concept(
        data.text("sae_id"),
        data.integer("feature", least=0, most=MOST_FEATURE),
        data.text("name"),
        data.number("confidence", least=0, most=1),
        data.text("note"),
        data.texts("tags"),
        data.text("source"),
        data.number("created"),
        data.number("updated"),
    )


def change_of(row: sqlite3.Row) -> Change:
    return Change(
        id=row["id"],
        t=row["t"],
        actor=row["actor"],
        session=row["session"],
        action=row["action"],
        sae_id=row["sae_id"],
        feature=row["feature"],
        before=_from_text(row["before"]),
        after=_from_text(row["after"]),
        undone=row["undone_by"] is not None,
        change=row["change"],
    )


def generation_of(row: sqlite3.Row) -> SavedGeneration:
    values = dict(row)
    for column in ("sae_ids", "weight_hashes"):
        values[column] = _texts(values[column], f"{column} of a generation")
    for column in ("versions", "settings", "metrics"):
        values[column] = parse_json(values[column], f"{column} of a generation")
    generation = SavedGeneration(**values)
    check_types(generation, "a saved generation")
    return generation


def preset_of(row: sqlite3.Row) -> Preset:
    """A damaged preset gets one empty intervention, which is refused when used: it must not hide
    the others."""
    try:
        found = parse_json(row["interventions"], "a preset")
    except CorruptDataError:
        found = None
    if not isinstance(found, list) or any(not isinstance(one, dict) for one in found):
        found = [{}]
    return Preset(str(row["name"]), tuple(found), row["created"], row["updated"])
