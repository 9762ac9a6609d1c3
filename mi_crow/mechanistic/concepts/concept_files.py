"""Concepts and top texts as .json and .csv files."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isfinite
from operator import index
from pathlib import Path
from typing import Any

from mi_crow.causes import machine_error
from mi_crow.clean_text import clean_text
from mi_crow.csv_text import LINE, csv_rows, csv_text, overflow
from mi_crow.errors import NotFoundError, UserError
from mi_crow.mechanistic.concepts.annotations_rows import Concept
from mi_crow.store.atomic import write_bytes, write_json
from mi_crow.store.json_file import parse_json

FIELDS: tuple[str, ...] = (
    "sae_id",
    "feature",
    "name",
    "confidence",
    "note",
    "tags",
    "source",
    "created",
    "updated",
)
TopTexts = Mapping[int, Sequence[tuple[str, float]]]

_WHOLE = re.compile(r"[ \t]*[+-]?[0-9]+[ \t]*")
_FORM = 'write {42: [{"name": "rain", "confidence": 0.9}]}'
_LONGEST_NAME = 1 << 17
_COLUMNS = "the columns are feature, name, confidence"


# The annotations' own export and import.


def write_concepts(
    path: Path,
    concepts: Sequence[Concept],
    layers: Mapping[tuple[str, int], str] | None = None,
) -> None:
    """Writes `concepts` whole or not at all, by the suffix of `path`; with `layers` of their SAEs
    and features, also these. Raises UserError."""
    suffix = path.suffix.lower()
    if suffix not in (".json", ".csv"):
        raise UserError(f"{str(path)!r} is neither .json nor .csv", hint="choose by the suffix")
    rows = [{field: getattr(concept, field) for field in FIELDS} for concept in concepts]
    if layers:
        for row, one in zip(rows, concepts, strict=True):
            row["layer"] = layers.get((one.sae_id, one.feature))
    if suffix == ".json":
        text = json.dumps(rows, indent=2, ensure_ascii=False) + "\n"
    else:
        for row in rows:
            row["tags"] = json.dumps(row["tags"], ensure_ascii=False)
        columns = [*FIELDS, "layer"] if layers else FIELDS
        text = csv_text(columns, [list(row.values()) for row in rows])
    try:
        write_bytes(path, text.encode())
    except OSError as error:
        raise UserError(f"{str(path)!r} cannot be written ({error.strerror})") from error


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
            found[feature_number(feature)] = [
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
    data = read_json_file(path)
    if not isinstance(data, dict):
        raise UserError(f"{str(path)!r} is not an object", hint="its keys are feature numbers")
    return concepts_from(data)


def read_csv_concepts(path: Path) -> dict[int, list[NamedConcept]]:
    """Reads rows with the columns neuron_idx (or feature), concept_name (or name), and score (or
    confidence), the last one optional."""
    found: dict[int, list[NamedConcept]] = {}
    header = [["feature", "neuron_idx"], ["name", "concept_name"]]
    for row in csv_rows(read_text(path), repr(str(path)), header, _LONGEST_NAME):
        feature = row.get("neuron_idx") or row.get("feature")
        name = row.get("concept_name") or row.get("name")
        confidence = row.get("score") or row.get("confidence") or "1"
        try:
            if said := overflow(row):
                raise ValueError(said)
            found.setdefault(feature_number(feature or ""), []).append(
                _concept(name, float(confidence))
            )
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


def feature_number(value: Any) -> int:
    """A feature's number from a number or its digits; no fraction is cut off."""
    if isinstance(value, bool):
        raise TypeError(f"{value!r} is not a number")
    if isinstance(value, str) and not _WHOLE.fullmatch(value):  # Python also reads 1_0
        raise ValueError(f"{value!r} is not a whole number")
    return int(value) if isinstance(value, str) else index(value)


def read_json_file(path: Path) -> Any:
    """What is in a JSON file. Raises NotFoundError, UserError, also for an object with a key twice:
    one of the two would be lost."""
    return parse_json(read_text(path), repr(str(path)), error=UserError, unique_keys=True)


def read_text(path: Path) -> str:
    """The file's text, its line ends as they are. Raises NotFoundError, UserError."""
    data = read_file(path)
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        raise UserError(
            f"line {line} of {str(path)!r} is not UTF-8 text", hint="save it as UTF-8"
        ) from error


def read_file(path: Path) -> bytes:
    """The file's bytes. Raises NotFoundError, UserError, also for a pipe, which may never end."""
    try:
        if path.exists() and not path.is_file() and not path.is_dir():
            raise UserError(f"{str(path)!r} is a pipe or a device, not a file")
        return path.read_bytes()
    except FileNotFoundError as error:
        raise NotFoundError(f"file {str(path)!r} not found") from error
    except OSError as error:
        cause = machine_error(error, path)
        raise cause or UserError(f"{str(path)!r} cannot be read ({error.strerror})") from error
