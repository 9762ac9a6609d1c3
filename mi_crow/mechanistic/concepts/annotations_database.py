"""The SQLite file behind the annotations: schema, journal mode, transactions, errors.

SQLite runs what a file says: a view in the place of a table is computed, a trigger acts on every
write, and a column takes any type. A workspace may come from anybody, so that a file is checked to
be one that this program made.
"""

import os
import sqlite3
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mi_crow.causes import machine_error
from mi_crow.errors import CorruptDataError, MiCrowError, NotFoundError, UserError
from mi_crow.mechanistic.concepts.annotations_disk import (
    Marks,
    cannot_be_written,
    file_system,
    marks_of,
    snapshot,
    write_obstacle,
)
from mi_crow.store.atomic import read_json, write_json

SCHEMA_VERSION = 1
# Where the shared memory of the write-ahead log works; elsewhere (NFS, FUSE) it corrupts silently.
_LOCAL_FILE_SYSTEMS = {"ext4", "xfs", "btrfs", "zfs", "apfs", "tmpfs", "overlay"}

_SCHEMA = """
CREATE TABLE concepts (
    sae_id TEXT NOT NULL, feature INTEGER NOT NULL, name TEXT NOT NULL,
    confidence REAL NOT NULL, note TEXT NOT NULL, tags TEXT NOT NULL, source TEXT NOT NULL,
    created REAL NOT NULL, updated REAL NOT NULL,
    PRIMARY KEY (sae_id, feature, name)
);
CREATE TABLE history (
    id INTEGER PRIMARY KEY, t REAL NOT NULL, actor TEXT NOT NULL, session TEXT NOT NULL,
    action TEXT NOT NULL, sae_id TEXT NOT NULL, feature INTEGER NOT NULL,
    before TEXT, after TEXT, undone_by INTEGER, change INTEGER NOT NULL
);
CREATE INDEX history_of_actor ON history (actor, undone_by, id);
CREATE INDEX history_of_change ON history (change);
CREATE INDEX history_of_feature ON history (sae_id, feature);
CREATE TABLE presets (
    name TEXT PRIMARY KEY, interventions TEXT NOT NULL, created REAL NOT NULL, updated REAL NOT NULL
);
CREATE TABLE generations (
    id INTEGER PRIMARY KEY, created REAL NOT NULL, model_id TEXT NOT NULL, revision TEXT,
    sae_ids TEXT NOT NULL, weight_hashes TEXT NOT NULL, device TEXT NOT NULL,
    versions TEXT NOT NULL, prompt TEXT NOT NULL, preset TEXT, seed INTEGER NOT NULL,
    settings TEXT NOT NULL, baseline TEXT NOT NULL, steered TEXT NOT NULL, metrics TEXT NOT NULL
);
"""

# SQLite's primary codes (sqlite.org/rescode.html) of READONLY, IOERR, FULL and CANTOPEN.
_CANNOT_WRITE = (8, 10, 13, 14)
_PATIENCE = 10.0  # seconds that a writer waits for another: an undo of 100,000 rows takes some
_MOST_VALUE = 64 << 20  # bytes of one text
_MOVE_AWAY = "move it away; `mi-crow concepts import` reads a former export"


class AnnotationsDatabase:
    """One SQLite file, usable from any thread and beside other processes.

    The file is made by the first write: reading a workspace leaves it as it was. Writers wait up
    to ten seconds for each other. What cannot be written is read from a copy in memory. A file
    that was replaced or removed while open is noticed before anything is read or written.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = threading.RLock()
        self._connection: sqlite3.Connection | None = None
        # Commits of a connection do not move its own data_version: this one never writes.
        self._watcher: sqlite3.Connection | None = None
        self._file: tuple[int, int] | None = None  # device and inode of what is open for writing
        self._copied: Marks | None = None  # of the file that `_connection` is a copy of
        self._obstacle: str | None = None  # what stood in the way of writing
        self._foreseen = False  # whether `write_obstacle` knew it
        self._generation = 0  # of what `data_version` counts in
        self._notice: str | None = None
        self._had_folder = path.parent.is_dir()

    @contextmanager
    def reading(self) -> Iterator[sqlite3.Connection | None]:
        """The connection to read from; None while there is no file."""
        with self._lock, self._errors():
            self._close_outdated()
            if self._connection is None and self.path.is_file():
                self._open_for_reading()
            yield self._connection

    def rows(self, query: str, values: Sequence[Any] | Mapping[str, Any] = ()) -> list[sqlite3.Row]:
        """What a query finds; empty while the file does not exist."""
        with self.reading() as connection:
            return [] if connection is None else connection.execute(query, values).fetchall()

    @contextmanager
    def writing(self) -> Iterator[sqlite3.Connection]:
        """A transaction, committed when the block ends without error; blocks nest into one.

        Raises UserError when the file cannot be written.
        """
        with self._lock, self._errors():
            if self._connection is not None and self._connection.in_transaction:
                yield self._connection
                return
            connection = self._begin()
            try:
                yield connection
            except BaseException:
                connection.rollback()
                raise
            connection.commit()

    def data_version(self) -> int:
        """A number that changes with every commit of any process; 0 as long as no file existed."""
        with self._lock, self._errors():
            self._close_outdated()
            if self._connection is None and self.path.is_file():
                self._open_for_reading()
            counted = self._generation << 40
            if self._connection is None or self._copied is not None:
                return counted
            if self._watcher is None:
                self._watcher = self._open()
            return counted + int(self._watcher.execute("PRAGMA data_version").fetchone()[0])

    def read_only(self) -> str | None:
        """Why nothing can be written now; None if no obstacle is known."""
        with self._lock:
            if self._connection is not None:
                return self._obstacle
            return write_obstacle(self.path)

    def check_writable(self) -> None:
        """Raises UserError where an obstacle to writing is known; writes nothing."""
        if (obstacle := self.read_only()) is not None:
            raise cannot_be_written(self.path, obstacle)

    def take_notice(self) -> str | None:
        """That the file was replaced or removed while it was open: said once."""
        with self._lock:
            notice, self._notice = self._notice, None
            return notice

    def close(self) -> None:
        with self._lock:
            for connection in (self._connection, self._watcher):
                if connection is not None:
                    connection.close()
            self._connection = self._watcher = self._file = self._copied = self._obstacle = None

    def _close_outdated(self) -> None:
        """Closes what is no longer the file at the path, or no longer has to be a copy."""
        if self._connection is None or self._connection.in_transaction:
            return
        if self._copied is not None:
            # An obstacle that only SQLite found is tried again when somebody has written.
            mended = self._foreseen and write_obstacle(self.path) is None
            if marks_of(self.path) == self._copied and not mended:
                return
        else:
            now = _identity(self.path)
            if now == self._file:
                return
            if now is not None:
                what = "was replaced while it was open: now reading the new one"
                self._notice = f"{self.path.name!r} {what}"
            elif self.path.parent.is_dir():  # else it went with its folder, and may come back
                what = "was removed while it was open: tags now go into a new one"
                self._notice = f"{self.path.name!r} {what}"
        self.close()
        self._generation += 1

    def _open_for_reading(self) -> None:
        """Opens the file, or a copy of it where it cannot be written."""
        obstacle = write_obstacle(self.path)
        self._foreseen = obstacle is not None
        if obstacle is None:
            try:
                self._connection = self._open()
                return
            except sqlite3.OperationalError as error:
                if not _cannot_write(error):
                    raise
                obstacle = str(error)
        connection, marks = snapshot(self.path)
        try:
            _migrate(connection, self.path)
            connection.execute("PRAGMA query_only=ON")
        except BaseException:
            connection.close()
            raise
        connection.row_factory = sqlite3.Row
        self._connection, self._copied, self._obstacle = connection, marks, obstacle

    def _begin(self) -> sqlite3.Connection:
        """Begins a transaction in the file that is at the path."""
        while True:
            self._close_outdated()
            if self._had_folder and not self.path.parent.is_dir():
                raise NotFoundError(
                    f"nothing can be named or saved: the folder {str(self.path.parent)!r} is gone",
                    hint="nothing was written; try again once it is back",
                )
            if (obstacle := write_obstacle(self.path)) is not None:
                raise cannot_be_written(self.path, obstacle)
            if self._copied is not None:
                self.close()
                self._generation += 1
            if self._connection is None:
                try:
                    self._connection = self._open()
                except sqlite3.OperationalError as error:
                    if not _cannot_write(error) or not self.path.is_file():
                        raise
                    raise cannot_be_written(self.path, str(error)) from error
            self._connection.execute("BEGIN IMMEDIATE")
            if _identity(self.path) == self._file:
                return self._connection
            self._connection.rollback()  # it was replaced a moment ago

    def _open(self) -> sqlite3.Connection:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._had_folder = True
        if not self.path.exists():  # SQLite would make it writable for nobody else
            self.path.touch()
        is_new = self.path.stat().st_size == 0
        self._file = _identity(self.path)
        connection = sqlite3.connect(
            self.path, timeout=_PATIENCE, isolation_level=None, check_same_thread=False
        )
        try:
            connection.execute(f"PRAGMA busy_timeout={int(_PATIENCE * 1000)}")
            connection.execute("PRAGMA synchronous=FULL")
            if is_new:
                _choose_journal(connection, self.path)
            _migrate(connection, self.path)
        except BaseException:
            connection.close()
            raise
        connection.row_factory = sqlite3.Row
        return connection

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except MiCrowError:
            raise
        except sqlite3.DataError as error:  # what SQLite calls too big
            raise UserError(
                f"a text is too long for {self.path.name!r}: it takes at most "
                f"{_MOST_VALUE >> 20} MiB in one row",
                hint="shorten it; nothing was written",
            ) from error
        except sqlite3.OperationalError as error:
            if getattr(error, "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_BUSY:
                raise UserError(
                    f"another program is writing to {str(self.path)!r}, and has not finished in "
                    f"{_PATIENCE:g} seconds",
                    hint="nothing was written here; try again in a moment",
                ) from error
            raise machine_error(error, self.path) or UserError(
                f"the annotations in {str(self.path)!r} cannot be used ({error})",
                hint="check that the folder is writable and that no other program locks the file",
            ) from error
        except sqlite3.DatabaseError as error:
            raise CorruptDataError(
                f"{self.path} is damaged or not an annotations file ({error})", hint=_MOVE_AWAY
            ) from error


def _cannot_write(error: sqlite3.OperationalError) -> bool:
    return getattr(error, "sqlite_errorcode", 0) & 0xFF in _CANNOT_WRITE


def _identity(path: Path) -> tuple[int, int] | None:
    """Device and inode of the file; None without one."""
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_dev, status.st_ino


def _migrate(connection: sqlite3.Connection, path: Path) -> None:
    """Brings the schema to SCHEMA_VERSION; several processes may come at the same time."""
    distrust(connection)
    version = int(connection.execute("PRAGMA user_version").fetchone()[0])
    if version > SCHEMA_VERSION:
        raise UserError(
            f"{str(path)!r} has schema {version}, this mi-crow reads up to {SCHEMA_VERSION}",
            hint="upgrade mi-crow",
        )
    if version == SCHEMA_VERSION:
        check_schema(connection, _SCHEMA, path)
        _add_index(connection)
        return
    connection.execute("BEGIN IMMEDIATE")
    try:
        if int(connection.execute("PRAGMA user_version").fetchone()[0]) == 0:
            for statement in _SCHEMA.split(";"):
                connection.execute(statement)
            connection.execute(f"PRAGMA user_version={SCHEMA_VERSION}")
    except BaseException:
        connection.rollback()
        raise
    connection.commit()


def _add_index(connection: sqlite3.Connection) -> None:
    """Gives a file from before what finds one change, or those of a feature, among many."""
    query = "SELECT name FROM sqlite_schema WHERE type = 'index'"
    there = {name for (name,) in connection.execute(query)}
    for name, columns in (("change", "change"), ("feature", "sae_id, feature")):
        if f"history_of_{name}" not in there:
            connection.execute(
                f"CREATE INDEX IF NOT EXISTS history_of_{name} ON history ({columns})"
            )


def _choose_journal(connection: sqlite3.Connection, path: Path) -> None:
    """Sets the journal mode once, for good, and records it in the workspace's marker file."""
    mode = "wal" if file_system(path.parent) in _LOCAL_FILE_SYSTEMS else "delete"
    chosen = str(connection.execute(f"PRAGMA journal_mode={mode}").fetchone()[0])
    marker = path.parent / "workspace.json"
    if marker.is_file():
        content = read_json(marker)
        if isinstance(content, dict) and content.get("journal_mode") != chosen:
            write_json(marker, content | {"journal_mode": chosen})


def distrust(connection: sqlite3.Connection) -> None:
    """Lets SQLite run no functions from the file's schema and return no value above 64 MiB."""
    connection.execute("PRAGMA trusted_schema=OFF")
    connection.execute("PRAGMA cell_size_check=ON")
    connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, _MOST_VALUE)


def check_schema(connection: sqlite3.Connection, schema: str, path: Path) -> None:
    """Checks that the tables of the SQL text `schema` are tables with its columns, and that nothing
    in it acts by itself. Reads only the file's catalogue. Raises CorruptDataError."""
    found = connection.execute("SELECT type, name, sql FROM sqlite_schema").fetchall()
    for kind, name, text in found:
        virtual = str(text or "").lstrip().upper().startswith("CREATE VIRTUAL")
        if kind in ("view", "trigger") or virtual:
            what = "virtual table" if virtual else kind
            raise _wrong(path, f"has a {what} {name!r}, which mi-crow never makes")
    there = {name for kind, name, _ in found if kind == "table"}
    for table, columns in _expected(schema).items():
        if table not in there:
            raise _wrong(path, f"has no table {table!r}")
        rows = connection.execute(f"PRAGMA table_xinfo({table})").fetchall()
        kinds = {row[1]: row[2].upper() for row in rows if not row[6]}  # 6: generated or hidden
        for column, kind in columns.items():
            if kinds.get(column) != kind:
                raise _wrong(path, f"has no column {column!r} of type {kind} in {table!r}")


def _expected(schema: str) -> dict[str, dict[str, str]]:
    """Table -> column -> type, as SQLite understands the statements."""
    memory = sqlite3.connect(":memory:")
    try:
        memory.executescript(schema)
        names = memory.execute("SELECT name FROM sqlite_schema WHERE type = 'table'").fetchall()
        return {
            name: {row[1]: row[2].upper() for row in memory.execute(f"PRAGMA table_xinfo({name})")}
            for (name,) in names
        }
    finally:
        memory.close()


def _wrong(path: Path, what: str) -> CorruptDataError:
    return CorruptDataError(
        f"{path} is not an annotations file of mi-crow: it {what}", hint=_MOVE_AWAY
    )
