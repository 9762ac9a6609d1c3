"""The history of the concepts and undoing it: queries on an open transaction."""

import sqlite3
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from heapq import nsmallest

from mi_crow.errors import NotFoundError, UserError
from mi_crow.mechanistic.concepts.annotations_rows import (
    COLUMNS,
    Change,
    Concept,
    Key,
    change_of,
    concept_of,
    key_of,
    replace_concepts,
)
from mi_crow.visible import quoted

UNDO, REDO = "undo", "redo"
_FEW = 2  # lines of a change that is told in full; of others as many are told, and their number
_LONGEST, _MOST_TAGS = 40, 8  # characters of a note or a tag, and tags, that are told


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
    what: str  # `name “sails” of feature 3`
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


def restore(
    connection: sqlite3.Connection,
    lines: Sequence[Change],
    by: tuple[str, str, int],
    *,
    leave: bool,
) -> list[Change]:
    """Takes the rows of a change back to what they were: `lines` are all of it that are not undone,
    the latest first. Returns the lines of those that had not changed since. `by`: who does it, in
    which session and as which change.

    `leave`: the others can be undone later; else they count as undone, so that the next undo
    reaches the change before. Others wait while this writes, so that all rows are read and written
    at once.
    """
    if not lines:
        return []
    said = {key_of(one): one for one in _concepts_of(connection, lines[0].change)}
    now: dict[Key, Concept | None] = {}
    done: list[Change] = []
    left: list[tuple[int]] = []
    for line in lines:
        row = line.after or line.before
        assert row is not None
        key = key_of(row)
        if (now[key] if key in now else said.get(key)) == line.after:
            now[key] = line.before
            done.append(line)
        else:
            left.append((line.id,))
    replace_concepts(
        connection, [key for key in now if key in said], [one for one in now.values() if one]
    )
    connection.executemany("UPDATE history SET undone_by = 0 WHERE id = ?", left)
    first = last_line(connection) + 1
    actor, session, change = by
    action = REDO if lines[0].action == UNDO else UNDO
    connection.execute(
        "INSERT INTO history (t, actor, session, action, sae_id, feature, before, after, change) "
        "SELECT ?, ?, ?, ?, sae_id, feature, after, before, ? FROM history "
        "WHERE change = ? AND undone_by IS NULL ORDER BY id DESC",
        (time.time(), actor, session, action, change, lines[0].change),
    )
    connection.executemany(
        "UPDATE history SET undone_by = ? WHERE id = ?",
        ((place, line.id) for place, line in enumerate(done, first)),
    )
    if leave:
        connection.executemany("UPDATE history SET undone_by = NULL WHERE id = ?", left)
    return done


def _concepts_of(connection: sqlite3.Connection, change: int) -> Iterator[Concept]:
    """The concepts, as they are now, of the features that a change is about."""
    query = (
        f"SELECT {COLUMNS} FROM concepts WHERE (sae_id, feature) IN "
        "(SELECT sae_id, feature FROM history WHERE change = ?)"
    )
    return map(concept_of, connection.execute(query, (change,)))


def check_not_undone(lines: Sequence[Change]) -> None:
    """Raises UserError for a change that is undone already."""
    if all(line.undone for line in lines):
        raise UserError(
            f"change {lines[0].change} is undone already ({describe(lines)})",
            hint="to redo it, undo the undo; it is listed as a separate change",
        )


def check_undone(
    connection: sqlite3.Connection, lines: Sequence[Change], result: UndoResult
) -> None:
    """Raises UserError for a change of which nothing could be undone: it names what came after."""
    if result.undone or not result.skipped:
        return
    first = lines[0]
    row = connection.execute(
        "SELECT change FROM history WHERE sae_id = ? AND feature = ? AND id > ? "
        "AND undone_by IS NULL ORDER BY id DESC LIMIT 1",
        (first.sae_id, first.feature, first.id),
    ).fetchone()
    hint = "the names that it gave are gone"
    if row is not None:
        later = lines_of(connection, int(row["change"]))
        hint = f"undo change {later[0].change} first ({describe(later)})"
    raise UserError(result.message, hint=hint)


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
    connection: sqlite3.Connection, limit: int, sae_id: str | None, feature: int | None = None
) -> list[PastChange]:
    """The latest changes by anybody, newest first."""
    wanted = {"sae_id": sae_id, "feature": feature}
    values = {name: value for name, value in wanted.items() if value is not None}
    where = " AND ".join(f"{name} = :{name}" for name in values)
    query = (
        f"SELECT DISTINCT change FROM history {where and f'WHERE {where}'} "
        "ORDER BY change DESC LIMIT :limit"
    )
    rows = connection.execute(query, {**values, "limit": limit}).fetchall()
    return [_past(connection, row["change"]) for row in rows]


def next_change(connection: sqlite3.Connection) -> int:
    """The number of the change that begins now."""
    row = connection.execute("SELECT coalesce(max(change), 0) + 1 FROM history").fetchone()
    return int(row[0])


def last_line(connection: sqlite3.Connection) -> int:
    """The number of the latest line; 0 without any."""
    row = connection.execute("SELECT max(id) FROM history").fetchone()
    return int(row[0] or 0)


def changes_of_others(
    connection: sqlite3.Connection, line: int, session: str, limit: int
) -> list[PastChange]:
    """What other sessions changed after a line of the history, newest first."""
    rows = connection.execute(
        "SELECT DISTINCT change FROM history WHERE id > ? AND session != ? "
        "ORDER BY change DESC LIMIT ?",
        (line, session, limit),
    ).fetchall()
    return [_past(connection, row["change"]) for row in rows]


def features_changed(
    connection: sqlite3.Connection, sae_id: str, line: int, most: int
) -> list[int] | None:
    """The features of which something was changed after a line; None for more than `most`."""
    rows = connection.execute(
        "SELECT DISTINCT feature FROM history WHERE id > ? AND sae_id = ? LIMIT ?",
        (line, sae_id, most + 1),
    ).fetchall()
    return None if len(rows) > most else [int(row["feature"]) for row in rows]


def _past(connection: sqlite3.Connection, change: int) -> PastChange:
    """One change; of a large one only the counts are read."""
    row = connection.execute(
        "SELECT count(*) AS lines, max(id) AS last, sum(before IS NULL) AS new, "
        "sum(after IS NULL) AS gone, min(undone_by IS NOT NULL) AS undone "
        "FROM history WHERE change = ?",
        (change,),
    ).fetchone()
    query = "SELECT * FROM history WHERE id = ?"
    first = change_of(connection.execute(query, (row["last"],)).fetchone())
    if row["lines"] <= _FEW:
        what = describe(lines_of(connection, change))
    else:
        few = connection.execute(
            "SELECT * FROM history WHERE change = ? ORDER BY id LIMIT ?", (change, _FEW)
        )
        told = _told(_forward([change_of(one) for one in few]), row["lines"])
        counted = _counted(first.action, row["lines"], row["new"], row["gone"])
        what = f"{_again(first.action)}{counted}: {told}"
    return PastChange(
        first.change,
        first.t,
        first.actor,
        first.session,
        first.action,
        first.sae_id,
        row["lines"],
        what,
        bool(row["undone"]),
    )


def describe(lines: Sequence[Change]) -> str:
    """What a change did: `rename “boats” to “sails” of feature 3`, `undo: name 12 concepts`."""
    return _again(lines[0].action) + _what(lines)


def _again(action: str) -> str:
    return {UNDO: "undo: ", REDO: "redo: "}.get(action, "")


def _counted(action: str, lines: int, new: int, gone: int) -> str:
    """`name 12 concepts`, of a change with as many lines without a before and without an after."""
    if action == UNDO:
        new, gone = gone, new
    verb = "name" if new == lines else "remove" if gone == lines else "change"
    return f"{verb} {lines:,} concepts"


def _what(lines: Sequence[Change]) -> str:
    """What was done; of an undo, what it undid."""
    few = _forward(nsmallest(_FEW, lines, key=lambda one: one.id))
    if len(lines) == 1:
        return f"{_verb(few[0])} {_one(few[0])}"
    if len(lines) == len(few) and (renamed := _renamed(few)):
        return renamed
    new = sum(one.before is None for one in lines)
    gone = sum(one.after is None for one in lines)
    return f"{_counted(lines[0].action, len(lines), new, gone)}: {_told(few, len(lines))}"


def _forward(lines: Sequence[Change]) -> Sequence[Change]:
    """The lines; of an undo, what it undid."""
    if lines[0].action != UNDO:
        return lines
    return [replace(one, action="", before=one.after, after=one.before) for one in lines]


def _told(some: Sequence[Change], total: int) -> str:
    rest = f" and {total - len(some):,} more" if total > len(some) else ""
    return ", ".join(map(_one, some)) + rest


def _one(line: Change) -> str:
    """`“sails” of feature 3`; where only more about it was changed, that too: `#wet ~0.8`."""
    row = line.after or line.before
    assert row is not None
    said = f"{quoted(row.name)} of feature {row.feature}"
    if line.before is None or line.after is None:
        return said
    old, new = line.before, line.after
    tags = [f"#{_short(tag)}" for tag in new.tags if tag not in old.tags]
    tags += [f"-#{_short(tag)}" for tag in old.tags if tag not in new.tags]
    more = len(tags) - _MOST_TAGS
    parts = [*tags[:_MOST_TAGS], *([f"and {more:,} tags more"] if more > 0 else [])]
    if new.confidence != old.confidence:
        parts.append(f"~{new.confidence:g}")
    if new.note != old.note:
        parts.append(f"-- {_short(new.note)}" if new.note else "without its note")
    return f"{said}: {' '.join(parts)}" if parts else said


def _short(text: str) -> str:
    words = " ".join(text[: 10 * _LONGEST].split())
    fits = len(words) <= _LONGEST and len(text) <= 10 * _LONGEST
    return words if fits else f"{words[: _LONGEST - 1]}…"


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
    return f"rename {quoted(before.name)} to {quoted(after.name)} of feature {after.feature}"


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
