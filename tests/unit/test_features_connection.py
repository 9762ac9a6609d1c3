"""What is said of an index that cannot be read, and that one which was replaced is noticed."""

import shutil
import subprocess
import sys
import threading
from pathlib import Path

import duckdb
import pytest

from mi_crow.errors import CancelledError, CorruptDataError, MiCrowError, NotFoundError, UserError
from mi_crow.mechanistic.features.connection import connect, explained
from mi_crow.mechanistic.features.queries import FeatureStore
from mi_crow.store.workspace import Workspace
from tests.helpers.index_fixture import make_index

SAE = "fixture-sae"
REBUILD = f"mi-crow index --sae {SAE}"


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    workspace = Workspace.open(tmp_path_factory.mktemp("workspace") / "w")
    make_index(workspace, SAE, n_features=24, n_documents=8)
    return workspace.index_path(SAE)


@pytest.fixture
def path(whole: Path, tmp_path: Path) -> Path:
    """A copy that a test may spoil."""
    folder = tmp_path / SAE
    folder.mkdir()
    return Path(shutil.copy(whole, folder / "features.duckdb"))


def said(path: Path) -> MiCrowError:
    """The error of opening the file and reading all of it."""

    def read_all() -> None:
        store = FeatureStore(path, SAE, None)
        for feature in range(24):
            store.detail(feature)
            store.all_examples(feature)

    with pytest.raises(MiCrowError) as caught:
        read_all()
    assert "\n" not in caught.value.sentence
    assert SAE in caught.value.sentence
    return caught.value


def test_no_file_is_no_index(path: Path) -> None:
    path.unlink()
    error = said(path)
    assert isinstance(error, NotFoundError)
    assert REBUILD in error.hint


def test_an_empty_file_is_told(path: Path) -> None:
    path.write_bytes(b"")
    error = said(path)
    assert isinstance(error, CorruptDataError)
    assert "empty" in str(error)
    assert REBUILD in error.hint


def test_a_folder_in_its_place_is_told(path: Path) -> None:
    path.unlink()
    path.mkdir()
    assert "not a file" in str(said(path))


def test_what_does_not_fit_into_memory_is_not_put_where_the_program_was_started(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "runtime"))
    connection = connect(path, SAE)
    sort = "SELECT count(*) FROM (SELECT i FROM range(4000000) t(i) ORDER BY hash(i))"
    assert connection.rows(sort) == [(4_000_000,)]
    rows = connection.rows("SELECT current_setting('temp_directory')")
    assert rows == [(str(tmp_path / "runtime" / "mi-crow" / "spilled"),)]
    assert not list(here.iterdir())


@pytest.mark.parametrize("share", [0.001, 0.3, 0.7, 0.99])
def test_a_cut_file_is_damaged(path: Path, share: float) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    error = said(path)
    assert isinstance(error, CorruptDataError)
    assert "damaged" in str(error)
    assert REBUILD in error.hint


def test_overwritten_blocks_are_damage(path: Path) -> None:
    content = bytearray(path.read_bytes())
    middle = len(content) // 3
    content[middle : middle * 2] = b"\xff" * middle
    path.write_bytes(content)
    assert isinstance(said(path), CorruptDataError)


def test_a_database_of_something_else_is_told(path: Path) -> None:
    path.unlink()
    with duckdb.connect(str(path)) as connection:
        connection.execute("CREATE TABLE groceries (name VARCHAR)")
    error = said(path)
    assert isinstance(error, CorruptDataError)
    assert "not a feature index" in str(error)


def test_an_index_without_one_of_its_tables_is_damaged(path: Path) -> None:
    with duckdb.connect(str(path)) as connection:
        connection.execute("DROP TABLE logits")
    assert isinstance(said(path), CorruptDataError)


def test_an_older_schema_offers_to_build_it_again(path: Path) -> None:
    with duckdb.connect(str(path)) as connection:
        connection.execute("UPDATE meta SET value = '1' WHERE key = 'schema_version'")
    error = said(path)
    assert isinstance(error, UserError)
    assert "older schema 1" in str(error)
    assert REBUILD in error.hint


def test_a_file_that_another_process_writes_is_locked_and_not_damaged(path: Path) -> None:
    code = (
        "import duckdb, sys\n"
        "held = duckdb.connect(sys.argv[1])\n"
        "print('held', flush=True)\n"
        "sys.stdin.read()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as writer:
        assert writer.stdout is not None
        assert writer.stdout.readline() == b"held\n"
        with pytest.raises(UserError, match="open for writing"):
            connect(path, SAE)
        writer.communicate(b"")
    assert connect(path, SAE).rows("SELECT count(*) FROM idx.features") == [(24,)]


def test_an_interrupted_query_says_that_it_was_stopped(path: Path) -> None:
    done = threading.Event()
    with connect(path, SAE).database.cursor() as cursor:

        def interrupt() -> None:
            while not done.wait(0.01):  # until it meets the query
                cursor.interrupt()

        thread = threading.Thread(target=interrupt)
        thread.start()
        with pytest.raises(duckdb.InterruptException) as caught:
            cursor.execute(
                "SELECT count(*) FROM range(10_000_000) a, range(10_000_000) b "
                "WHERE a.range * b.range = -1"
            ).fetchall()
        done.set()
        thread.join()
    assert isinstance(explained(SAE, caught.value, Path("x")), CancelledError)


def test_a_query_beyond_its_memory_says_so(path: Path) -> None:
    connection = connect(path, SAE)
    with pytest.raises(UserError, match="150MB"):
        connection.columns("SELECT list(a || repeat('x', 100)) FROM range(10_000_000) t(a)")
    assert connection.rows("SELECT count(*) FROM idx.features") == [(24,)]


def test_a_large_query_is_answered_and_its_memory_given_back(path: Path) -> None:
    connection = connect(path, SAE)
    limit = "SELECT current_setting('memory_limit')"
    before = connection.rows(limit)
    large = "SELECT len(list(a || repeat('x', 100))) FROM range(400_000) t(a)"
    with pytest.raises(duckdb.OutOfMemoryException):
        connection.database.cursor().execute(large).fetchall()
    assert connection.rows(large) == [(400_000,)]
    assert connection.rows(limit) == before


def test_a_large_query_waits_for_the_memory_that_others_hold(path: Path) -> None:
    opened = connect(path, SAE)
    real = opened._cursor
    asked: list[str] = []

    class Full:
        """A cursor that is refused while another thread's query holds all memory."""

        def execute(self, query: str, *values: object) -> object:
            asked.append(query)
            if len(asked) <= 4:
                raise duckdb.OutOfMemoryException("failed to allocate data of size 2.0 KiB")
            return real.execute(query, *values)

    opened._of_thread.cursor = Full()
    assert opened.rows("SELECT count(*) FROM idx.features") == [(24,)]
    assert [one.split()[0] for one in asked] == ["SELECT", *["SET"] * 4, "SELECT", "SET"]


def test_memory_that_another_query_holds_is_given_back_by_a_later_one(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    connection = connect(path, SAE)
    limit = "SELECT current_setting('memory_limit')"
    before = connection.rows(limit)

    def held(_: object) -> None:
        raise duckdb.OutOfMemoryException("cannot lower the limit")

    with monkeypatch.context() as patched:
        patched.setattr("mi_crow.mechanistic.features.connection._lower", held)
        large = "SELECT len(list(a || repeat('x', 100))) FROM range(400_000) t(a)"
        assert connection.rows(large) == [(400_000,)]
        assert connection.rows(limit) != before
    assert connection.rows(limit) == before


@pytest.mark.parametrize("setting", ["enable_external_access=true", "allowed_directories=['/']"])
def test_what_keeps_queries_from_other_files_stays_set(path: Path, setting: str) -> None:
    with pytest.raises(MiCrowError):
        connect(path, SAE).rows(f"SET {setting}")


def test_a_file_of_another_duckdb_is_not_damaged() -> None:
    error = duckdb.IOException(
        "IO Error: Trying to read a database file with version number 99, but we can only read 68."
    )
    found = explained(SAE, error, Path("x"))
    assert isinstance(found, UserError)
    assert "another version of DuckDB" in str(found)
    assert REBUILD in found.hint


def test_an_index_replaced_while_open_is_noticed_and_still_readable(
    path: Path, whole: Path
) -> None:
    store = FeatureStore(path, SAE, None)
    before = store.rows([3])
    fresh = Path(shutil.copy(whole, path.with_name("fresh")))
    fresh.replace(path)
    assert store.changed_on_disk()
    assert store.detail(3).row == before[0]
    store.reopen()
    assert not store.changed_on_disk()


def test_a_damaged_replacement_leaves_the_old_index_open(path: Path) -> None:
    store = FeatureStore(path, SAE, None)
    path.rename(path.with_name("old"))
    path.write_bytes(b"not a database" * 100)
    assert store.changed_on_disk()
    with pytest.raises(CorruptDataError):
        store.reopen()
    assert store.detail(3).row.feature == 3


def test_blocks_that_nobody_asked_for_lately_are_given_back(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Two blocks: with less, what the change of the limit takes would push out the table too.
    monkeypatch.setattr("mi_crow.mechanistic.features.connection._LEAST", 1 << 19)
    connection = connect(path, SAE)
    rows = "SELECT count(hash(t)) FROM idx.examples AS t"
    memory = "SELECT tag, memory_usage_bytes FROM duckdb_memory() WHERE memory_usage_bytes > 0"

    def kept() -> dict[str, int]:
        """Asked past the connection, for which it is no query."""
        return dict(connection.database.execute(memory).fetchall())

    connection.replace_table("mine", {"n": ("INTEGER", range(200_000))})
    expected = connection.rows(rows)
    before = kept()
    connection.rest()
    assert kept() == before
    connection.rest()
    after = kept()
    assert after.get("BASE_TABLE", 0) < before["BASE_TABLE"]
    assert after["IN_MEMORY_TABLE"] == before["IN_MEMORY_TABLE"]
    assert connection.rows(rows) == expected
    assert connection.rows("SELECT current_setting('memory_limit')") == [("15.2 MiB",)]
    connection.database.close()
