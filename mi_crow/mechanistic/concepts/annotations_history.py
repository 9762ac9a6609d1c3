"""The history of the concepts and undoing it: queries on an open transaction."""

import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass, replace

from mi_crow.errors import NotFoundError, UserError
from mi_crow.mechanistic.concepts.annotations_rows import Change, change_of

UNDO, REDO = "undo", "redo"


@dataclass(frozen=True)
class PastChange:
    """One change as it was made and as it is undone: all its lines together."""

    id: int
    t: float  # unix seconds
    actor: str
    session: str
    action: str  # set | remove | undo | redo
    sae_id: str
    rows: int  # concepts that it changed
    what: str  # `name 'sails' of feature 3`
    undone: bool


@dataclass(frozen=True)
class UndoResult:
    """What an undo or a redo did; its text is the sentence to show."""

    undone: int  # rows that were restored
    skipped: int  # rows left as they are because somebody has changed them since
    message: str

    def __str__(self) -> str:
        return self.message


def lines_of(connection: sqlite3.Connection, change: int) -> list[Change]:
    """The lines of one change, the latest first. Raises NotFoundError."""
    rows = connection.execute(
        "SELECT * FROM history WHERE change = ? ORDER BY id DESC", (change,)
    ).fetchall()
    if not rows:
        raise NotFoundError(
            f"there is no change {change}", hint="mi-crow concepts history lists them"
        )
    return [change_of(row) for row in rows]


def check_not_undone(lines: Sequence[Change]) -> None:
    """Raises UserError for a change that is undone already."""
    if all(line.undone for line in lines):
        raise UserError(
            f"change {lines[0].change} is undone already ({describe(lines)})",
            hint="to redo it, undo its undo, which is a change of its own",
        )


def latest_to_undo(connection: sqlite3.Connection, actor: str, session: str | None) -> int | None:
    """The newest change of `actor` (only of `session`, when given) that is not undone."""
    only, values = _only(session)
    row = connection.execute(
        "SELECT change FROM history WHERE actor = ? AND undone_by IS NULL "
        f"AND action != '{UNDO}'{only} ORDER BY id DESC LIMIT 1",
        (actor, *values),
    ).fetchone()
    return None if row is None else int(row["change"])


def latest_to_redo(connection: sqlite3.Connection, actor: str, session: str | None) -> int | None:
    """The newest undo that is in effect, unless something else was changed after it."""
    only, values = _only(session)
    row = connection.execute(
        f"SELECT max(id) AS id, change FROM history WHERE actor = ? AND undone_by IS NULL "
        f"AND action = '{UNDO}'{only}",
        (actor, *values),
    ).fetchone()
    if row["id"] is None:
        return None
    later = connection.execute(
        f"SELECT 1 FROM history WHERE actor = ? AND id > ? "
        f"AND action NOT IN ('{UNDO}', '{REDO}'){only} LIMIT 1",
        (actor, row["id"], *values),
    ).fetchone()
    return None if later is not None else int(row["change"])


def _only(session: str | None) -> tuple[str, tuple[str, ...]]:
    return ("", ()) if session is None else (" AND session = ?", (session,))


def past_changes(
    connection: sqlite3.Connection, limit: int, sae_id: str | None
) -> list[PastChange]:
    """The latest changes by anybody, newest first."""
    where, values = ("", ()) if sae_id is None else (" WHERE sae_id = ?", (sae_id,))
    query = f"SELECT DISTINCT change FROM history{where} ORDER BY change DESC LIMIT ?"
    numbers = [row["change"] for row in connection.execute(query, (*values, limit))]
    return [_past(lines_of(connection, number)) for number in numbers]


def _past(lines: Sequence[Change]) -> PastChange:
    first = lines[0]
    return PastChange(
        first.change,
        first.t,
        first.actor,
        first.session,
        first.action,
        first.sae_id,
        len(lines),
        describe(lines),
        all(line.undone for line in lines),
    )


def describe(lines: Sequence[Change]) -> str:
    """What a change did: `rename 'boats' to 'sails' of feature 3`, `undo: name 12 concepts`."""
    again = {UNDO: "undo: ", REDO: "redo: "}.get(lines[0].action, "")
    return again + _what(lines)


def _what(lines: Sequence[Change]) -> str:
    """What was done; of an undo, what it undid."""
    if lines[0].action == UNDO:
        lines = [replace(one, action="", before=one.after, after=one.before) for one in lines]
    if len(lines) == 1:
        row = lines[0].after or lines[0].before
        assert row is not None
        return f"{_verb(lines[0])} {row.name!r} of feature {row.feature}"
    verbs = {_verb(line) for line in lines}
    verb = verbs.pop() if len(verbs) == 1 else "change"
    return _renamed(lines) or f"{verb} {len(lines)} concepts"


def _renamed(lines: Sequence[Change]) -> str:
    """The sentence for a name that replaced another, else nothing."""
    gone = [line.before for line in lines if line.after is None]
    new = [line.after for line in lines if line.before is None]
    if len(lines) != 2 or len(gone) != 1 or len(new) != 1:
        return ""
    [before], [after] = gone, new
    assert before is not None
    assert after is not None
    if (before.sae_id, before.feature) != (after.sae_id, after.feature):
        return ""
    return f"rename {before.name!r} to {after.name!r} of feature {after.feature}"


def _verb(line: Change) -> str:
    if line.after is None:
        return "remove"
    return "change" if line.before is not None else "name"


def result_of(lines: Sequence[Change], done: Sequence[Change]) -> UndoResult:
    """The result of undoing `lines`, of which only `done` could be."""
    word = "redone" if lines[0].action == UNDO else "undone"
    skipped, what = len(lines) - len(done), _what(lines)
    if not skipped:
        message = f"{word}: {what}"
    elif not done:
        message = f"not {word}, it has changed since: {what}"
    else:
        message = f"{word}: {what}, except {skipped} that have changed since"
    return UndoResult(len(done), skipped, message)
