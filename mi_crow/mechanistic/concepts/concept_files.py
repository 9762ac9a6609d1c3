"""Concepts and top texts as .json and .csv files."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import isfinite
from operator import index
from pathlib import Path
from typing import Any

from mi_crow.causes import machine_error
from mi_crow.clean_text import clean_text
from mi_crow.csv_text import LINE, csv_rows, csv_text
from mi_crow.errors import NotFoundError, UserError
from mi_crow.mechanistic.concepts.annotations_rows import Concept
from mi_crow.store.atomic import write_bytes, write_json
from mi_crow.store.json_file import parse_json

FIELDS: tuple[str, ...] = ("sae_id", "feature", "name", "confidence", "note", "tags", "source")
TopTexts = Mapping[int, Sequence[tuple[str, float]]]

_FORM = 'write {42: [{"name": "rain", "confidence": 0.9}]}'
_LONGEST_NAME = 1 << 17
_COLUMNS = "the columns are feature, name, confidence"


# The annotations' own export and import.


def write_concepts(path: Path, concepts: Sequence[Concept]) -> None:
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
    if _suffix(path) == ".json":
        rows = _json_rows(path)
    else:
        rows = csv_rows(_read(path), repr(str(path)), [["feature"], ["name"]])
    return [_checked(path, n, row, sae_id) for n, row in enumerate(rows, start=1)]


def _suffix(path: Path) -> str:
    suffix = path.suffix.lower()
    if suffix not in (".json", ".csv"):
        raise UserError(f"{str(path)!r} is neither .json nor .csv", hint="choose by the suffix")
    return suffix


def _json_rows(path: Path) -> Iterator[Mapping[str, Any]]:
    data = _read_json(path)
    if isinstance(data, dict):
        for feature, names in data.items():
            for name in names if isinstance(names, list) else [names]:
                row = name if isinstance(name, dict) else {"name": name}
                yield {"feature": feature, **row}
    elif isinstance(data, list):
        yield from (row if isinstance(row, dict) else {} for row in data)
    else:
        raise UserError(f"{str(path)!r} is neither a list nor an object of concepts")


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


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{value!r} is not a text")
    return value


def _tags(value: Any) -> tuple[str, ...]:
    """Tags from a list, a JSON list in a text, or a text with commas."""
    if value == "":
        return ()
    if isinstance(value, str):
        value = (
            parse_json(value, "tags", error=UserError)
            if value.startswith("[")
            else value.split(",")
        )
    return tuple(_text(tag) for tag in value)


# Names and top texts of one SAE's latents, in the forms of the published guides.


@dataclass(frozen=True)
class NamedConcept:
    """One name of a latent."""

    name: str
    confidence: float = 1.0


def concepts_from(data: Mapping[Any, Any]) -> dict[int, list[NamedConcept]]:
    """Reads {feature: [{"name", "confidence"}]}. Raises UserError naming the wrong entry."""
    if not isinstance(data, Mapping):
        raise UserError(f"concepts cannot be read from a {type(data).__name__}", hint=_FORM)
    found: dict[int, list[NamedConcept]] = {}
    for feature, entries in data.items():
        try:
            found[_feature(feature)] = [
                _concept(entry["name"], entry.get("confidence", 1.0))
                for entry in ([entries] if isinstance(entries, Mapping) else entries)
            ]
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise UserError(
                f"concepts of feature {feature!r} cannot be read ({error!r})", hint=_FORM
            ) from error
    return found


def read_json_concepts(path: Path) -> dict[int, list[NamedConcept]]:
    """Reads a JSON object in the form of `concepts_from`."""
    data = _read_json(path)
    if not isinstance(data, dict):
        raise UserError(f"{str(path)!r} is not an object", hint="its keys are feature numbers")
    return concepts_from(data)


def read_csv_concepts(path: Path) -> dict[int, list[NamedConcept]]:
    """Reads rows with the columns neuron_idx (or feature), concept_name (or name), and score (or
    confidence), the last one optional."""
    found: dict[int, list[NamedConcept]] = {}
    header = [["feature", "neuron_idx"], ["name", "concept_name"]]
    for row in csv_rows(_read(path), repr(str(path)), header, _LONGEST_NAME):
        feature = row.get("neuron_idx") or row.get("feature")
        name = row.get("concept_name") or row.get("name")
        confidence = row.get("score") or row.get("confidence") or "1"
        try:
            found.setdefault(_feature(feature or ""), []).append(_concept(name, float(confidence)))
        except (TypeError, ValueError) as error:
            raise UserError(
                f"{str(path)!r} line {row[LINE]} is not a valid concept ({error})", hint=_COLUMNS
            ) from error
    return found


def _concept(name: Any, confidence: Any) -> NamedConcept:
    if not isinstance(name, str) or not name.strip():
        raise ValueError("a concept needs a name")
    if not isfinite(value := float(confidence)):
        raise ValueError(f"confidence {value} is not finite")
    return NamedConcept(clean_text(name), value)


def write_top_texts_json(path: Path, top_texts: TopTexts) -> None:
    """Writes {feature: [{"text", "activation"}]}."""
    write_json(
        path,
        {
            str(feature): [{"text": text, "activation": value} for text, value in texts]
            for feature, texts in top_texts.items()
        },
    )


def write_top_texts_csv(path: Path, top_texts: TopTexts) -> None:
    """Writes one row per text: feature, rank, activation, text."""
    rows = (
        [feature, rank, value, text]
        for feature, texts in top_texts.items()
        for rank, (text, value) in enumerate(texts)
    )
    write_bytes(path, csv_text(["feature", "rank", "activation", "text"], rows).encode())


# What both read.


def _feature(value: Any) -> int:
    """A feature's number from a number or its digits; no fraction is cut off."""
    if isinstance(value, bool):
        raise TypeError(f"{value!r} is not a number")
    return int(value) if isinstance(value, str) else index(value)


def _read_json(path: Path) -> Any:
    return parse_json(_read(path), repr(str(path)), error=UserError)


def _read(path: Path) -> str:
    """The file's text, its line ends as they are. Raises NotFoundError, UserError."""
    try:
        return path.read_bytes().decode("utf-8-sig")
    except FileNotFoundError as error:
        raise NotFoundError(f"file {str(path)!r} not found") from error
    except (OSError, UnicodeDecodeError) as error:
        cause = machine_error(error, path)
        raise cause or UserError(f"{str(path)!r} cannot be read as text ({error})") from error
