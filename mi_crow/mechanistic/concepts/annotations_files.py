"""Concepts as .json and .csv files; pure but for reading and writing the file."""

import json
import operator
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mi_crow.causes import machine_error
from mi_crow.clean_text import clean_text
from mi_crow.csv_text import csv_rows, csv_text
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
        for row in rows:
            row["tags"] = json.dumps(row["tags"], ensure_ascii=False)
        text = csv_text(FIELDS, [list(row.values()) for row in rows])
    try:
        write_bytes(path, text.encode())
    except OSError as error:
        raise UserError(f"{str(path)!r} cannot be written ({error.strerror})") from error


def read_concepts(path: Path, sae_id: str | None = None) -> list[dict[str, Any]]:
    """The rows of a file as arguments of `Annotations.set_concept`; what a row does not say is left
    out.

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
    csv_header = [["feature"], ["name"]]
    rows = (
        _json_rows(path, text) if suffix == ".json" else csv_rows(text, repr(str(path)), csv_header)
    )
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


def _checked(path: Path, number: int, row: Mapping[str, Any], sae_id: str | None) -> dict[str, Any]:
    owner = row.get("sae_id") or sae_id
    if not owner:
        raise UserError(
            f"row {number} of {str(path)!r} does not say which SAE it is about",
            hint="add the field sae_id",
        )
    try:
        checked = {
            "sae_id": clean_text(str(owner)),
            "feature": _feature(row["feature"]),
            "name": clean_text(_text(row["name"])).strip(),
            "source": _text(row.get("source") or "import"),
        }
        if (confidence := row.get("confidence")) not in (None, ""):
            checked["confidence"] = float(confidence)
        if (note := row.get("note")) is not None:
            checked["note"] = clean_text(_text(note))
        if (tags := row.get("tags")) is not None:
            checked["tags"] = tuple(
                dict.fromkeys(clean_text(tag).strip() for tag in _tags(tags) if tag.strip())
            )
        return checked
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
