"""The rows of the annotations as frozen dataclasses, and how they are read and written."""

import json
import sqlite3
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from math import isfinite
from sys import intern
from typing import Any

from mi_crow.bounds import SHARE
from mi_crow.clean_text import clean_text
from mi_crow.errors import CorruptDataError, UserError
from mi_crow.mechanistic.features.records import Concept
from mi_crow.store.field_types import check_types
from mi_crow.store.json_file import parse_json
from mi_crow.store.json_object import JsonObject
from mi_crow.visible import visible


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
    """A named stack of interventions, as their JSON objects, with its constraints."""

    name: str
    interventions: tuple[dict[str, Any], ...]
    created: float
    updated: float
    plausible: float | None = None
    kl_budget: float | None = None


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


Key = tuple[str, int, str]  # SAE, feature, name
COLUMNS = "sae_id, feature, name, confidence, note, tags, source, created, updated"

MOST_NAME, MOST_NOTE = 1 << 14, 1 << 20  # characters
CONSTRAINTS = ("plausible", "kl_budget")  # beside `interventions`, only where there are some
_MOST_VISIBLE = 200  # of a name of a preset or an inspection
MOST_FEATURE = 2**31 - 1  # features are 32-bit integers in an index
_COLUMNS = COLUMNS.split(", ")
_WRITTEN_TYPES = [str, int, str, float, str, list, str, float, float]
_SURE = 1.0
_CONCEPT_TYPES = (str, int, str, float, str, str, str, float, float)


_encode = json.JSONEncoder(ensure_ascii=False).encode  # one for all: making it takes longer


def dump(value: Any) -> str:
    return clean_text(_encode(value))


def concept_from(
    sae_id: str,
    feature: int,
    name: str,
    confidence: float | None = None,
    note: str | None = None,
    tags: Sequence[str] = (),
    source: str = "user",
    *,
    now: float,
    created: float | None = None,
    updated: float | None = None,
) -> Concept:
    """A concept, new unless `created` says when it was made; its texts clean.

    Raises UserError for an empty name, a number that no feature can have, a confidence outside 0
    to 1.
    """
    name = clean_text(name).strip()
    if not name:
        raise UserError("a concept needs a name")
    if not 0 <= feature <= MOST_FEATURE:
        raise UserError(f"{feature} is not a valid feature")
    confidence = 1.0 if confidence is None else confidence
    if not SHARE.holds(confidence):
        raise UserError(f"confidence {confidence} is not between 0 and 1")
    new = Concept(
        clean_text(sae_id),
        feature,
        name,
        float(confidence),
        clean_text(note or ""),
        clean_tags(tuple(tags)),
        clean_text(source),
        now if created is None else created,
        now if updated is None else updated,
    )
    check_lengths(new.name, new.note, new.tags, new.source)
    check_length("SAE", new.sae_id, MOST_NAME)
    return new


def check_lengths(
    name: str = "", note: str = "", tags: Sequence[str] = (), source: str = ""
) -> None:
    """Raises UserError for a text that is longer than any import would take."""
    check_length("name", name, MOST_NAME)
    check_length("note", note, MOST_NOTE)
    check_length("source", source, MOST_NAME)
    if tags:
        check_length("longest tag", max(tags, key=len), MOST_NAME)
        total = sum(map(len, tags))
        if total > MOST_NOTE:
            raise UserError(
                f"its tags have {total:,} characters together, at most {MOST_NOTE:,} are taken"
            )


def check_fitting(concepts: Iterable[Concept]) -> None:
    """Raises UserError, naming its feature, for a concept with a text that is too long."""
    for one in concepts:
        try:
            check_lengths(one.name, one.note, one.tags, one.source)
        except UserError as error:
            raise UserError(f"feature {one.feature}: {error}") from error


def check_length(field: str, text: str, most: int) -> None:
    """Raises UserError for a text of more than `most` characters."""
    if len(text) > most:
        raise UserError(f"its {field} has {len(text):,} characters, at most {most:,} are taken")


@lru_cache(maxsize=4096)  # most concepts have the tags of some other
def clean_tags(tags: tuple[str, ...]) -> tuple[str, ...]:
    """The tags without blanks around them and without their sign, each once."""
    bare = (clean_text(tag).strip().lstrip("#").strip() for tag in tags)
    return tuple(dict.fromkeys(tag for tag in bare if tag))


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
    # Of what most rows share one copy is kept.
    sae_id, source = intern(sae_id), intern(source)
    updated = created if updated == created else updated
    confidence = _SURE if confidence == _SURE else confidence
    return Concept(
        sae_id, feature, name, confidence, note, _tags_of(tags), source, created, updated
    )


@lru_cache(maxsize=4096)
def _tags_text(tags: tuple[str, ...]) -> str:
    return dump(list(tags))


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
    values = concept.as_dict() | {"tags": _tags_text(concept.tags)}
    connection.execute(
        f"INSERT OR REPLACE INTO concepts ({COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
        tuple(values[column] for column in COLUMNS.split(", ")),
    )


def put_all(
    connection: sqlite3.Connection,
    pairs: Sequence[tuple[Concept | None, Concept | None]],
    actor: str,
    session: str,
    change: int,
) -> None:
    """Takes many rows from what they were to what they shall be, with their lines of the history:
    a tenth of the time that one after the other would take."""
    gone = [
        one for one, new in pairs if one is not None and (new is None or key_of(new) != key_of(one))
    ]
    replace_concepts(connection, map(key_of, gone), (new for _, new in pairs if new is not None))
    now = time.time()

    def lines() -> Iterator[tuple[object, ...]]:
        for before, after in pairs:
            row = after or before
            if row is not None:
                action = "remove" if after is None else "set"
                texts = as_text(before), as_text(after)
                yield now, actor, session, action, row.sae_id, row.feature, *texts, change

    connection.executemany(
        "INSERT INTO history (t, actor, session, action, sae_id, feature, before, after, change) "
        "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
        lines(),
    )


def replace_concepts(
    connection: sqlite3.Connection, gone: "Iterable[Key]", new: Iterable[Concept]
) -> None:
    """Removes some rows and writes others."""
    connection.executemany(
        "DELETE FROM concepts WHERE sae_id = ? AND feature = ? AND name = ?", gone
    )
    connection.executemany(
        f"INSERT OR REPLACE INTO concepts ({COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            (
                *key_of(one),
                one.confidence,
                one.note,
                _tags_text(one.tags),
                one.source,
                one.created,
                one.updated,
            )
            for one in new
        ),
    )


def key_of(concept: Concept) -> Key:
    """What tells a concept from all others."""
    return concept.sae_id, concept.feature, concept.name


def delete_concept(connection: sqlite3.Connection, concept: Concept) -> None:
    connection.execute(
        "DELETE FROM concepts WHERE sae_id = ? AND feature = ? AND name = ?",
        (concept.sae_id, concept.feature, concept.name),
    )


def as_text(concept: Concept | None) -> str | None:
    return None if concept is None else dump(concept.as_dict())


def _from_text(text: str | None) -> Concept | None:
    return None if text is None else _as_written(text) or _checked(text)


def _as_written(text: str) -> Concept | None:
    """The concept of a text that is as `as_text` writes it, in a third of the time that `_checked`
    takes; None for any other."""
    if "\\u" in text:  # maybe half a character
        return None
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return None
    if type(found) is not dict or list(found) != _COLUMNS:
        return None
    values = [*found.values()]
    tags = values[5]
    if list(map(type, values)) != _WRITTEN_TYPES or any(type(tag) is not str for tag in tags):
        return None
    _, feature, _, confidence, *_, created, updated = values
    if not (
        0 <= feature <= MOST_FEATURE
        and 0 <= confidence <= 1
        and isfinite(created)
        and isfinite(updated)
    ):
        return None
    values[0], values[5], values[6] = intern(values[0]), tuple(tags), intern(values[6])
    return Concept(*values)


def _checked(text: str) -> Concept:
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
    held = found if isinstance(found, dict) else {"interventions": found}
    stack, limits = held.get("interventions"), [held.get(key) for key in CONSTRAINTS]
    numbers = all(one is None or isinstance(one, int | float) for one in limits)
    if not (isinstance(stack, list) and all(isinstance(one, dict) for one in stack) and numbers):
        stack, limits = [{}], [None, None]
    return Preset(str(row["name"]), tuple(stack), row["created"], row["updated"], *limits)


def visible_name(name: str, what: str) -> str:
    """A name as it is saved. Raises UserError where it is empty, too long, or has control or
    invisible characters: two names would look the same, and a line break would end a line of a
    list."""
    clean = clean_text(name).strip()
    if not clean:
        raise UserError(f"{what} needs a name")
    if len(clean) > _MOST_VISIBLE:
        raise UserError(f"the name has {len(clean):,} characters, at most {_MOST_VISIBLE} fit")
    if visible(clean) != clean:
        raise UserError(
            f"the name {visible(clean)!r} has control or invisible characters",
            hint="leave them out",
        )
    return clean
