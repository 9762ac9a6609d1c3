"""A look into a Parquet file by DuckDB, for programs that stay open: pyarrow would take 70 MB of
their memory for a screenful of text.

Checksums of pages are not compared: what computes with a file reads it through pyarrow.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mi_crow.causes import machine_error
from mi_crow.errors import CorruptDataError
from mi_crow.store.columnar.core import duckdb_core, spill_folder

_CONFIG = {
    "memory_limit": "64MB",  # a page of long texts
    "threads": 1,
    "autoinstall_known_extensions": "false",
    "autoload_known_extensions": "false",
}
# The name of a folder, such as `run=1`, is no column of the file.
_FILE = "read_parquet(?, file_row_number=true, hive_partitioning=false)"
_WILD = str.maketrans({one: f"[{one}]" for one in "*?["})


class ParquetLook:
    """Asks one Parquet file after another."""

    def __init__(self, database: Any) -> None:
        """Use `parquet_look`."""
        self._database = database

    def ask(
        self, path: Path, select: str = "*", rest: str = "", values: Sequence[Any] = ()
    ) -> list[dict[str, Any]]:
        """The rows of `SELECT select FROM path rest`, which may use the column `file_row_number`
        and `?` for each of `values`. Raises CorruptDataError for a damaged file, MachineError where
        the system refuses to read it."""
        core = duckdb_core()
        try:
            path.open("rb").close()  # one sentence for a missing file, whatever DuckDB says
            pattern = str(path).translate(_WILD)
            found = self._database.execute(
                f"SELECT {select} FROM {_FILE} {rest}", [pattern, *values]
            )
            names = [column[0] for column in found.description]
            return [dict(zip(names, row, strict=True)) for row in found.fetchall()]
        except (core.Error, OSError, RuntimeError, ValueError) as error:
            words = str(error).strip().splitlines() or [type(error).__name__]
            raise machine_error(error, path) or CorruptDataError(
                f"{path} is damaged ({words[0]})"
            ) from error


@contextmanager
def parquet_look() -> Iterator[ParquetLook]:
    """A block in which Parquet files can be asked; its memory is given back."""
    config = {**_CONFIG, "temp_directory": spill_folder()}
    database = duckdb_core().connect(":memory:", config=config)
    try:
        yield ParquetLook(database)
    finally:
        database.close()
