"""Writes `features.duckdb` table by table; the file appears when it is complete. Torch-free."""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from mi_crow.mechanistic.features.schema import DERIVED, INDEX_SCHEMA_VERSION, TABLES, VIEWS
from mi_crow.store.atomic import whole_file

if TYPE_CHECKING:
    import duckdb
    import pyarrow as pa

_MEMORY_LIMIT = "512MB"


class TableWriter(Protocol):
    """Takes rows for the tables of an index."""

    def append(self, table: str, columns: Mapping[str, Any]) -> None:
        """As `IndexWriter.append`."""
        ...


class IndexWriter:
    """Appends columns to the tables of an index that is being built."""

    def __init__(self, connection: "duckdb.DuckDBPyConnection") -> None:
        self._connection = connection
        for table, columns in TABLES.items():
            lines = ", ".join(f'"{name}" {kind}' for name, kind in columns.items())
            connection.execute(f"CREATE TABLE {table} ({lines})")
        for view, query in VIEWS.items():
            connection.execute(f"CREATE VIEW {view} AS {query}")

    def append(self, table: str, columns: Mapping[str, Any]) -> None:
        """Adds rows: one NumPy array, Arrow array or list per column, all of one length.

        Columns that are left out become NULL. Append features in ascending order.
        """
        table, columns = stored_rows(table, columns)
        rows = as_rows(columns)
        if not rows.num_rows:
            return
        # executemany takes 4 ms a row; Arrow 0.2 us.
        self._connection.register("rows", rows)
        try:
            self._connection.execute(f"INSERT INTO {table} BY NAME SELECT * FROM rows")
        finally:
            self._connection.unregister("rows")

    def write_meta(self, values: Mapping[str, Any]) -> None:
        """Adds entries about the whole index; the schema version is added to them."""
        rows = {"schema_version": INDEX_SCHEMA_VERSION, **values}
        texts = [
            value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
            for value in rows.values()
        ]
        self.append("meta", {"key": list(rows), "value": texts})

    def finish(self) -> None:
        """Makes the derived tables and writes everything to the file."""
        for table, query in DERIVED.items():
            self._connection.execute(f"CREATE TABLE {table} AS {query}")
        self._connection.execute("CHECKPOINT")


@contextmanager
def writing_index(path: Path) -> Iterator[IndexWriter]:
    """A writer whose file is renamed to `path` when the block ends without error."""
    import duckdb

    with whole_file(path) as temporary:
        connection = duckdb.connect(str(temporary))
        try:
            connection.execute(f"SET memory_limit='{_MEMORY_LIMIT}'")
            writer = IndexWriter(connection)
            yield writer
            writer.finish()
        finally:
            connection.close()
            temporary.with_name(f"{temporary.name}.wal").unlink(missing_ok=True)


def stored_rows(table: str, columns: Mapping[str, Any]) -> tuple[str, Mapping[str, Any]]:
    """The table in the file, and its columns, for rows of `table`."""
    return ("stored_documents", _stored(**columns)) if table == "documents" else (table, columns)


def as_rows(columns: Mapping[str, Any]) -> "pa.Table":
    """NumPy arrays, Arrow arrays or lists of one length as a table."""
    import pyarrow as pa

    arrays = {
        name: values if isinstance(values, pa.Array | pa.ChunkedArray) else pa.array(values)
        for name, values in columns.items()
    }
    return pa.table(arrays)


def _stored(
    text: Sequence[str], token_texts: Sequence[Sequence[str]], **others: Any
) -> dict[str, Any]:
    """The columns of `stored_documents` from those of `documents`."""
    lengths = np.fromiter(map(len, token_texts), dtype=np.int64, count=len(token_texts))
    sizes = np.fromiter(map(len, chain.from_iterable(token_texts)), dtype=np.int64)
    total = np.concatenate([[0], np.cumsum(sizes)])
    before = total[np.cumsum(lengths) - lengths]  # characters of the documents before
    ends = total[1:] - np.repeat(before, lengths)
    joined = ("".join(pieces) for pieces in token_texts)
    seen = [None if one == whole else one for one, whole in zip(joined, text, strict=True)]
    ends_lists = lists(ends.astype(np.int32), lengths)
    return {"text": text, "seen": seen, "token_ends": ends_lists, **others}


def lists(values: np.ndarray, lengths: np.ndarray) -> "pa.ListArray":
    """A list column: `values` cut into pieces of `lengths`."""
    import pyarrow as pa

    offsets = np.zeros(len(lengths) + 1, dtype=np.int32)
    np.cumsum(lengths, out=offsets[1:])
    return pa.ListArray.from_arrays(pa.array(offsets), pa.array(values))


def equal_lists(values: np.ndarray) -> "pa.ListArray":
    """A list column from the rows of a matrix."""
    rows, width = values.shape
    return lists(np.ascontiguousarray(values).reshape(-1), np.full(rows, width))
