"""Explanations in the files of Neuronpedia: JSON lines, one a row, in batches. Torch-free.

The rows are those of its table `Explanation` (apps/webapp/prisma/schema.prisma): id, modelId, layer
(the source id, such as `10-res-jb`), index (a text), description, authorId, typeName,
explanationModelName, notes, createdAt. What a concept says beyond these is in `notes` as JSON,
so that nothing is lost on the way back. The source of a concept from there names the models that
explained the feature so: `neuronpedia:gpt-4o-mini`.
"""

import gzip
import json
import re
import zlib
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import Any

from mi_crow.causes import machine_error
from mi_crow.errors import NotFoundError, UserError
from mi_crow.mechanistic.concepts.annotations_rows import Concept
from mi_crow.mechanistic.features.records import SCORES, Explanation, Proposal
from mi_crow.store.field_types import is_moment
from mi_crow.store.json_file import parse_json

SOURCE = "neuronpedia"
MARK = "mi_crow"  # the key of what `notes` has of ours
BATCH = re.compile(r"batch-(\d+)\.jsonl(\.gz)?$")
_BETWEEN = ", "  # models that say the same of a feature
_MOST_MODEL = 100  # characters of a model's name
# What is read of a row, and what it shares with the whole file.
_READ = (
    "modelId",
    "layer",
    "index",
    "description",
    "explanationModelName",
    "notes",
    "createdAt",
    "scoreV2",
    # Ours, which mean something else there.
    *("feature", "neuron_idx", "name", "concept_name", "confidence", "score", "note", "sae_id"),
    *("sae", "tags", "source", "created", "updated"),
)
_MOST_LINE = 16 << 20  # bytes of one row: a packed file could hold a line of any length


def is_explanations(path: Path) -> bool:
    """Whether a path is a file of JSON lines, or a folder of batches of them."""
    if path.is_dir():
        return bool(explanation_files(path))
    return path.name.lower().endswith((".jsonl", ".jsonl.gz"))


def explanation_files(path: Path) -> list[Path]:
    """The files with explanations at a path, batches in their order; a folder may be the one of a
    source, with `explanations` in it, or that one itself."""
    if path.is_file():
        return [path]
    folder = path / "explanations" if (path / "explanations").is_dir() else path
    found = [(match, one) for one in _files(folder) if (match := BATCH.match(one.name))]
    return [one for _, one in sorted(found, key=lambda pair: int(pair[0][1]))]


def _files(folder: Path) -> list[Path]:
    try:
        return [one for one in folder.iterdir() if one.is_file()]
    except OSError:
        return []


def explanation_lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """The lines of a file that are not empty, with their numbers. Raises UserError."""
    opened = gzip.open if path.name.lower().endswith(".gz") else open
    try:
        with opened(path, "rb") as file:
            number = 0
            while line := file.readline(_MOST_LINE + 1):
                number += 1
                if len(line) > _MOST_LINE:
                    raise UserError(f"line {number} of {str(path)!r} is longer than 16 MiB")
                if line.strip():
                    yield number, line
    except FileNotFoundError as error:
        raise NotFoundError(f"file {str(path)!r} not found") from error
    except (OSError, EOFError, zlib.error) as error:
        raise machine_error(error, path) or UserError(
            f"{str(path)!r} cannot be read ({error})"
        ) from error


def extras_of(notes: Any) -> tuple[str, dict[str, Any]]:
    """The note in `notes`, and what of ours is there as well."""
    if not isinstance(notes, str) or not notes:
        return "", {}
    if notes.startswith('{"' + MARK):
        found = parse_json(notes, "notes", error=UserError)
        ours = found.get(MARK) if isinstance(found, dict) else None
        if isinstance(ours, dict):
            return "", {key: one for key, one in ours.items() if key in _OURS}
    return notes, {}


_OURS = ("confidence", "note", "tags", "source", "created", "updated")


def read_fields(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row by the names of a concept's fields; what a concept has no place for under its own name,
    so that it can be said. Raises UserError for notes that are not readable."""
    note, extras = extras_of(row.get("notes"))
    said: dict[str, Any] = {"feature": row.get("index"), "name": row.get("description")}
    model = row.get("explanationModelName")
    by = model.strip()[:_MOST_MODEL] if isinstance(model, str) else ""
    said["source"] = f"{SOURCE}:{by}" if by else SOURCE
    if note:
        said["note"] = note
    score = row.get("scoreV2")
    if isinstance(score, int | float) and not isinstance(score, bool) and 0 <= score <= 1:
        said["confidence"] = float(score)
    if (created := _moment(row.get("createdAt"))) is not None:
        said["created"] = created
    if extras:
        return said | extras  # one of ours: the others were made for it
    return {name: one for name, one in row.items() if name not in _READ} | said


def _moment(text: Any) -> float | None:
    try:
        found = datetime.fromisoformat(text).timestamp()
    except (TypeError, ValueError, OverflowError):
        return None
    return found if is_moment(found) else None


def models_of(source: str) -> list[str]:
    """The models whose explanations a source (`neuronpedia:gpt-4o, claude-3`) names."""
    origin, _, models = source.partition(":")
    return [one for one in models.split(_BETWEEN) if one] if origin == SOURCE else []


def same_name(first: dict[str, Any], other: Mapping[str, Any]) -> bool:
    """Adds to what is said of a name what another explainer says by the same name; False where one
    of them is not from Neuronpedia."""
    if not all(one["source"].partition(":")[0] == SOURCE for one in (first, other)):
        return False
    models = dict.fromkeys(models_of(first["source"]) + models_of(other["source"]))
    first["source"] = f"{SOURCE}:{_BETWEEN.join(models)}" if models else SOURCE
    notes = dict.fromkeys(one["note"] for one in (first, other) if one.get("note"))
    if notes:
        first["note"] = "\n".join(notes)
    scores = [one["confidence"] for one in (first, other) if "confidence" in one]
    if scores:
        first["confidence"] = max(scores)
    return True


def explanation_rows(
    concept: Concept, model_id: str, source_id: str, author: str
) -> list[dict[str, Any]]:
    """A concept as rows of the table `Explanation`: one of each model that explained it so, else
    one."""
    ours = {name: getattr(concept, name) for name in _OURS}
    notes = json.dumps({MARK: ours}, ensure_ascii=False)
    place = f"{model_id}/{source_id}/{concept.feature}/{concept.name}"
    models = models_of(concept.source) or [None]
    return [
        _row(concept.feature, concept.name, model_id, source_id, author)
        | {
            "id": _id(place if model is None else f"{place}/{model}"),
            "explanationModelName": model,
            "notes": notes,
            "createdAt": moment_text(concept.created),
        }
        for model in models
    ]


def explained_row(
    said: Explanation, model_id: str, source_id: str, author: str, now: float
) -> dict[str, Any]:
    """What a chat model says of a feature as a row of the table `Explanation`, with its scores."""
    place = f"{model_id}/{source_id}/{said.feature}/{said.explainer}/{said.text}"
    known = ((word, getattr(said, name)) for name, word in SCORES.items())
    scores = ", ".join(f"{word} {value:.2f}" for word, value in known if value is not None)
    return _row(said.feature, said.text, model_id, source_id, author) | {
        "id": _id(place),
        "explanationModelName": said.explainer,
        "notes": f"explained with mi-crow{f': {scores}' if scores else ''}",
        "createdAt": moment_text(said.made or now),
        **({} if said.detection is None else {"scoreV2": said.detection}),
    }


def proposal_row(
    said: Proposal, model_id: str, source_id: str, author: str, now: float
) -> dict[str, Any]:
    """A proposed name as a row of the table `Explanation`, with its score."""
    return _row(said.feature, said.name, model_id, source_id, author) | {
        "id": _id(f"{model_id}/{source_id}/{said.feature}/proposed/{said.name}"),
        "notes": "proposed by mi-crow without a language model",
        "createdAt": moment_text(now),
        **({} if said.score is None else {"scoreV2": said.score}),
    }


def _row(feature: int, name: str, model_id: str, source_id: str, author: str) -> dict[str, Any]:
    """What every row has; its place among the columns is that of the table."""
    return {
        "id": "",
        "modelId": model_id,
        "layer": source_id,
        "index": str(feature),
        "description": name,
        "authorId": author,
        "typeName": None,
        "explanationModelName": None,
        "notes": None,
        "createdAt": "",
    }


def _id(place: str) -> str:
    return f"c{sha256(place.encode()).hexdigest()[:24]}"


def moment_text(seconds: float) -> str:
    """ISO 8601 with microseconds, as Neuronpedia's files have it."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="microseconds")


def json_lines(rows: Sequence[dict[str, Any]]) -> bytes:
    """The rows, one a line."""
    return "".join(f"{json.dumps(row, ensure_ascii=False)}\n" for row in rows).encode()


def packed(data: bytes) -> bytes:
    """Compressed, the same bytes for the same rows."""
    return gzip.compress(data, compresslevel=6, mtime=0)
