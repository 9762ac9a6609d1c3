"""What people say about features: names, notes, tags, presets, generations, and undo.

Small, mutable and shared by several processes, hence SQLite. Torch-free.
"""

import getpass
import os
import sqlite3
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from mi_crow.clean_text import clean_text
from mi_crow.errors import NotFoundError, UserError
from mi_crow.mechanistic.concepts.annotations_database import AnnotationsDatabase
from mi_crow.mechanistic.concepts.annotations_history import (
    PastChange,
    UndoResult,
    changes_of_others,
    check_not_undone,
    check_undone,
    features_changed,
    last_line,
    latest_to_redo,
    latest_to_undo,
    lines_of,
    next_change,
    past_changes,
    restore,
    result_of,
)
from mi_crow.mechanistic.concepts.annotations_inspections import (
    SavedInspections,
    rename_in_inspections,
)
from mi_crow.mechanistic.concepts.annotations_rows import (
    COLUMNS,
    MOST_FEATURE,
    Change,
    Concept,
    Preset,
    SavedGeneration,
    as_text,
    change_of,
    check_fitting,
    concept_from,
    concept_of,
    delete_concept,
    put_all,
    put_concept,
    read_concept,
)
from mi_crow.mechanistic.concepts.annotations_saved import SavedSteering, rename_in_steering

__all__ = [
    "Annotations",
    "Change",
    "Concept",
    "PastChange",
    "Preset",
    "SavedGeneration",
    "UndoResult",
]


class Annotations(SavedSteering, SavedInspections):
    """The annotations of one workspace; safe from several threads and processes.

    Every change is written with its history, so that it can be undone.
    """

    def __init__(
        self, path: str | Path, actor: str | None = None, session: str | None = None
    ) -> None:
        self.path: Path = Path(path)
        self.actor: str = actor or _user_name()
        self.session: str = session or uuid.uuid4().hex[:12]
        self._database = AnnotationsDatabase(self.path)
        self._change: int | None = None  # id of the change that is being made, inside its block

    def close(self) -> None:
        """Closes the file; the next call opens it again."""
        self._database.close()

    def data_version(self) -> int:
        """A number that changes with every change by anybody, this process included."""
        return self._database.data_version()

    def read_only(self) -> str | None:
        """Why nothing can be written, in words; None where it can."""
        return self._database.read_only()

    def check_writable(self) -> None:
        """Raises UserError where nothing can be written, before there is anything to write."""
        self._database.check_writable()

    def take_notice(self) -> str | None:
        """What happened to the file from outside since the last call, in one sentence."""
        return self._database.take_notice()

    # Concepts.

    def concepts(self, sae_id: str | None = None, feature: int | None = None) -> list[Concept]:
        """All concepts, or those of one SAE or feature, by SAE, feature and name."""
        wanted = {"sae_id": sae_id, "feature": feature}
        values = {name: value for name, value in wanted.items() if value is not None}
        conditions = " AND ".join(f"{name} = :{name}" for name in values)
        where = f" WHERE {conditions}" if values else ""
        query = f"SELECT {COLUMNS} FROM concepts{where} ORDER BY sae_id, feature, name"
        return [concept_of(row) for row in self._database.rows(query, values)]

    def features_named(self, sae_id: str, name: str) -> list[int]:
        """The features of an SAE that have a name, also in other case (of A to Z), by number."""
        query = (
            "SELECT DISTINCT feature FROM concepts WHERE sae_id = :sae_id "
            "AND name = :name COLLATE NOCASE ORDER BY feature"
        )
        rows = self._database.rows(query, {"sae_id": sae_id, "name": name})
        return [int(row[0]) for row in rows]

    def set_concept(
        self,
        sae_id: str,
        feature: int,
        name: str,
        confidence: float = 1.0,
        note: str = "",
        tags: Sequence[str] = (),
        source: str = "user",
    ) -> Concept:
        """Names a feature, or changes what is said under that name.

        Raises UserError for an empty name, a number that no feature can have, a confidence outside
        0 to 1.
        """
        new = concept_from(sae_id, feature, name, confidence, note, tags, source, now=time.time())
        with self._changing() as connection:
            before = read_concept(connection, new.sae_id, feature, new.name)
            after = replace(new, created=before.created) if before else new
            put_concept(connection, after)
            self._record(connection, "set", before, after)
        return after

    def remove_concept(self, sae_id: str, feature: int, name: str) -> bool:
        """Removes a name from a feature; False when it did not have it."""
        if not 0 <= feature <= MOST_FEATURE:
            return False
        sae_id, name = clean_text(sae_id), clean_text(name)
        with self._changing() as connection:
            before = read_concept(connection, sae_id, feature, name)
            if before is None:
                return False
            delete_concept(connection, before)
            self._record(connection, "remove", before, None)
        return True

    def apply(self, pairs: Sequence[tuple[Concept | None, Concept | None]]) -> int:
        """Takes rows from what they are to what they shall be, all as one change; returns how many.

        Each pair is a concept as it is in the annotations, None for a new one, and as it shall
        be, None to remove it. The new ones must be of the form that `set_concept` gives them.

        Raises UserError for a text that is too long.
        """
        check_fitting(new for _, new in pairs if new is not None)
        with self._changing() as connection:
            if self._change is not None and pairs:
                put_all(connection, pairs, self.actor, self.session, self._change)
        return len(pairs)

    @contextmanager
    def one_change(self) -> Iterator[None]:
        """Everything set and removed inside is written together or not at all, and undone together.

        For this thread; others wait, so do not ask the user anything inside.
        """
        with self._changing():
            yield

    def rename_sae(self, sae_id: str, new: str) -> None:
        """Moves everything said about an SAE to its new id, history included.

        Raises UserError when there are concepts of `new`: those features are another SAE's.
        """
        with self._database.reading() as connection:
            if connection is None:
                return
        with self._database.writing() as connection:
            rename_in_steering(connection, sae_id, new)
            rename_in_inspections(connection, sae_id, new)
            said = "SELECT 1 FROM {} WHERE sae_id = ? LIMIT 1"
            if not any(
                connection.execute(said.format(table), (sae_id,)).fetchone()
                for table in ("concepts", "history")
            ):
                return
            if connection.execute("SELECT 1 FROM concepts WHERE sae_id = ?", (new,)).fetchone():
                raise UserError(
                    f"there are concepts of another SAE {new!r}", hint="choose another id"
                )
            connection.execute("UPDATE concepts SET sae_id = ? WHERE sae_id = ?", (new, sae_id))
            for column in ("before", "after"):
                connection.execute(
                    f"UPDATE history SET {column} = json_set({column}, '$.sae_id', ?) "
                    f"WHERE sae_id = ? AND {column} IS NOT NULL",
                    (new, sae_id),
                )
            connection.execute("UPDATE history SET sae_id = ? WHERE sae_id = ?", (new, sae_id))

    # History.

    def history(self, limit: int = 100, sae_id: str | None = None) -> list[Change]:
        """The latest changes by anybody, newest first."""
        where, values = ("", ()) if sae_id is None else (" WHERE sae_id = ?", (sae_id,))
        query = f"SELECT * FROM history{where} ORDER BY id DESC LIMIT ?"
        return [change_of(row) for row in self._database.rows(query, (*values, limit))]

    def past_changes(
        self, limit: int = 100, sae_id: str | None = None, feature: int | None = None
    ) -> list[PastChange]:
        """The latest changes by anybody, each as it is undone, newest first; of one SAE or one of
        its features, where that is given."""
        with self._database.reading() as connection:
            return [] if connection is None else past_changes(connection, limit, sae_id, feature)

    def last_line(self) -> int:
        """The number of the latest line of the history; 0 without any."""
        with self._database.reading() as connection:
            return 0 if connection is None else last_line(connection)

    def changes_of_others(self, line: int, limit: int = 20) -> list[PastChange]:
        """What other sessions changed after a line of the history, newest first."""
        with self._database.reading() as connection:
            if connection is None:
                return []
            return changes_of_others(connection, line, self.session, limit)

    def mark(self) -> tuple[int, int]:
        """Where the history is now, for `features_changed`."""
        return self.data_version() >> 40, self.last_line()

    def features_changed(self, sae_id: str, mark: tuple[int, int], most: int) -> list[int] | None:
        """The features of which something was changed since; None for more than `most`, and where
        that cannot be said because the file is another."""
        generation, line = mark
        with self._database.reading() as connection:
            if connection is None or self.data_version() >> 40 != generation:
                return None
            return features_changed(connection, sae_id, line, most)

    def undo(self, session: str | None = None) -> UndoResult | None:
        """Undoes this user's latest change (only of `session`, when given); None without one.

        A row that somebody has changed since is left as it is, and the message says so.
        """
        return self._take_back(latest_to_undo, session)

    def redo(self, session: str | None = None) -> UndoResult | None:
        """Redoes the latest undo, unless something else was changed after it; None without one.

        Only this user's changes, and only those of `session` when given.
        """
        return self._take_back(latest_to_redo, session)

    def _take_back(
        self,
        latest: Callable[[sqlite3.Connection, str, str | None], int | None],
        session: str | None,
    ) -> UndoResult | None:
        with self._database.reading() as connection:
            if connection is None:
                return None
        with self._changing() as connection:
            change = latest(connection, self.actor, session)
            return None if change is None else self._undo(connection, change, leave=False)

    def undo_change(self, change: int) -> UndoResult:
        """Undoes one change by anybody, also an undo; `past_changes` gives the numbers.

        A row that somebody has changed since is left as it is, and the message says so. Raises
        NotFoundError for an unknown number, UserError for a change that is undone already and for
        one of which every row has changed since.
        """
        with self._database.reading() as connection:
            if connection is None:
                raise NotFoundError(f"there is no change {change}", hint="nothing was changed yet")
        with self._changing() as connection:
            lines = lines_of(connection, change)
            check_not_undone(lines)
            result = self._undo(connection, change, leave=True)
            check_undone(connection, lines, result)
            return result

    def _undo(self, connection: sqlite3.Connection, change: int, *, leave: bool) -> UndoResult:
        """`leave`: rows that have changed since can be undone later; else they count as undone, so
        that the next undo reaches the change before."""
        assert self._change is not None
        lines = [line for line in lines_of(connection, change) if not line.undone]
        by = self.actor, self.session, self._change
        return result_of(lines, restore(connection, lines, by, leave=leave))

    @contextmanager
    def _changing(self) -> Iterator[sqlite3.Connection]:
        """One transaction whose history lines carry one change number; blocks nest into one."""
        with self._database.writing() as connection:
            if self._change is not None:
                yield connection
                return
            self._change = next_change(connection)
            try:
                yield connection
            finally:
                self._change = None

    def _record(
        self,
        connection: sqlite3.Connection,
        action: str,
        before: Concept | None,
        after: Concept | None,
    ) -> None:
        row = after or before
        assert row is not None
        connection.execute(
            "INSERT INTO history (t, actor, session, action, sae_id, feature, before, after, "
            "change) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                time.time(),
                self.actor,
                self.session,
                action,
                row.sae_id,
                row.feature,
                as_text(before),
                as_text(after),
                self._change,
            ),
        )

    # Files.

    def export(
        self, path: str | Path, sae_id: str | None = None, *, overwrite: bool = False
    ) -> int:
        """Writes concepts to a .json or .csv file; returns their number. Raises UserError, also for
        a file that exists, unless `overwrite`."""
        from mi_crow.mechanistic.concepts.concept_files import write_concepts

        if not overwrite and os.path.lexists(path):
            raise UserError(
                f"{str(path)!r} exists already", hint="choose another name, or overwrite=True"
            )
        concepts = self.concepts(sae_id)
        write_concepts(Path(path), concepts)
        return len(concepts)

    def import_(
        self, path: str | Path, sae_id: str | None = None, *, overwrite: bool = False
    ) -> int:
        """Reads a .json or .csv file, all of it or nothing; returns the number of concepts.

        `sae_id` is for rows that name no SAE. Raises UserError naming the row that is wrong, and
        WouldReplaceError for one that says something else about an existing name, unless
        `overwrite`.
        """
        from mi_crow.mechanistic.concepts.exchange.dictionary_rows import read_rows
        from mi_crow.mechanistic.concepts.exchange.importing import add_rows

        rows = read_rows(Path(path), sae_id)
        return add_rows(self, Path(path), rows, force=overwrite).concepts


def _user_name() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # the user of a container may have no name
        return "user"
