"""Concepts as .json and .csv files; pure but for reading and writing the file."""

import csv
import io
import json
import operator
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mi_crow.causes import machine_error
from mi_crow.errors import NotFoundError, UserError
from mi_crow.store.atomic import write_bytes
from mi_crow.store.json_file import parse_json

if TYPE_CHECKING:
    from mi_crow.mechanistic.concepts.annotations import Concept

FIELDS: tuple[str, ...] = ("sae_id", "feature", "name", "confidence", "note", "tags", "source")


def write_concepts(path: Path, concepts: "Sequence[Concept]") -> None:
    """Writes `concepts` whole or not at all, by the suffix of `path`. Raises UserError."""
    rows = [{field: getattr(concept, field) for field in FIELDS} for concept in concepts]
    if _suffix(path) == ".json":
        text = json.dumps(rows, indent=2, ensure_ascii=False) + "\n"
    else:
        buffer = io.StringIO(newline="")
        writer = csv.DictWriter(buffer, list(FIELDS))
        writer.writeheader()
        for row in rows:
            writer.writerow(row | {"tags": json.dumps(row["tags"], ensure_ascii=False)})
        text = buffer.getvalue()
    try:
        write_bytes(path, text.encode())
    except OSError as error:
        raise UserError(f"{str(path)!r} cannot be written ({error.strerror})") from error


def read_concepts(path: Path, sae_id: str | None = None) -> list[dict[str, Any]]:
    """The rows of a file as arguments of `Annotations.set_concept`.

    JSON is a list of objects, or {feature: [{"name", "confidence"}]}; CSV has a header with at
    least `feature` and `name`. Raises UserError naming the first row that is wrong.
    """
    suffix = _suffix(path)
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except FileNotFoundError as error:
        raise NotFoundError(f"file {str(path)!r} not found") from error
    except (OSError, UnicodeDecodeError) as error:
        told = machine_error(error, path)
        raise told or UserError(f"{str(path)!r} cannot be read as text ({error})") from error
    rows = _json_rows(path, text) if suffix == ".json" else _csv_rows(path, text)
    return [_checked(path, n, row, sae_id) for n, row in enumerate(rows, start=1)]


def _suffix(path: Path) -> str:
    suffix = path.suffix.lower()
    if suffix not in (".json", ".csv"):
        raise UserError(f"{str(path)!r} is neither .json nor .csv", hint="choose by the suffix")
    return suffix


def _json_rows(path: Path, text: str) -> Iterator[Mapping[str, Any]]:
    data = parse_json(text, repr(str(path)), error=UserError)
    if isinstance(data, dict):
        for feature, names in data.items():
            for name in names if isinstance(names, list) else [names]:
                row = name if isinstance(name, dict) else {"name": name}
                yield {"feature": feature, **row}
    elif isinstance(data, list):
        yield from (row if isinstance(row, dict) else {} for row in data)
    else:
        raise UserError(f"{str(path)!r} holds neither a list nor an object of concepts")


def _csv_rows(path: Path, text: str) -> Iterator[Mapping[str, Any]]:
    reader = csv.DictReader(io.StringIO(text, newline=""))
    header = reader.fieldnames or ()
    missing = [field for field in ("feature", "name") if field not in header]
    if missing:
        raise UserError(
            f"{str(path)!r} has no column {missing[0]!r}",
            hint=f"the first line names the columns: {','.join(FIELDS)}",
        )
    try:
        yield from reader
    except csv.Error as error:
        raise UserError(f"{str(path)!r} is not valid CSV ({error})") from error


def _checked(path: Path, number: int, row: Mapping[str, Any], sae_id: str | None) -> dict[str, Any]:
    owner = row.get("sae_id") or sae_id
    if not owner:
        raise UserError(
            f"row {number} of {str(path)!r} does not say which SAE it is about",
            hint="add the field sae_id",
        )
    try:
        confidence = row.get("confidence")
        return {
            "sae_id": str(owner),
            "feature": _feature(row["feature"]),
            "name": _text(row["name"]),
            "confidence": float(1.0 if confidence in (None, "") else confidence),
            "note": _text(row.get("note") or ""),
            "tags": _tags(row.get("tags")),
            "source": _text(row.get("source") or "import"),
        }
    except (KeyError, TypeError, ValueError, OverflowError, UserError) as error:
        raise UserError(f"row {number} of {str(path)!r} is not a concept ({error!r})") from error


def _feature(value: Any) -> int:
    """A feature's number from a number or its digits; no fraction is cut off."""
    if isinstance(value, bool):
        raise TypeError(f"{value!r} is not a number")
    return int(value) if isinstance(value, str) else operator.index(value)


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{value!r} is not a text")
    return value


def _tags(value: Any) -> tuple[str, ...]:
    """Tags from a list, a JSON list in a text, or a text with commas."""
    if value is None or value == "":
        return ()
    if isinstance(value, str):
        value = (
            parse_json(value, "tags", error=UserError)
            if value.startswith("[")
            else value.split(",")
        )
    return tuple(_text(tag) for tag in value)
