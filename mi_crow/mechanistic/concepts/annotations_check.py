"""Whether an annotations file is what this program made: its tables, and the types of its rows.

SQLite runs what a file says: a view in the place of a table is computed, a trigger acts on every
write, and a column takes any type. A workspace may come from anybody.
"""

import sqlite3
from pathlib import Path

from mi_crow.errors import CorruptDataError

_MOST_VALUE = 64 << 20  # bytes of one text
_HINT = "move it away; `mi-crow concepts import` reads a former export"


def distrust(connection: sqlite3.Connection) -> None:
    """Has SQLite run no functions from the file's schema and give out no value of any size."""
    connection.execute("PRAGMA trusted_schema=OFF")
    connection.execute("PRAGMA cell_size_check=ON")
    connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, _MOST_VALUE)


def check_schema(connection: sqlite3.Connection, schema: str, path: Path) -> None:
    """Checks that the tables of the SQL text `schema` are tables with its columns, and that nothing
    is there that acts by itself. Reads the file's catalogue alone. Raises CorruptDataError."""
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
    return CorruptDataError(f"{path} is not an annotations file of mi-crow: it {what}", hint=_HINT)
