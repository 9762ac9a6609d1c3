"""Reading texts and labels out of local files: txt, md, jsonl, json, csv, tsv, parquet."""

import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from mi_crow.errors import UserError, nearest

SUFFIXES = (".txt", ".md", ".jsonl", ".json", ".csv", ".tsv", ".parquet")

Row = tuple[str, str | None]  # text, label


def read_path(path: Path, text_field: str, label_field: str | None) -> list[Row]:
    """All texts of a file, or of the files of known suffix below a folder, in name order.

    Raises UserError naming what is wrong: no such path, unreadable, unknown suffix, no such field.
    """
    try:
        if path.is_dir():
            files = sorted(p for p in path.rglob("*") if p.suffix.lower() in SUFFIXES)
            if not files:
                raise UserError(
                    f"folder {str(path)!r} holds no texts", hint=f"use {', '.join(SUFFIXES)}"
                )
            return [row for file in files for row in _read_file(file, text_field, label_field)]
        return list(_read_file(path, text_field, label_field))
    except FileNotFoundError as error:
        raise UserError(f"dataset {str(path)!r} not found") from error
    except OSError as error:
        raise UserError(f"dataset {str(path)!r} cannot be read ({error.strerror})") from error
    except UnicodeDecodeError as error:
        raise UserError(f"dataset {str(path)!r} is not UTF-8 text", hint="convert it") from error


def _read_file(path: Path, text_field: str, label_field: str | None) -> Iterator[Row]:
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        raise UserError(
            f"dataset {str(path)!r} has an unknown suffix", hint=f"use {', '.join(SUFFIXES)}"
        )
    if suffix in (".txt", ".md"):
        return iter(_passages(path.read_text("utf-8"), path.stem))
    return fields_of(_records(path, suffix, text_field), text_field, label_field, str(path))


def _passages(text: str, label: str) -> list[Row]:
    """A prose file's paragraphs (parted by empty lines), labelled with the file's name."""
    return [(part.strip(), label) for part in text.split("\n\n") if part.strip()]


def _records(path: Path, suffix: str, text_field: str) -> Iterable[Mapping[str, Any]]:
    if suffix == ".jsonl":
        return _json_lines(path, text_field)
    if suffix == ".json":
        return _json_list(path, text_field)
    import polars as pl

    try:
        if suffix == ".parquet":
            return pl.read_parquet(path).iter_rows(named=True)
        separator = "\t" if suffix == ".tsv" else ","
        return pl.read_csv(path, separator=separator, infer_schema=False).iter_rows(named=True)
    except pl.exceptions.PolarsError as error:
        first = str(error).splitlines()[0]
        raise UserError(
            f"dataset {str(path)!r} is not a whole {suffix[1:]} file ({first})"
        ) from error


def _json_lines(path: Path, text_field: str) -> Iterator[Mapping[str, Any]]:
    with path.open(encoding="utf-8") as file:
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            try:
                record = json.loads(line)
            except json.JSONDecodeError as error:
                raise UserError(f"{str(path)!r} line {number} is not JSON ({error.msg})") from error
            yield _as_record(record, path, number, text_field)


def _json_list(path: Path, text_field: str) -> Iterator[Mapping[str, Any]]:
    try:
        records = json.loads(path.read_text("utf-8"))
    except json.JSONDecodeError as error:
        raise UserError(f"dataset {str(path)!r} is not JSON ({error.msg})") from error
    if not isinstance(records, list):
        raise UserError(f"dataset {str(path)!r} is not a list", hint="give a list of objects")
    for number, record in enumerate(records, 1):
        yield _as_record(record, path, number, text_field)


def _as_record(record: Any, path: Path, number: int, text_field: str) -> Mapping[str, Any]:
    if isinstance(record, str):
        return {text_field: record}
    if not isinstance(record, dict):
        raise UserError(f"{str(path)!r} record {number} is neither an object nor a text")
    return record


def fields_of(
    records: Iterable[Mapping[str, Any]], text_field: str, label_field: str | None, source: str
) -> Iterator[Row]:
    """Text and label of each record; records whose text is missing or empty are left out.

    Without `label_field` the field `label` is taken where there is one. Raises UserError naming
    the fields that there are when the first record has no such field.
    """
    for number, record in enumerate(records):
        if number == 0:
            for field in (text_field, label_field):
                if field is not None and field not in record:
                    raise UserError(
                        f"dataset {source!r} has no field {field!r}",
                        hint=f"it has {nearest(field, map(str, record), 8)}",
                    )
        text = record.get(text_field)
        label = record.get(label_field or "label")
        if isinstance(text, str) and text.strip():
            yield text, None if label is None else str(label)
