"""Opening `features.duckdb` for reading: attached read-only, with no access to other files.

Torch-free. DuckDB is imported on first use, its core only.
"""

import os
import re
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from mi_crow.causes import machine_error
from mi_crow.errors import CancelledError, CorruptDataError, MiCrowError, NotFoundError, UserError
from mi_crow.mechanistic.features.beside.proposals import ProposalReader
from mi_crow.mechanistic.features.index_check import check_tables, refuse_macros
from mi_crow.mechanistic.features.layers.reading import LayerReader
from mi_crow.mechanistic.features.schema import (
    INDEX_SCHEMA_VERSION,
    OLDEST_READABLE,
    TABLES,
    tables_of,
)
from mi_crow.store.columnar.core import duckdb_core, spill_folder

if TYPE_CHECKING:
    import duckdb

_KEPT = "16MB"  # blocks of the file that DuckDB keeps; the page cache gives the others as quickly
_MEMORY_LIMIT = "150MB"  # of a query that does not fit into that
_LEAST = 1 << 20  # bytes, of blocks, that stay when nobody asks
_NOT_OF_FILE = (
    "SELECT coalesce(sum(memory_usage_bytes), 0) FROM duckdb_memory() WHERE tag != 'BASE_TABLE'"
)
_CONFIG: dict[str, str | bool | int | float | list[str]] = {
    "memory_limit": _KEPT,
    "autoinstall_known_extensions": "false",
    "autoload_known_extensions": "false",
}
_PAUSES_S = [0.01] * 100 + [0.1] * 50  # until memory that other threads hold is free
_MOST_THREADS = 4
_Answer = TypeVar("_Answer")
Identity = tuple[int, int, int]  # device, inode, mtime in ns


def identity(path: Path) -> Identity | None:
    """Distinguishes a rebuilt file from the one before; None while there is no file."""
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_dev, status.st_ino, status.st_mtime_ns


@dataclass(frozen=True)
class IndexConnection:
    """One index attached as `idx` in its own DuckDB; usable from any thread, one cursor each."""

    sae_id: str
    identity: Identity | None
    schema: int  # OLDEST_READABLE to INDEX_SCHEMA_VERSION
    database: "duckdb.DuckDBPyConnection"
    path: Path
    _of_thread: threading.local = field(default_factory=threading.local)
    _large: threading.Lock = field(default_factory=threading.Lock)  # one such query at a time
    _lent: threading.Event = field(default_factory=threading.Event)  # its memory is not back yet
    _lately: threading.Event = field(default_factory=threading.Event)  # asked since the last rest
    _keeps: threading.Event = field(default_factory=threading.Event)  # blocks of the file

    @cached_property
    def proposals(self) -> ProposalReader:
        """The names proposed for its features."""
        return ProposalReader(self, self.path)

    @cached_property
    def layers(self) -> LayerReader:
        """Which layer each of its features is of."""
        return LayerReader(self)

    def rows(self, query: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """All rows of a query; `values` are bound to its question marks."""
        return self._asked(query, values, lambda answer: answer.fetchall())

    def columns(self, query: str, values: Sequence[Any] = ()) -> dict[str, Any]:
        """The columns of a query, none of whose values is NULL, as NumPy arrays."""
        # Where there are NULLs, DuckDB makes masked arrays; importing these takes 20 ms.
        found = self._asked(query, values, lambda answer: answer.fetchnumpy())
        for name, column in found.items():
            if hasattr(column, "mask"):
                raise damaged(self.sae_id, ValueError(f"values of {name!r} are missing"))
        return found

    def replace_table(self, name: str, columns: Mapping[str, tuple[str, Sequence[Any]]]) -> None:
        """Makes the in-memory table `name` from columns: name -> DuckDB type and values."""
        # A registered frame is visible to one cursor only, a table to all. Lists are bound:
        # importing Arrow would take longer than reading the first page.
        query = f"CREATE OR REPLACE TABLE memory.main.{name} AS SELECT {_unnested(columns)}"
        self._asked(query, [list(values) for _, values in columns.values()], lambda _: None)

    def replace_rows(
        self,
        name: str,
        features: Sequence[int],
        columns: Mapping[str, tuple[str, Sequence[Any]]],
    ) -> None:
        """Replaces the rows of some features in the in-memory table `name`."""
        gone = f"DELETE FROM memory.main.{name} WHERE list_contains(?::INTEGER[], feature)"
        self._asked(gone, [list(features)], lambda _: None)
        query = f"INSERT INTO memory.main.{name} BY NAME SELECT {_unnested(columns)}"
        self._asked(query, [list(values) for _, values in columns.values()], lambda _: None)

    def rest(self) -> None:
        """Gives back the blocks of the file that DuckDB keeps, where no query has come since the
        last call: up to 11 MB, which the page cache has too. In 5 ms."""
        if self._lately.is_set():
            self._lately.clear()
            self._keeps.set()
        elif self._keeps.is_set() and self._large.acquire(blocking=False):
            try:
                self._keeps.clear()
                [(used,)] = self._cursor.execute(_NOT_OF_FILE).fetchall()
                with suppress(duckdb_core().OutOfMemoryException):
                    self._cursor.execute(f"SET memory_limit='{int(used) + _LEAST}B'")
                _lower(self._cursor)
            finally:
                self._large.release()

    def _asked(
        self,
        query: str,
        values: Sequence[Any],
        read: "Callable[[duckdb.DuckDBPyConnection], _Answer]",
    ) -> _Answer:
        """What `read` makes of the answer to a query. Errors of DuckDB are raised as
        MiCrowError."""
        duckdb = duckdb_core()

        self._lately.set()
        try:
            if self._lent.is_set() and self._large.acquire(blocking=False):
                try:
                    self._take_back()
                finally:
                    self._large.release()
            try:
                return read(self._cursor.execute(query, list(values)))
            except duckdb.OutOfMemoryException:
                with self._roomy():
                    return read(self._cursor.execute(query, list(values)))
        except duckdb.Error as error:
            raise explained(self.sae_id, error, self.path) from error
        except (ArithmeticError, RuntimeError, SystemError, ValueError) as error:
            # The binding's own: text that is not UTF-8, a date that Python does not have, ...
            raise damaged(self.sae_id, error) from error

    @property
    def _cursor(self) -> "duckdb.DuckDBPyConnection":
        """This thread's cursor: with a new one, whose caches are empty, a feature takes 1.5 times
        as long."""
        if not hasattr(self._of_thread, "cursor"):
            self._of_thread.cursor = self.database.cursor()
        return self._of_thread.cursor

    @contextmanager
    def _roomy(self) -> Iterator[None]:
        """A block whose queries may take all the memory that reading may; it is given back."""
        with self._large:
            self._lent.set()
            self._raise_limit()
            try:
                yield
            finally:
                self._take_back()

    def _raise_limit(self) -> None:
        """This takes memory itself: while other threads hold all of it, it waits for them."""
        duckdb = duckdb_core()

        for pause in _PAUSES_S:
            try:
                self._cursor.execute(f"SET memory_limit='{_MEMORY_LIMIT}'")
                return
            except duckdb.OutOfMemoryException:
                time.sleep(pause)
        self._cursor.execute(f"SET memory_limit='{_MEMORY_LIMIT}'")

    def _take_back(self) -> None:
        """Lowers the limit; where another thread's query holds the memory, a later one does it."""
        with suppress(duckdb_core().OutOfMemoryException):
            _lower(self._cursor)
            self._lent.clear()

    @contextmanager
    def fitting(self) -> Iterator[None]:
        """A block that combines values of the index: inconsistent ones, such as the number of a
        missing row, raise CorruptDataError."""
        try:
            yield
        except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
            raise damaged(self.sae_id, error) from error


def _lower(cursor: "duckdb.DuckDBPyConnection") -> None:
    cursor.execute(f"SET memory_limit='{_KEPT}'")


def _unnested(columns: Mapping[str, tuple[str, Sequence[Any]]]) -> str:
    """The columns of bound lists."""
    return ", ".join(f"unnest(?::{kind}[]) AS {one}" for one, (kind, _) in columns.items())


def connect(path: Path, sae_id: str) -> IndexConnection:
    """Attaches the index of `sae_id` in saes/<sae_id>/.

    Raises NotFoundError when there is none, UserError for another schema or an index that another
    process has open for writing, CorruptDataError.
    """
    duckdb = duckdb_core()

    found = identity(path)
    if found is None:
        raise _missing(sae_id, path)
    if not path.is_file():
        raise UserError(f"{str(path)!r} is not a file", hint=_rebuild(sae_id))
    if not os.access(path, os.R_OK):
        raise UserError(f"{str(path)!r} cannot be read", hint="ask its owner for the right to")
    if not path.stat().st_size:
        raise CorruptDataError(
            f"the feature index of {sae_id!r} is an empty file", hint=_rebuild(sae_id)
        )
    threads = min(_MOST_THREADS, os.cpu_count() or 1)
    config = {**_CONFIG, "threads": threads, "temp_directory": spill_folder()}
    database = duckdb.connect(":memory:", config=config)
    try:
        database.execute(f"ATTACH {_quoted(str(path))} AS idx (READ_ONLY)")
        # From here on no query can read another file; DuckDB lets nobody take that back.
        database.execute(f"SET allowed_directories=[{_quoted(f'{path.parent.parent}/')}]")
        database.execute("SET enable_external_access=false")
        schema = _checked_schema(database, sae_id)
    except duckdb.Error as error:
        database.close()
        raise explained(sae_id, error, path) from error
    except MiCrowError:
        database.close()
        raise
    return IndexConnection(sae_id, found, schema, database, path)


def read_through(path: Path, sae_id: str) -> int:
    """Reads every block of an index, whose checksums DuckDB compares; returns the number of rows.
    Raises what `connect` does."""
    opened = connect(path, sae_id)
    try:
        names = opened.rows(
            "SELECT table_name FROM duckdb_tables() WHERE database_name = 'idx' ORDER BY 1"
        )
        tables = ['"' + name.replace('"', '""') + '"' for (name,) in names]
        # A hash of whole rows reads all columns; a plain count reads none.
        return sum(
            opened.rows(f"SELECT count(hash(t)) FROM idx.main.{table} AS t")[0][0]
            for table in tables
        )
    finally:
        opened.database.close()


def _checked_schema(database: "duckdb.DuckDBPyConnection", sae_id: str) -> int:
    """The schema of the attached index. Raises UserError for one that cannot be read, and
    CorruptDataError for a file that is not a feature index."""
    # Views and macros of the file would run when read: check first that there are only tables.
    refuse_macros(database, sae_id, hint=_rebuild(sae_id))
    check_tables(database, sae_id, {"meta": TABLES["meta"]}, hint=_rebuild(sae_id))
    query = "SELECT value FROM idx.meta WHERE key = 'schema_version' LIMIT 1"
    rows = database.execute(query).fetchall()
    text = rows[0][0] if rows else None
    version = int(text) if text and text.isascii() and text.isdigit() else 0
    if version < OLDEST_READABLE:
        raise UserError(
            f"the feature index of {sae_id!r} is of the older schema {version}",
            hint=_rebuild(sae_id),
        )
    if version > INDEX_SCHEMA_VERSION:
        raise UserError(
            f"the feature index of {sae_id!r} is of the newer schema {version}",
            hint="upgrade mi-crow",
        )
    check_tables(database, sae_id, tables_of(version), hint=_rebuild(sae_id))
    return version


def explained(sae_id: str, error: "duckdb.Error", path: Path) -> MiCrowError:
    """A DuckDB error on the index of `sae_id` at `path`, or on a file beside it, as an error for
    the user."""
    duckdb = duckdb_core()

    text = str(error).strip()
    first_line = text.splitlines()[0] if text else type(error).__name__
    if isinstance(error, duckdb.InterruptException):
        return CancelledError("the query was stopped", resumable=False)
    if isinstance(error, duckdb.OutOfMemoryException):
        return UserError(
            f"the query needs more than the {_MEMORY_LIMIT} that reading an index may take",
            hint="ask for fewer features or examples at once",
        )
    if isinstance(error, duckdb.IOException):
        if "set lock on file" in text:
            return UserError(
                f"another process has the feature index of {sae_id!r} open for writing",
                hint="close it there and try again",
            )
        if "No such file" in text or "No files found" in text:
            return _missing(sae_id, path, _beside(path, text))
        if "read a database file with version" in text:
            return UserError(
                f"the feature index of {sae_id!r} was written by another version of DuckDB",
                hint=_rebuild(sae_id),
            )
        if (refused := machine_error(error, path)) is not None:
            return refused
    if isinstance(error, duckdb.PermissionException):
        return UserError(f"a query reached beyond the index of {sae_id!r} ({first_line})")
    if beside := _beside(path, text):
        return CorruptDataError(
            f"{str(beside)!r} is damaged ({first_line})", hint="move it away, and make it again"
        )
    return CorruptDataError(
        f"the feature index of {sae_id!r} is damaged ({first_line})", hint=_rebuild(sae_id)
    )


def damaged(sae_id: str, error: BaseException) -> CorruptDataError:
    """The error for an index with inconsistent values, found as `error`."""
    reason = " ".join(str(error).split())[:120]
    return CorruptDataError(
        f"the feature index of {sae_id!r} is damaged ({type(error).__name__}: {reason})",
        hint=_rebuild(sae_id),
    )


def _missing(sae_id: str, path: Path, beside: Path | None = None) -> NotFoundError:
    """Which is not there: the workspace, the SAE, a file beside its index, or the index."""
    root = path.parents[2]
    if not root.exists():
        return NotFoundError(
            f"the workspace is gone: {str(root)!r} is not there",
            hint="it can be read again once the folder is back",
        )
    if not path.parent.exists():
        return NotFoundError(
            f"SAE {sae_id!r} is gone", hint=f"its folder {str(path.parent)!r} is not there"
        )
    if beside is not None:
        return NotFoundError(f"{str(beside)!r} is gone", hint="it was there when reading began")
    return NotFoundError(
        f"SAE {sae_id!r} has no feature index", hint=f"mi-crow index --sae {sae_id}"
    )


def _beside(path: Path, text: str) -> Path | None:
    """The file in the folder of the index that an error is about; None where it is the index."""
    named = re.search(re.escape(f"{path.parent}/") + r"([\w.-]+\.parquet)", text)
    return path.with_name(named[1]) if named else None


def _rebuild(sae_id: str) -> str:
    return f"mi-crow index --sae {sae_id} builds it again; concepts stay"


def _quoted(text: str) -> str:
    """An SQL string literal: ATTACH and SET take no bound values."""
    return "'" + text.replace("'", "''") + "'"
