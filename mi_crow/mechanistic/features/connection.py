"""Opening `features.duckdb` for reading: attached read-only, nothing else within reach.

Torch-free. DuckDB is imported on first use.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mi_crow.errors import CorruptDataError, MiCrowError, NotFoundError, UserError
from mi_crow.mechanistic.features.schema import INDEX_SCHEMA_VERSION

if TYPE_CHECKING:
    import duckdb

_CONFIG: dict[str, str | bool | int | float | list[str]] = {
    "memory_limit": "150MB",
    "autoinstall_known_extensions": "false",
    "autoload_known_extensions": "false",
}
_MOST_THREADS = 4
Identity = tuple[int, int, int]  # device, inode, mtime in ns


def identity(path: Path) -> Identity | None:
    """What tells a rebuilt file from the one before; None while there is no file."""
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_dev, status.st_ino, status.st_mtime_ns


@dataclass(frozen=True)
class IndexConnection:
    """One index attached as `idx` in a DuckDB of its own; one cursor a query, from any thread."""

    sae_id: str
    identity: Identity | None
    database: "duckdb.DuckDBPyConnection"

    def rows(self, query: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """All rows of a query; `values` are bound to its question marks."""
        import duckdb

        try:
            with self.database.cursor() as cursor:
                return cursor.execute(query, list(values)).fetchall()
        except duckdb.Error as error:
            raise _damaged(self.sae_id, error) from error

    def columns(self, query: str, values: Sequence[Any] = ()) -> dict[str, Any]:
        """The columns of a query as NumPy arrays."""
        import duckdb

        try:
            with self.database.cursor() as cursor:
                return cursor.execute(query, list(values)).fetchnumpy()
        except duckdb.Error as error:
            raise _damaged(self.sae_id, error) from error

    def replace_table(self, name: str, rows: Any) -> None:
        """Makes the in-memory table `name` out of Arrow rows."""
        # A registered frame is visible to one cursor only, a table to all.
        with self.database.cursor() as cursor:
            cursor.register("fresh", rows)
            cursor.execute(f"CREATE OR REPLACE TABLE memory.main.{name} AS SELECT * FROM fresh")
            cursor.unregister("fresh")


def connect(path: Path, sae_id: str) -> IndexConnection:
    """Attaches the index of `sae_id`, which stands in saes/<sae_id>/.

    Raises NotFoundError when there is none, UserError for one of another schema, CorruptDataError.
    """
    import duckdb

    found = identity(path)
    if found is None:
        raise NotFoundError(
            f"SAE {sae_id!r} has no feature index", hint=f"mi-crow index --sae {sae_id}"
        )
    if not os.access(path, os.R_OK):
        raise UserError(f"{str(path)!r} cannot be read")
    config = {**_CONFIG, "threads": min(_MOST_THREADS, os.cpu_count() or 1)}
    database = duckdb.connect(":memory:", config=config)
    try:
        database.execute(f"ATTACH {_quoted(str(path))} AS idx (READ_ONLY)")
        # From here on no query can touch another file, whatever it is made to say.
        database.execute(f"SET allowed_directories=[{_quoted(f'{path.parent.parent}/')}]")
        database.execute("SET enable_external_access=false")
        database.execute("SET lock_configuration=true")
        _check_schema(database, sae_id)
    except duckdb.Error as error:
        database.close()
        raise _damaged(sae_id, error) from error
    except MiCrowError:
        database.close()
        raise
    return IndexConnection(sae_id, found, database)


def _check_schema(database: "duckdb.DuckDBPyConnection", sae_id: str) -> None:
    rows = database.execute("SELECT value FROM idx.meta WHERE key = 'schema_version'").fetchall()
    version = int(rows[0][0]) if rows and rows[0][0].isdigit() else 0
    if version < INDEX_SCHEMA_VERSION:
        raise UserError(
            f"the feature index of {sae_id!r} is of the older schema {version}",
            hint=f"mi-crow index --sae {sae_id} builds it again; concepts stay",
        )
    if version > INDEX_SCHEMA_VERSION:
        raise UserError(
            f"the feature index of {sae_id!r} is of the newer schema {version}",
            hint="upgrade mi-crow",
        )


def _damaged(sae_id: str, error: Exception) -> MiCrowError:
    first_line = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    return CorruptDataError(
        f"the feature index of {sae_id!r} cannot be read ({first_line})",
        hint=f"mi-crow index --sae {sae_id} builds it again; concepts stay",
    )


def _quoted(text: str) -> str:
    """An SQL string literal: ATTACH and SET take no bound values."""
    return "'" + text.replace("'", "''") + "'"
