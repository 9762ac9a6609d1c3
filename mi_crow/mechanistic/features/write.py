"""Writes `features.duckdb` table by table; the file appears only when it is whole. Torch-free."""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mi_crow.mechanistic.features.schema import INDEX_SCHEMA_VERSION, TABLES
from mi_crow.store.atomic import whole_file

if TYPE_CHECKING:
    import duckdb
    import pyarrow as pa

_MEMORY_LIMIT = "1GB"


class IndexWriter:
    """Appends columns to the tables of an index that is being built."""

    def __init__(self, connection: "duckdb.DuckDBPyConnection") -> None:
        self._connection = connection
        for table, columns in TABLES.items():
            lines = ", ".join(f'"{name}" {kind}' for name, kind in columns.items())
            connection.execute(f"CREATE TABLE {table} ({lines})")

    def append(self, table: str, columns: Mapping[str, Any]) -> None:
        """Adds rows: one NumPy array, Arrow array or list a column, all of one length.

        Columns that are left out become NULL. Append features in ascending order.
        """
        import pyarrow as pa

        arrays = {
            name: values if isinstance(values, pa.Array | pa.ChunkedArray) else pa.array(values)
            for name, values in columns.items()
        }
        rows = pa.table(arrays)
        if not rows.num_rows:
            return
        # executemany takes 4 ms a row; Arrow 0.2 us.
        self._connection.register("rows", rows)
        try:
            self._connection.execute(f"INSERT INTO {table} BY NAME SELECT * FROM rows")
        finally:
            self._connection.unregister("rows")

    def write_meta(self, values: Mapping[str, Any]) -> None:
        """Adds facts about the whole index; the schema version comes by itself."""
        rows = {"schema_version": INDEX_SCHEMA_VERSION, **values}
        texts = [
            value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
            for value in rows.values()
        ]
        self.append("meta", {"key": list(rows), "value": texts})


@contextmanager
def writing_index(path: Path) -> Iterator[IndexWriter]:
    """A writer whose file is renamed to `path` when the block ends without error."""
    import duckdb

    with whole_file(path) as temporary:
        connection = duckdb.connect(str(temporary))
        try:
            connection.execute(f"SET memory_limit='{_MEMORY_LIMIT}'")
            yield IndexWriter(connection)
            connection.execute("CHECKPOINT")
        finally:
            connection.close()
            temporary.with_name(f"{temporary.name}.wal").unlink(missing_ok=True)


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
