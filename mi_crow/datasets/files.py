"""Local files of texts: txt, md, jsonl, json, csv, tsv, parquet, compressed or not; read record
by record."""

import csv
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from hashlib import file_digest
from io import BufferedReader, RawIOBase, TextIOWrapper
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from mi_crow.causes import machine_error
from mi_crow.datasets.fields import Fields, RawRow, label_text, may_hold_text
from mi_crow.errors import CorruptDataError, NotFoundError, UserError
from mi_crow.hub import first_line
from mi_crow.store.json_file import parse_json

if TYPE_CHECKING:
    import pyarrow as pa

SUFFIXES = (".txt", ".md", ".jsonl", ".ndjson", ".json", ".csv", ".tsv", ".parquet")
COMPRESSED = {".gz": "gzip", ".zst": "zstd"}  # after one of the others, but for parquet

_KNOWN = f"use {', '.join(SUFFIXES)} files, all but parquet also as .gz or .zst"
_BATCH_ROWS = 128
_LONGEST_FIELD = 2**31 - 1  # of CSV and TSV; Python's own limit is 128 KB


def looks_like_path(text: str, suffixes: tuple[str, ...] = SUFFIXES) -> bool:
    """True for what cannot be a hub id, which has at most one slash and no marks of a path."""
    return (
        text.count("/") > 1
        or text.startswith((".", "/", "~"))
        or Path(text).suffix.lower() in (*suffixes, *COMPRESSED)
    )


def is_compressed(path: Path) -> bool:
    return path.suffix.lower() in COMPRESSED


def kind_of(path: Path) -> str | None:
    """The one of SUFFIXES that a file has, compressed or not; None for an unknown kind."""
    compressed = is_compressed(path)
    suffix = (Path(path.stem) if compressed else path).suffix.lower()
    return None if suffix not in SUFFIXES or (compressed and suffix == ".parquet") else suffix


@contextmanager
def open_text(path: Path, newline: str | None = None) -> Iterator[TextIO]:
    """A file's text, UTF-8 with or without a byte order mark, decompressed if needed.

    Raises UserError for incomplete compressed data.
    """
    if not is_compressed(path):
        with path.open(encoding="utf-8-sig", newline=newline) as file:
            yield file
        return
    import pyarrow as pa

    path.open("rb").close()  # raises as for other files if it is missing or not readable
    codec = COMPRESSED[path.suffix.lower()]
    try:
        with pa.input_stream(str(path), compression=codec) as stream:
            yield TextIOWrapper(BufferedReader(_Decompressed(stream)), "utf-8-sig", newline=newline)
    except (pa.ArrowException, OSError, EOFError) as error:
        if machine_error(error, path) is not None:
            raise
        raise UserError(
            f"dataset file {str(path)!r} is not a complete {codec} file ({first_line(error)})"
        ) from error


class _Decompressed(RawIOBase):
    """Arrow's reader of compressed files as a raw stream of Python's."""

    def __init__(self, source: Any) -> None:
        self._source = source

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data = self._source.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)


_MOST_OTHERS = 20_000  # files and folders below a folder of texts that are something else


def text_files(path: Path) -> list[Path]:
    """`path` itself, or the files of known suffix below it, ordered by name.

    Raises NotFoundError or UserError if there are none, or if there is so much else below it that
    the folder was hardly meant: `/` would be read for minutes.
    """
    if path.is_dir():
        files, others = list[Path](), 0
        for found in path.rglob("*"):
            if kind_of(found) is not None and found.is_file():
                files.append(found)
                continue
            others += 1
            if others > _MOST_OTHERS:
                raise UserError(
                    f"folder {str(path)!r} holds more than {_MOST_OTHERS:,} files that are not "
                    "texts",
                    hint="name the folder of the texts",
                )
        files.sort()
        if not files:
            raise UserError(f"dataset folder {str(path)!r} has no text files", hint=_KNOWN)
        return files
    if not path.exists():
        raise NotFoundError(f"dataset {str(path)!r} not found", hint="there is no such path")
    if kind_of(path) is None:
        raise UserError(f"dataset file {str(path)!r} is of an unknown kind", hint=_KNOWN)
    return [path]


def file_rows(path: Path, fields: Fields) -> Iterator[RawRow]:
    """The values of each record's text and label fields.

    Raises UserError naming file, line and what is wrong: a missing field, damage, not UTF-8.
    """
    with _named(path):
        yield from _READERS[kind_of(path) or ""](path, fields)


def count_records(path: Path, fields: Fields) -> int:
    """How many records `file_rows` will yield, at most, reading as little as possible."""
    with _named(path):
        kind = kind_of(path)
        if kind == ".parquet":
            import pyarrow.parquet as pq

            return pq.read_metadata(path).num_rows
        if kind in (".jsonl", ".ndjson") and not is_compressed(path):
            with path.open("rb") as file:
                return sum(not line.isspace() for line in file)
    return sum(1 for _ in file_rows(path, fields))


def content_hash(path: Path) -> str:
    """SHA-256 of a file's bytes."""
    with _named(path), path.open("rb") as file:
        return file_digest(file, "sha256").hexdigest()


@contextmanager
def _named(path: Path) -> Iterator[None]:
    """Turns errors of the system into a sentence that names the file."""
    try:
        yield
    except UnicodeDecodeError as error:
        raise UserError(
            f"dataset file {str(path)!r} is not UTF-8 text", hint="convert it"
        ) from error
    except FileNotFoundError as error:
        raise NotFoundError(
            f"dataset file {str(path)!r} is gone", hint="it was there when reading began"
        ) from error
    except OSError as error:
        raise machine_error(error, path) or UserError(
            f"dataset file {str(path)!r} cannot be read ({error.strerror or error})"
        ) from error


def _passages(path: Path, fields: Fields) -> Iterator[RawRow]:
    """A prose file's paragraphs (separated by empty lines), labelled with the file's name."""
    label = Path(path.stem).stem if is_compressed(path) else path.stem
    with open_text(path) as file:
        lines: list[str] = []
        for line in file:
            if line != "\n":
                lines.append(line)
            elif passage := "".join(lines).strip():
                yield passage, label
                lines = []
        if passage := "".join(lines).strip():
            yield passage, label


def _json_lines(path: Path, fields: Fields) -> Iterator[RawRow]:
    # Lines end only at \n, as in `count_records`.
    with open_text(path, newline="\n") as file:
        first = True
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            record = _parse(line, f"{str(path)!r} line {number}")
            if first:
                fields, first = _fields_in(record, path, fields), False
            yield _record_row(record, path, number, fields)


def _json(path: Path, fields: Fields) -> Iterator[RawRow]:
    """A list of records, or one record per line as in most data sets on the hub."""
    if has_json_lines(path):
        yield from _json_lines(path, fields)
        return
    with open_text(path) as file:
        records = _parse(file.read(), f"dataset {str(path)!r}")
    if not isinstance(records, list):
        raise UserError(
            f"dataset {str(path)!r} is not a list",
            hint="give a list of objects, or one per line",
        )
    for number, record in enumerate(records, 1):
        if number == 1:
            fields = _fields_in(record, path, fields)
        yield _record_row(record, path, number, fields)


def has_json_lines(path: Path) -> bool:
    """True for a .json file whose first two lines are one record each."""
    with _named(path), open_text(path, newline="\n") as file:
        # A list may be the whole file in one line: do not read it just for this.
        while (start := file.read(1)).isspace():
            pass
        if start not in ("{", '"'):
            return False
        first = start + file.readline()
        second = next((line for line in file if line.strip()), "")
    try:
        return bool(second) and all(_parse(line, "") is not None for line in (first, second))
    except UserError:
        return False


def _parse(text: str, what: str) -> Any:
    # Fields other than the text's may have integers of any length.
    return parse_json(text, what, error=UserError, long_integers=True)


def _fields_in(record: Any, path: Path, fields: Fields) -> Fields:
    return fields_of_record(fields, str(path), record) if isinstance(record, dict) else fields


def fields_of_record(fields: Fields, source: str, record: Mapping[str, Any]) -> Fields:
    """The fields as found in `record`. Raises UserError naming those that would work."""
    texts = [name for name, value in record.items() if may_hold_text(value)]
    return fields.found(source, record, texts)


def _record_row(record: Any, path: Path, number: int, fields: Fields) -> RawRow:
    if isinstance(record, str):
        return record, None
    if not isinstance(record, dict):
        raise UserError(f"{str(path)!r} record {number} is neither an object nor a text")
    return fields.of(record)


def _delimited(path: Path, fields: Fields) -> Iterator[RawRow]:
    with open_text(path, newline="") as file:
        rows = _csv_reader(path, file)
        try:
            header = _next_row(rows)
            if header is None:
                return
            fields = fields.found(str(path), header)
            text_at = header.index(fields.text)
            label_at = header.index(fields.label_name) if fields.label_name in header else None
            while (row := _next_row(rows)) is not None:
                if len(row) > len(header):
                    raise UserError(
                        f"{str(path)!r} line {rows.line_num} has {len(row)} fields, "
                        f"its first line {len(header)}",
                        hint="put the text in double quotes",
                    )
                if row:
                    row += [""] * (len(header) - len(row))
                    yield row[text_at], None if label_at is None else row[label_at] or None
        except csv.Error as error:
            raise UserError(
                f"{str(path)!r} line {rows.line_num} is not valid {path.suffix[1:]} ({error})",
                hint="check its double quotes",
            ) from error


def _next_row(rows: Any) -> list[str] | None:
    """The next row, with fields of any length; None at the end."""
    before = csv.field_size_limit(_LONGEST_FIELD)  # of the whole process: restored at once
    try:
        return next(rows, None)
    finally:
        csv.field_size_limit(before)


def _csv_reader(path: Path, file: TextIO) -> Any:
    return csv.reader(file, delimiter="\t" if kind_of(path) == ".tsv" else ",", strict=True)


def _parquet(path: Path, fields: Fields) -> Iterator[RawRow]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    path.open("rb").close()  # raises as for other files if it is missing or not readable
    try:
        file = pq.ParquetFile(path)
        names = file.schema_arrow.names
        fields = fields.found(str(path), names, text_columns(file.schema_arrow))
        classes = class_names((file.schema_arrow.metadata or {}).get(b"huggingface"), fields)
        columns = [name for name in (fields.text, fields.label_name) if name in names]
        for batch in file.iter_batches(_BATCH_ROWS, columns=columns):
            texts = batch.column(fields.text).to_pylist()
            if fields.label_name not in columns:
                yield from ((text, None) for text in texts)
                continue
            labels = batch.column(fields.label_name).to_pylist()
            yield from zip(texts, (label_text(one, classes) for one in labels), strict=True)
    except (pa.ArrowException, OSError) as error:
        raise machine_error(error, path) or UserError(
            f"dataset file {str(path)!r} is not a valid Parquet file ({str(error).splitlines()[0]})"
        ) from error


def text_columns(schema: "pa.Schema") -> list[str]:
    """The columns of an Arrow schema that may have texts, conversations or token ids."""
    import pyarrow as pa

    def may(kind: Any) -> bool:
        if pa.types.is_dictionary(kind):
            return may(kind.value_type)
        text = pa.types.is_string(kind) or pa.types.is_large_string(kind)
        listed = pa.types.is_list(kind) or pa.types.is_large_list(kind)
        if listed:
            text = pa.types.is_struct(kind.value_type) or pa.types.is_integer(kind.value_type)
        return text or pa.types.is_string_view(kind) or pa.types.is_null(kind)

    return [field.name for field in schema if may(field.type)]


def class_names(description: bytes | None, fields: Fields) -> list[str] | None:
    """The names of the label's classes, as `datasets` writes them into Parquet files."""
    try:
        features = parse_json(description or b"{}", "the file's description")["info"]["features"]
        return list(features[fields.label_name]["names"])
    except (CorruptDataError, LookupError, TypeError):
        return None


_READERS: dict[str, Callable[[Path, Fields], Iterator[RawRow]]] = {
    ".txt": _passages,
    ".md": _passages,
    ".jsonl": _json_lines,
    ".ndjson": _json_lines,
    ".json": _json,
    ".csv": _delimited,
    ".tsv": _delimited,
    ".parquet": _parquet,
}
