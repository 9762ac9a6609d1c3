"""Rows of tables that a process has found, in Parquet files until the first one writes them."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mi_crow.mechanistic.features.index.ranked.numbering import Numbering
from mi_crow.mechanistic.features.index.write import IndexWriter, as_rows, stored_rows

# Tables whose documents are numbered by the process that read them.
_OF_DOCUMENTS = ("stored_documents", "document_features")


class Spool:
    """Takes rows as an `IndexWriter` does. What is appended at once begins with a feature or a
    document that no other process appends to the same table."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.mkdir()

    def append(self, table: str, columns: Mapping[str, Any]) -> None:
        import pyarrow.parquet as pq

        table, columns = stored_rows(table, columns)
        rows = as_rows(columns)
        if not rows.num_rows:
            return
        by = "document" if table in _OF_DOCUMENTS else "feature"
        first = rows[by][0].as_py() if by in rows.column_names else 0
        pq.write_table(rows, self._folder / f"{table}-{first:012d}.parquet")


def write_spooled(
    writer: IndexWriter, folders: Sequence[Path], numberings: Sequence[Numbering]
) -> None:
    """Writes what the processes have spooled, in the order in which one process writes it; removes
    each file when it is written."""
    import pyarrow.parquet as pq

    found = []
    for number, (folder, numbering) in enumerate(zip(folders, numberings, strict=True)):
        for path in folder.glob("*.parquet"):
            table, _, first = path.stem.rpartition("-")
            place = int(first)
            if table in _OF_DOCUMENTS:
                place = int(numbering.of(np.array([place]))[0])
            found.append((table, place, number, path))
    for table, _, number, path in sorted(found):
        rows = pq.read_table(path)
        columns: dict[str, Any] = {name: rows[name] for name in rows.column_names}
        if table in _OF_DOCUMENTS:
            columns["document"] = numberings[number].of(rows["document"].to_numpy())
        writer.append(table, columns)
        path.unlink()
