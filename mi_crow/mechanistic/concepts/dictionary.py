"""Names for latents from Python, CSV and JSON; top texts to CSV and JSON."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isfinite
from operator import index
from pathlib import Path
from typing import Any

from mi_crow.causes import machine_error
from mi_crow.clean_text import clean_text
from mi_crow.csv_text import LINE, csv_rows, csv_text
from mi_crow.errors import NotFoundError, UserError
from mi_crow.store.atomic import write_bytes, write_json
from mi_crow.store.json_file import parse_json

TopTexts = Mapping[int, Sequence[tuple[str, float]]]

_FORM = 'write {42: [{"name": "rain", "confidence": 0.9}]}'
_LONGEST_NAME = 1 << 17
_COLUMNS = "the columns are feature, name, confidence"


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
    data = parse_json(_read(path), repr(str(path)), error=UserError)
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


def _feature(number: Any) -> int:
    """A feature's number from a number or its digits; no fraction is cut off."""
    if isinstance(number, str):
        return int(number)
    if isinstance(number, bool):
        raise TypeError(f"{number} is not a valid feature")
    return index(number)


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
    """Writes one row a text: feature, rank, activation, text."""
    rows = (
        [feature, rank, value, text]
        for feature, texts in top_texts.items()
        for rank, (text, value) in enumerate(texts)
    )
    write_bytes(path, csv_text(["feature", "rank", "activation", "text"], rows).encode())


def _read(path: Path) -> str:
    try:
        return path.read_text("utf-8-sig")
    except FileNotFoundError as error:
        raise NotFoundError(f"no file {str(path)!r}") from error
    except (OSError, UnicodeDecodeError) as error:
        told = machine_error(error, path)
        raise told or UserError(f"{str(path)!r} cannot be read as text ({error})") from error
