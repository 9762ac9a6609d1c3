"""Index files that something has damaged: every question about one is answered or refused in a
sentence."""

import os
import random
import shutil
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import duckdb
import pytest

from mi_crow.cli import main
from mi_crow.errors import MiCrowError
from mi_crow.mechanistic.features.queries import SORTS, FeatureFilter, FeatureStore
from mi_crow.store.workspace import Workspace
from tests.helpers.index_fixture import make_index
from tests.helpers.mutations import BYTES, ODD_VALUES

SAE, FEATURES = "fixture-sae", 24
MOST_SECONDS = 60.0  # for all questions to one file; what hangs takes longer
_ODD_SQL = ("NULL", "'nan'", "'inf'", "'-inf'", "-1", "0", "2147483647", "1e300", "'x'", "''", "[]")
_TYPES = ("VARCHAR", "INTEGER", "DOUBLE", "BLOB", "BOOLEAN", "INTEGER[]", "DATE", "HUGEINT", "UUID")


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    workspace = Workspace.open(tmp_path_factory.mktemp("workspace") / "w")
    make_index(workspace, SAE, n_features=FEATURES, n_documents=8)
    return workspace


def mutate(path: Path, dice: random.Random) -> str:
    """Damages the file, by its bytes or by statements; says what was done."""
    if dice.random() < 0.4:
        change = dice.choice(BYTES)
        path.write_bytes(change(path.read_bytes(), dice))
        return change.__name__
    with duckdb.connect(str(path)) as database:
        return _change(database, dice)


def _change(database: duckdb.DuckDBPyConnection, dice: random.Random) -> str:
    def pick(query: str) -> Any:
        return dice.choice(sorted(database.execute(query).fetchall()))

    [table] = pick("SELECT table_name FROM duckdb_tables()")
    [column, kind] = pick(
        f"SELECT column_name, data_type FROM duckdb_columns() WHERE table_name = '{table}'"
    )
    odd = dice.choice(_ODD_SQL)
    statements = {
        "drop table": f'DROP TABLE "{table}" CASCADE',
        "drop column": f'ALTER TABLE "{table}" DROP COLUMN "{column}"',
        "rename column": f'ALTER TABLE "{table}" RENAME COLUMN "{column}" TO other',
        "other type": f'ALTER TABLE "{table}" ALTER "{column}" TYPE {dice.choice(_TYPES)} '
        f"USING NULL",
        "empty": f'DELETE FROM "{table}"',
        "fewer rows": f'DELETE FROM "{table}" WHERE rowid % {dice.randint(2, 5)} = 0',
        "twice the rows": f'INSERT INTO "{table}" SELECT * FROM "{table}"',
        "one odd value": f'UPDATE "{table}" SET "{column}" = TRY_CAST({odd} AS {kind}) '
        f"WHERE rowid % 7 = {dice.randrange(7)}",
        "all odd values": f'UPDATE "{table}" SET "{column}" = TRY_CAST({odd} AS {kind})',
        "odd facts": f"UPDATE meta SET value = ? WHERE key = '{pick('SELECT key FROM meta')[0]}'",
        "no fact": f"DELETE FROM meta WHERE key = '{pick('SELECT key FROM meta')[0]}'",
        "odd text": f'UPDATE "{table}" SET "{column}" = ? WHERE rowid < 3',
    }
    name = dice.choice(list(statements))
    statement = statements[name]
    value = str(dice.choice(ODD_VALUES)).encode("utf-8", "replace").decode()
    try:
        database.execute(statement, [value] if "?" in statement else [])
    except duckdb.Error:
        return f"{name} of {table}.{column}: refused by DuckDB"
    return f"{name} of {table}.{column} ({odd})"


def tried(work: Callable[[], Any]) -> Any:
    """What `work` gives; None where it is refused in a sentence of ours."""
    try:
        return work()
    except MiCrowError:
        return None


COMMANDS = (
    ("features", "--json"),
    ("features", "--search", "sea"),
    ("features", "--on-text", "the"),
    ("feature", "3"),
    ("feature", "3", "--json"),
)


def ask_all(workspace: Workspace, capsys: pytest.CaptureFixture[str], dice: random.Random) -> None:
    """Every question that the app has for an index, and one of the command line's."""
    store = tried(lambda: FeatureStore.open(workspace, SAE))
    if store is not None:
        for sort in (*SORTS, *(f"auroc:{label}" for label in store.meta().labels[:2])):
            ids = tried(lambda sort=sort: store.ids(sort))
            if ids is not None:
                tried(lambda ids=ids: store.rows(ids))
        for wanted in (FeatureFilter(alive=True), FeatureFilter(min_density=0.1)):
            tried(lambda wanted=wanted: store.page(flt=wanted))
        tried(lambda: store.search("the sea"))
        tried(lambda: store.on_text("the"))
        tried(lambda: store.best_labels([0, 1, 2]))
        for feature in (3, 9, FEATURES - 1):
            tried(lambda feature=feature: store.detail(feature))
            tried(lambda feature=feature: store.all_examples(feature))
    command, *rest = dice.choice(COMMANDS)
    code = main(["--workspace", str(workspace.root), command, "--sae", SAE, *rest])
    told = capsys.readouterr()
    assert code in (0, 1, 2)
    assert "bug in mi-crow" not in told.err, f"{command} {rest}: {told.err}"


def check(
    whole: Workspace, folder: Path, capsys: pytest.CaptureFixture[str], seed: int, count: int
) -> None:
    dice = random.Random(seed)
    shutil.copytree(whole.root, folder)
    workspace = Workspace(folder)
    path = workspace.index_path(SAE)
    faults = []
    tmp_folder = folder.parent
    for number in range(count):
        fresh = tmp_folder / f"{number}.duckdb"  # DuckDB opens a file once in a process
        shutil.copyfile(whole.index_path(SAE), fresh)
        done = mutate(fresh, dice)
        os.replace(fresh, path)
        began = time.perf_counter()
        try:
            ask_all(workspace, capsys, dice)
        except Exception as error:
            place = traceback.extract_tb(error.__traceback__)[-1]
            faults.append(f"{number}, {done}: {error!r} at {place.filename}:{place.lineno}")
        assert time.perf_counter() - began < MOST_SECONDS, f"mutation {number}, {done}"
    assert not faults, "\n".join(faults)


@pytest.mark.slow
def test_no_damage_to_an_index_breaks_a_question(
    whole: Workspace, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    check(whole, tmp_path / "w", capsys, seed=1, count=6)


@pytest.mark.slow
def test_no_damage_of_many_breaks_a_question(
    whole: Workspace, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    check(whole, tmp_path / "w", capsys, seed=2, count=72)
