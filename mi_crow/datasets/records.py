"""Where documents come from, before anybody looks into them: files, Arrow tables, streams."""

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
Identity = Mapping[str, Any]  # plain data that is the same for the same records on any machine


class Records(Protocol):
    """Documents in a fixed order, each what stands in its text field and in its label field."""

    source: str
    fields: Fields

    def rows(self) -> Iterator[RawRow]:
        """All of them from the first on. Raises UserError naming what is wrong."""
        ...

    @property
    def size(self) -> int | None:
        """How many there are at most; None when only reading them would tell."""
        ...

    @property
    def identity(self) -> Identity:
        """What, beside the first rows, tells them from other records."""
        ...


class LocalRecords:
    """A file of texts, or the files of a folder in the order of their names."""

    def __init__(self, path: Path, fields: Fields, source: str | None = None) -> None:
        """Raises NotFoundError or UserError where there are no texts."""
        self.source: str = source or str(path)
        self.fields = fields
        self._root = path if path.is_dir() else path.parent
        self._files = text_files(path)

    @property
    def bytes(self) -> int:
        """Of all files together."""
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
    """A `datasets.Dataset`: memory-mapped, its rows to be had in any order."""

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
        """These records in this order; `reason` is what chose them."""
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
        """Raises UserError for a data set that lacks one of the fields, where it says which it
        has; else reading does."""
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
    """Records that are in memory."""

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
    """Rows of a data set whose batches are a list for each column."""
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
    except Exception as error:  # files, network, decoding: the library lets everything through
        raise UserError(
            f"dataset {source!r} stopped coming ({first_line(error)})",
            hint="what is written stays; resume the job when it can be read again",
        ) from error


def _text_columns(features: Any) -> list[str] | None:
    """Names of the columns that may hold texts; None when their types are unknown."""
    return None if features is None else text_columns(features.arrow_schema)


def _class_names(features: Any, fields: Fields) -> list[str] | None:
    """The names of the label's classes when it is a ClassLabel."""
    names = getattr((features or {}).get(fields.label_name), "names", None)
    return list(names) if names else None
