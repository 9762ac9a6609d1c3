"""The SQLite file behind the annotations: schema, journal mode, transactions, errors."""

import os
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mi_crow.causes import machine_error
from mi_crow.errors import CorruptDataError, MiCrowError, UserError
from mi_crow.mechanistic.concepts.annotations_check import check_schema, distrust
from mi_crow.mechanistic.concepts.annotations_read_only import (
    Marks,
    marks_of,
    snapshot,
    tagging_is_off,
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


class AnnotationsDatabase:
    """One SQLite file, usable from any thread and beside other processes.

    The file is made by the first write: reading a workspace leaves it as it was. Writers wait up
    to five seconds for each other. What cannot be written is read from a copy in memory. A file
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

    @contextmanager
    def reading(self) -> Iterator[sqlite3.Connection | None]:
        """The connection to read from; None while there is no file."""
        with self._lock, self._errors():
            self._look_again()
            if self._connection is None and self.path.is_file():
                self._open_for_reading()
            yield self._connection

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
        """A number that differs after any commit of any process; 0 while there never was a file."""
        with self._lock, self._errors():
            self._look_again()
            if self._connection is None and self.path.is_file():
                self._open_for_reading()
            counted = self._generation << 40
            if self._connection is None or self._copied is not None:
                return counted
            if self._watcher is None:
                self._watcher = self._open()
            return counted + int(self._watcher.execute("PRAGMA data_version").fetchone()[0])

    def read_only(self) -> str | None:
        """Why nothing can be written now; None where nothing is known to stand in the way."""
        with self._lock:
            if self._connection is not None:
                return self._obstacle
            return write_obstacle(self.path)

    def take_notice(self) -> str | None:
        """That the file was replaced or removed while it was open: told once."""
        with self._lock:
            notice, self._notice = self._notice, None
            return notice

    def close(self) -> None:
        with self._lock:
            for connection in (self._connection, self._watcher):
                if connection is not None:
                    connection.close()
            self._connection = self._watcher = self._file = self._copied = self._obstacle = None

    def _look_again(self) -> None:
        """Closes what is no longer the file at the path, or no longer has to be a copy."""
        if self._connection is None or self._connection.in_transaction:
            return
        if self._copied is not None:
            # What SQLite alone found in the way is tried again when somebody has written.
            mended = self._foreseen and write_obstacle(self.path) is None
            if marks_of(self.path) == self._copied and not mended:
                return
        else:
            now = _identity(self.path)
            if now == self._file:
                return
            self._notice = (
                f"{self.path.name!r} was removed while it was open: tags go into a new one now"
                if now is None
                else f"{self.path.name!r} was replaced while it was open: the new one is read now"
            )
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
            self._look_again()
            if (obstacle := write_obstacle(self.path)) is not None:
                raise tagging_is_off(self.path, obstacle)
            if self._copied is not None:
                self.close()
                self._generation += 1
            if self._connection is None:
                try:
                    self._connection = self._open()
                except sqlite3.OperationalError as error:
                    if not _cannot_write(error) or not self.path.is_file():
                        raise
                    raise tagging_is_off(self.path, str(error)) from error
            self._connection.execute("BEGIN IMMEDIATE")
            if _identity(self.path) == self._file:
                return self._connection
            self._connection.rollback()  # it was replaced a moment ago

    def _open(self) -> sqlite3.Connection:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        if not self.path.exists():  # SQLite would make it writable for nobody else
            self.path.touch()
        is_new = self.path.stat().st_size == 0
        self._file = _identity(self.path)
        connection = sqlite3.connect(
            self.path, timeout=5.0, isolation_level=None, check_same_thread=False
        )
        try:
            connection.execute("PRAGMA busy_timeout=5000")
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
        except sqlite3.OperationalError as error:
            raise machine_error(error, self.path) or UserError(
                f"the annotations in {str(self.path)!r} cannot be used ({error})",
                hint="check that the folder can be written to and nobody holds the file locked",
            ) from error
        except sqlite3.DatabaseError as error:
            raise CorruptDataError(
                f"{self.path} is damaged or no annotations file ({error})",
                hint="move it away; `mi-crow concepts import` reads a former export",
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


def _choose_journal(connection: sqlite3.Connection, path: Path) -> None:
    """Sets the journal mode once, for good, and tells the workspace's marker file."""
    mode = "wal" if file_system(path.parent) in _LOCAL_FILE_SYSTEMS else "delete"
    chosen = str(connection.execute(f"PRAGMA journal_mode={mode}").fetchone()[0])
    marker = path.parent / "workspace.json"
    if marker.is_file():
        content = read_json(marker)
        if isinstance(content, dict) and content.get("journal_mode") != chosen:
            write_json(marker, content | {"journal_mode": chosen})


def file_system(folder: Path) -> str:
    """The type of the file system that holds `folder`, '' when it cannot be told."""
    try:
        if sys.platform == "darwin":
            done = subprocess.run(["mount"], capture_output=True, text=True, timeout=5, check=False)
            mounts = parse_mount(done.stdout)
        else:
            mounts = parse_mountinfo(Path("/proc/self/mountinfo").read_text("utf-8", "replace"))
    except (OSError, subprocess.SubprocessError, UnicodeDecodeError):
        return ""
    resolved = os.path.realpath(folder)
    holding = [
        (len(point), at, kind)
        for at, (point, kind) in enumerate(mounts)
        if resolved == point or resolved.startswith(point.rstrip("/") + "/")
    ]
    return max(holding)[2] if holding else ""


def parse_mountinfo(text: str) -> list[tuple[str, str]]:
    """(mount point, type) of each line of Linux's mountinfo, in order of mounting."""
    mounts = []
    for line in text.splitlines():
        left, separator, right = line.partition(" - ")
        fields = left.split()
        if separator and len(fields) > 4:
            # Blanks stand as octal escapes there.
            point = fields[4].replace("\\040", " ").replace("\\011", "\t").replace("\\134", "\\")
            mounts.append((point, right.split()[0]))
    return mounts


def parse_mount(text: str) -> list[tuple[str, str]]:
    """(mount point, type) of each line that macOS's `mount` prints: `dev on /x (apfs, ...)`."""
    mounts = []
    for line in text.splitlines():
        _, found, rest = line.partition(" on ")
        point, opened, options = rest.rpartition(" (")
        if found and opened:
            mounts.append((point, options.split(",")[0].rstrip(")")))
    return mounts
