"""Sources of documents, as raw records: files, Arrow tables, streams."""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from mi_crow.datasets.fields import Fields, RawRow, label_text
from mi_crow.datasets.files import (
    content_hash,
    count_records,
    fields_of_record,
    file_rows,
    text_columns,
    text_files,
)
from mi_crow.errors import MiCrowError, UserError
from mi_crow.hub import first_line

if TYPE_CHECKING:
    import datasets

_BATCH_ROWS = 128
Identity = Mapping[str, Any]  # plain data, the same for the same records on every machine


class Records(Protocol):
    """Documents in a fixed order, each the values of its text field and its label field."""

    source: str
    fields: Fields

    def rows(self) -> Iterator[RawRow]:
        """All records, from the first. Raises UserError naming what is wrong."""
        ...

    @property
    def size(self) -> int | None:
        """How many there are at most; None if only reading them would tell."""
        ...

    @property
    def identity(self) -> Identity:
        """What, beside the first rows, distinguishes them from other records."""
        ...


class LocalRecords:
    """A file of texts, or the files of a folder ordered by name."""

    def __init__(self, path: Path, fields: Fields, source: str | None = None) -> None:
        """Raises NotFoundError or UserError if there are no texts."""
        self.source: str = source or str(path)
        self.fields = fields
        self._root = path if path.is_dir() else path.parent
        self._files = text_files(path)

    @property
    def bytes(self) -> int:
        """The size of all files together."""
        return sum(file.stat().st_size for file in self._files)

    def rows(self) -> Iterator[RawRow]:
        for file in self._files:
            yield from file_rows(file, self.fields)

    @property
    def size(self) -> int | None:
        return self._count

    @property
    def identity(self) -> Identity:
        return {"files": self._hashes}

    @cached_property
    def _count(self) -> int:
        return sum(count_records(file, self.fields) for file in self._files)

    @cached_property
    def _hashes(self) -> dict[str, str]:
        return {file.relative_to(self._root).as_posix(): content_hash(file) for file in self._files}


class ArrowRecords:
    """A `datasets.Dataset`: memory-mapped, with random access to its rows."""

    def __init__(
        self,
        dataset: "datasets.Dataset",
        fields: Fields,
        source: str,
        identity: Callable[[], Identity],
    ) -> None:
        """Raises UserError for a data set that lacks one of the fields."""
        fields = fields.found(source, dataset.column_names, _text_columns(dataset.features))
        self.source: str = source
        self.fields: Fields = fields
        self._whole, self._identity = dataset, identity
        self._columns = [n for n in (fields.text, fields.label_name) if n in dataset.column_names]
        self._classes = _class_names(dataset.features, fields)

    def rows(self) -> Iterator[RawRow]:
        dataset = self._whole.select_columns(self._columns).with_format(None)
        return _batched_rows(dataset, self.fields, self._classes, self.source)

    @property
    def size(self) -> int | None:
        return len(self._whole)

    @property
    def identity(self) -> Identity:
        return self._identity()

    def picked(self, numbers: Sequence[int], reason: Identity) -> "ArrowRecords":
        """The records `numbers`, in this order; `reason` is what chose them."""
        chosen = self._whole.select(numbers, keep_in_memory=True)
        return ArrowRecords(
            chosen, self.fields, self.source, lambda: {"of": dict(self.identity), **reason}
        )


class StreamedRecords:
    """A `datasets.IterableDataset`: read from its beginning each time."""

    def __init__(
        self,
        dataset: "datasets.IterableDataset",
        fields: Fields,
        source: str,
        identity: Identity,
        size: int | None = None,
    ) -> None:
        """Raises UserError for a data set that lacks one of the fields, if it says which it has;
        otherwise reading does."""
        names, features = dataset.column_names, dataset.features
        if names is not None:
            fields = fields.found(source, names, _text_columns(features))
        self.source: str = source
        self.fields: Fields = fields
        self.identity: Identity = identity
        self.size: int | None = size
        self._classes = _class_names(features, fields)
        dataset = dataset.with_format(None)
        if names is not None:
            dataset = dataset.select_columns(
                [name for name in (fields.text, fields.label_name) if name in names]
            )
        self._dataset = dataset

    def rows(self) -> Iterator[RawRow]:
        return _batched_rows(self._dataset, self.fields, self._classes, self.source)


class ListedRecords:
    """Records in memory."""

    def __init__(self, records: Iterable[Mapping[str, Any]], fields: Fields, source: str) -> None:
        self.source: str = source
        self.fields: Fields = fields
        self._records = list(records)
        self.size: int | None = len(self._records)

    def rows(self) -> Iterator[RawRow]:
        for number, record in enumerate(self._records):
            if number == 0:
                self.fields = fields_of_record(self.fields, self.source, record)
            yield self.fields.of(record)

    @property
    def identity(self) -> Identity:
        rows = json.dumps(list(self.rows()), default=str)
        return {"rows": sha256(rows.encode("utf-8", "surrogatepass")).hexdigest()}


def _batched_rows(
    dataset: Any, fields: Fields, classes: list[str] | None, source: str
) -> Iterator[RawRow]:
    """Rows of a data set whose batches have one list per column."""
    try:
        for number, batch in enumerate(dataset.iter(_BATCH_ROWS)):
            if number == 0:
                first = {name: values[0] for name, values in batch.items() if values}
                fields = fields_of_record(fields, source, first)
            length = len(next(iter(batch.values())))
            texts = batch.get(fields.text, [None] * length)
            labels = batch.get(fields.label_name, [None] * length)
            for text, label in zip(texts, labels, strict=True):
                yield text, label_text(label, classes)
    except MiCrowError:
        raise
    except Exception as error:  # files, network, decoding: errors of any type
        raise UserError(
            f"reading dataset {source!r} failed ({first_line(error)})",
            hint="what is written stays: resume the job when the data set can be read again",
        ) from error


def _text_columns(features: Any) -> list[str] | None:
    """The columns that may have texts; None if their types are not known."""
    return None if features is None else text_columns(features.arrow_schema)


def _class_names(features: Any, fields: Fields) -> list[str] | None:
    """The names of the label's classes if it is a ClassLabel."""
    names = getattr((features or {}).get(fields.label_name), "names", None)
    return list(names) if names else None
