"""Explanations in the files of Neuronpedia: JSON lines, one a row, in batches. Torch-free.

The rows are those of its table `Explanation` (apps/webapp/prisma/schema.prisma): id, modelId, layer
(the source id, such as `10-res-jb`), index (a text), description, authorId, typeName,
explanationModelName, notes, createdAt. What a concept says beyond these is in `notes` as JSON,
so that nothing is lost on the way back.
"""

import gzip
import json
import re
import zlib
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import Any

from mi_crow.causes import machine_error
from mi_crow.errors import NotFoundError, UserError
from mi_crow.mechanistic.concepts.annotations_rows import Concept
from mi_crow.store.json_file import parse_json

SOURCE = "neuronpedia"
MARK = "mi_crow"  # the key of what `notes` has of ours
BATCH = re.compile(r"batch-(\d+)\.jsonl(\.gz)?$")
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


def explanation_row(concept: Concept, model_id: str, source_id: str, author: str) -> dict[str, Any]:
    """A concept as a row of the table `Explanation`."""
    place = f"{model_id}/{source_id}/{concept.feature}/{concept.name}"
    ours = {name: getattr(concept, name) for name in _OURS}
    return {
        "id": f"c{sha256(place.encode()).hexdigest()[:24]}",
        "modelId": model_id,
        "layer": source_id,
        "index": str(concept.feature),
        "description": concept.name,
        "authorId": author,
        "typeName": None,
        "explanationModelName": None,
        "notes": json.dumps({MARK: ours}, ensure_ascii=False),
        "createdAt": moment_text(concept.created),
    }


def proposal_row(
    feature: int, name: str, model_id: str, source_id: str, author: str, now: float
) -> dict[str, Any]:
    """A proposed name as a row of the table `Explanation`."""
    place = f"{model_id}/{source_id}/{feature}/proposed/{name}"
    return {
        "id": f"c{sha256(place.encode()).hexdigest()[:24]}",
        "modelId": model_id,
        "layer": source_id,
        "index": str(feature),
        "description": name,
        "authorId": author,
        "typeName": None,
        "explanationModelName": None,
        "notes": "proposed by mi-crow without a language model",
        "createdAt": moment_text(now),
    }


def moment_text(seconds: float) -> str:
    """ISO 8601 with microseconds, as Neuronpedia's files have it."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="microseconds")


def json_lines(rows: Sequence[dict[str, Any]]) -> bytes:
    """The rows, one a line."""
    return "".join(f"{json.dumps(row, ensure_ascii=False)}\n" for row in rows).encode()


def packed(data: bytes) -> bytes:
    """Compressed, the same bytes for the same rows."""
    return gzip.compress(data, compresslevel=6, mtime=0)
