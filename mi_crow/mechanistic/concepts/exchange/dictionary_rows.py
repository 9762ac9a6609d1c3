"""Rows of a dictionary of concepts, from any file that has some, each with its place in the file.

Read are our own .json and .csv, those of the published guides, and explanations of Neuronpedia:
JSON lines, also compressed, one file or a folder of batches. Torch-free.
"""

import codecs
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

from mi_crow.clean_text import clean_text
from mi_crow.csv_text import LINE, MORE, WRONG, csv_rows, overflow
from mi_crow.errors import NotFoundError, UserError
from mi_crow.mechanistic.concepts.annotations_rows import (
    check_lengths,
    clean_tags,
)
from mi_crow.mechanistic.concepts.concept_files import (
    feature_number,
    read_file,
    read_json_file,
)
from mi_crow.mechanistic.concepts.exchange.layers import LAYER
from mi_crow.mechanistic.concepts.exchange.neuronpedia import (
    explanation_files,
    explanation_lines,
    is_explanations,
    read_fields,
)
from mi_crow.store.field_types import is_moment
from mi_crow.store.json_file import parse_json

SUFFIXES = (".json", ".csv", ".jsonl", ".jsonl.gz")
_NOT_UTF8 = re.compile("[\udc80-\udcff]")  # as `surrogateescape` decodes it
_DIGITS = frozenset("0123456789+-.eE \t")  # Python also reads 1_0, and digits of other scripts
_PLACES = 5  # of further rows that are wrong which a sentence names
_Number = TypeVar("_Number", int, float)
# What other tools call a field.
_ALIASES = {
    "feature": ("feature", "neuron_idx", "index"),
    "name": ("name", "concept_name", "description"),
    "confidence": ("confidence", "score"),
    "note": ("note", "notes"),
    "sae_id": ("sae_id", "sae"),
}
_OTHERS = ("tags", "source", "created", "updated", LINE, MORE)
_KNOWN = frozenset([*_OTHERS, *(name for names in _ALIASES.values() for name in names)])


@dataclass(frozen=True)
class FileRow:
    """One row: what it says, as arguments of `set_concept`, or what is wrong with it."""

    place: str  # `row 3`, with the line where that is another
    values: dict[str, Any]
    trouble: str = ""
    ignored: tuple[str, ...] = ()  # fields that say something and are not known
    layer: str = ""  # that the feature is of, as the file says; among the ignored fields


def bad_rows(path: Path, rows: Sequence[FileRow]) -> UserError:
    """The error for rows that cannot be taken: what is wrong with each of the first, and how many
    more there are."""
    first, *others = rows
    them = "them" if others else "it"
    hint = f"--skip-bad (skip_bad=True) leaves {them} out"
    if others:
        places: dict[str, list[str]] = {}
        for row in others[:_PLACES]:
            places.setdefault(row.trouble, []).append(row.place)
        said = "; ".join(f"{', '.join(some)}: {trouble}" for trouble, some in places.items())
        rest = len(others) - _PLACES
        more = f"; and {rest:,} other{'' if rest == 1 else 's'}" if rest > 0 else ""
        hint = f"also wrong: {said}{more}; {hint}"
    return UserError(f"{first.place} of {str(path)!r}: {first.trouble}", hint=hint)


def read_rows(
    path: Path, sae_id: str | None = None, source_id: str | None = None
) -> Iterator[FileRow]:
    """The rows of a file or folder, also those that are wrong.

    `source_id` chooses among the sources (`10-res-jb`) of explanations from Neuronpedia. Raises
    UserError where the file as a whole cannot be read, and for explanations of several sources of
    which none is chosen.
    """
    for number, (line, raw) in enumerate(_raw(path, source_id), start=1):
        place = f"row {number}" + (f" (line {line})" if line not in (None, number) else "")
        if isinstance(raw, str):
            yield FileRow(place, {}, raw)
            continue
        try:
            layer = str(raw.get(LAYER) or "")
            yield FileRow(place, _checked(raw, sae_id), ignored=_unknown(raw), layer=layer)
        except UserError as error:
            yield FileRow(place, {}, str(error))
        except OverflowError as error:
            yield FileRow(place, {}, f"it has a number that is too large ({error})")


def _unknown(row: Mapping[str, Any]) -> tuple[str, ...]:
    """The fields of a row that say something and are not read."""
    return tuple(str(name) for name in _not_read(tuple(row)) if row[name])


@lru_cache(maxsize=64)  # most rows have the fields of the one before
def _not_read(names: tuple[str, ...]) -> tuple[str, ...]:
    """Of a row's fields those that are not known, and second names of a field."""
    seconds = {
        name for same in _ALIASES.values() for name in [one for one in same if one in names][1:]
    }
    return tuple(name for name in names if name not in _KNOWN or name in seconds)


_Raw = tuple[int | None, Mapping[str, Any] | str]


def _raw(path: Path, source_id: str | None) -> Iterator[_Raw]:
    """Line and content of each row; a text says why it cannot be read."""
    if is_explanations(path):
        yield from _explanations(path, source_id)
        return
    if path.is_dir():
        raise UserError(
            f"{str(path)!r} has no batches of explanations",
            hint="name a file, or a folder with explanations/batch-0.jsonl.gz",
        )
    suffix = path.suffix.lower()
    if suffix == ".csv":
        header = [["feature", "neuron_idx", "index"], ["name", "concept_name", "description"]]
        for row in csv_rows(_text_of(path), repr(str(path)), header, keep_wrong=True):
            yield row[LINE], row.get(WRONG) or overflow(row) or row
    elif suffix == ".json":
        yield from ((None, row) for row in _json_rows(path))
    else:
        raise UserError(
            f"{str(path)!r} is neither .json nor .csv",
            hint=f"the suffix says what is in it: {', '.join(SUFFIXES)}",
        )


def _text_of(path: Path) -> str:
    """The file's text; what is not UTF-8 becomes surrogates, by which its rows are told. Raises
    UserError, NotFoundError."""
    data = read_file(path)
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        raise UserError(f"{str(path)!r} is UTF-16 text", hint="save it as UTF-8")
    return data.decode("utf-8-sig", "surrogateescape")


def _json_rows(path: Path) -> Iterator[Mapping[str, Any] | str]:
    data = read_json_file(path)
    if isinstance(data, dict):
        for feature, names in data.items():
            for name in names if isinstance(names, list) else [names]:
                row = name if isinstance(name, dict) else {"name": name}
                yield {"feature": feature, **row}
    elif isinstance(data, list):
        yield from (
            row if isinstance(row, dict) else "it is not an object with feature and name"
            for row in data
        )
    else:
        raise UserError(f"{str(path)!r} is neither a list nor an object of concepts")


def _explanations(path: Path, source_id: str | None) -> Iterator[_Raw]:
    files = explanation_files(path)
    if not files:
        if path.exists():
            raise UserError(f"{str(path)!r} is a pipe or a device, not a file")
        raise NotFoundError(f"file {str(path)!r} not found")
    chosen, others = source_id, set[str]()
    found = False
    for file in files:
        for line, text in explanation_lines(file):
            try:
                row = parse_json(text, "the line", error=UserError, unique_keys=True)
            except UserError as error:
                yield line, str(error)
                continue
            if not isinstance(row, dict):
                yield line, "it is not an object with index and description"
                continue
            source = row.get("layer")
            if not isinstance(source, str):
                yield line, "it has no source id (layer)"
                continue
            if chosen is None:
                chosen = source
            if source != chosen:
                others.add(source)
                if source_id is None:
                    raise UserError(
                        f"{str(path)!r} has explanations of {chosen} and of {source}",
                        hint=f"choose with --source-id {chosen}",
                    )
                continue
            found = True
            try:
                yield line, read_fields(row)
            except UserError as error:
                yield line, str(error)
    if source_id is not None and not found and others:
        known = ", ".join(islice(sorted(others), 8))
        raise NotFoundError(
            f"{str(path)!r} has no explanations of {source_id}", hint=f"there is {known}"
        )


def _checked(row: Mapping[str, Any], sae_id: str | None) -> dict[str, Any]:
    owner = _said(row, "sae_id") or sae_id
    if not owner:
        raise UserError("it does not say which SAE it is about; add the field sae_id, or --sae")
    checked: dict[str, Any] = {
        "sae_id": clean_text(str(owner)),
        "feature": _number(feature_number, _said(row, "feature"), "feature", "a whole number"),
        "name": clean_text(_text(_said(row, "name"), "name")).strip(),
        "source": clean_text(_text(row.get("source") or "import", "source")),
    }
    if not checked["name"]:
        raise UserError("a concept needs a name")
    if (confidence := _said(row, "confidence")) not in (None, ""):
        checked["confidence"] = _number(float, confidence, "confidence", "a number")
    if (note := _said(row, "note")) is not None:
        checked["note"] = clean_text(_text(note, "note"))
    if (tags := row.get("tags")) is not None:
        checked["tags"] = _tags_of_text(tags) if isinstance(tags, str) else _tags(tags)
    check_lengths(*(checked.get(key, "") for key in ("name", "note", "tags", "source")))
    for name in ("created", "updated"):
        if (value := row.get(name)) not in (None, ""):
            checked[name] = _number(float, value, name, "a number")
            if not is_moment(checked[name]):
                raise UserError(f"{name} {str(value)[:40]} is not a time in unix seconds")
    return checked


def _said(row: Mapping[str, Any], field: str) -> Any:
    """What the row says in a field, by any of its names."""
    for name in _ALIASES[field]:
        if (value := row.get(name)) is not None:
            return value
    return None


def _text(value: Any, field: str) -> str:
    if value is None:
        raise UserError(f"it has no {field}")
    if not isinstance(value, str):
        raise UserError(f"its {field} {str(value)[:40]} is not a text")
    if not value.isascii() and _NOT_UTF8.search(value):
        raise UserError(f"its {field} is not UTF-8 text; save the file as UTF-8")
    return value


def _number(read: Callable[[Any], _Number], value: Any, field: str, kind: str) -> _Number:
    if value is None:
        raise UserError(f"it has no {field}")
    try:
        if isinstance(value, bool) or (isinstance(value, str) and not _DIGITS.issuperset(value)):
            raise ValueError(value)
        return read(value)
    except (TypeError, ValueError) as error:
        raise UserError(f"its {field} {str(value)[:40]!r} is not {kind}") from error


@lru_cache(maxsize=4096)  # most rows have the tags of some other
def _tags_of_text(text: str) -> tuple[str, ...]:
    """Tags from a JSON list in a text, or a text with commas."""
    if re.match(r"\s*\[", text):
        return _tags(parse_json(text, "tags", error=UserError))
    return _tags(text.split(","))


def _tags(value: Any) -> tuple[str, ...]:
    if not isinstance(value, list | tuple):
        raise UserError(f"its tags {str(value)[:40]} are not a list of texts")
    return clean_tags(tuple(_text(tag, "tag") for tag in value))
