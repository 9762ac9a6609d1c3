"""A workspace made by somebody else: what its databases would run is not run; each is refused."""

import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path

import duckdb
import pytest

from mi_crow.errors import CorruptDataError, MiCrowError
from mi_crow.mechanistic.concepts.annotations import Annotations
from mi_crow.mechanistic.features.queries import FeatureStore
from mi_crow.store.workspace import Workspace
from tests.helpers.index_fixture import make_index

SAE = "fixture-sae"
# It would take years: whoever asks a view made of this does not come back.
ENDLESS = "range(1000000000) AS a(i), range(1000000000) AS b(j)"


@pytest.fixture(scope="module")
def good_index(tmp_path_factory: pytest.TempPathFactory) -> Path:
    workspace = Workspace.open(tmp_path_factory.mktemp("good") / "workspace")
    make_index(workspace, SAE, n_documents=8)
    return workspace.root


@pytest.fixture
def workspace(good_index: Path, tmp_path: Path) -> Workspace:
    shutil.copytree(good_index, tmp_path / "workspace")
    return Workspace.open(tmp_path / "workspace")


def changed(workspace: Workspace, *statements: str) -> None:
    with duckdb.connect(str(workspace.index_path(SAE))) as connection:
        for statement in statements:
            connection.execute(statement)


def view_of(workspace: Workspace, table: str) -> str:
    with duckdb.connect(str(workspace.index_path(SAE))) as connection:
        rows = connection.execute(
            "SELECT column_name, data_type FROM duckdb_columns() WHERE table_name = ?", [table]
        ).fetchall()
    columns = ", ".join(f"NULL::{kind} AS {name}" for name, kind in rows)
    return f"CREATE VIEW {table} AS SELECT {columns} FROM (SELECT count(*) FROM {ENDLESS})"


@pytest.mark.slow
@pytest.mark.parametrize(
    "table", ["meta", "features", "labels", "stored_documents", "tokens", "label_aurocs"]
)
def test_a_view_in_the_place_of_a_table_is_not_run(workspace: Workspace, table: str):
    view = view_of(workspace, table)
    changed(workspace, f"DROP TABLE {table}", view)
    with pytest.raises(CorruptDataError, match=f"'{table}' is a view and not a table") as caught:
        FeatureStore.open(workspace, SAE)
    assert "mi-crow index --sae" in caught.value.hint


@pytest.mark.parametrize(
    ("statements", "says"),
    [
        (["CREATE MACRO coalesce(x, y) AS x"], "a macro 'coalesce'"),
        ([f"CREATE MACRO rows() AS TABLE SELECT i FROM {ENDLESS}"], "a macro 'rows'"),
        (["DROP TABLE neighbours"], "no table 'neighbours'"),
        (["ALTER TABLE logits DROP COLUMN value"], "'logits' has no column 'value'"),
        (["ALTER TABLE features ALTER fires TYPE VARCHAR"], "of type VARCHAR, not BIGINT"),
        (
            [
                "DROP TABLE tokens",
                "CREATE TABLE tokens (token_id INTEGER, token VARCHAR AS (repeat('x', 1000000)))",
            ],
            "is computed",
        ),
        (
            ["INSERT INTO labels SELECT 'x', 1 FROM range(1100000)"],
            "'labels' has 1,100,004 rows",
        ),
    ],
    ids=["macro", "table-macro", "missing", "column", "type", "computed", "rows"],
)
def test_an_index_that_is_not_as_it_is_made_is_refused(
    workspace: Workspace, statements: list[str], says: str
):
    changed(workspace, *statements)
    with pytest.raises(CorruptDataError, match=says):
        FeatureStore.open(workspace, SAE)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("histogram_edges", "[NaN, 1]"),
        ("histogram_edges", '{"a": 1}'),
        ("histogram_edges", '["x"]'),
        ("histogram_edges", "[" * 100_000 + "]" * 100_000),
        ("sources", "[1, 2]"),
        ("sources", "7" * 5000),
        ("n_features", "9" * 5000),
        ("n_features", "65"),
        ("n_tokens", "many"),
        ("built_at", "nan"),
        ("built_at", "1e300"),
        ("bands", "9" * 400),
    ],
    ids=lambda value: value[:12],
)
def test_facts_of_an_index_that_cannot_be_right_are_a_sentence(
    workspace: Workspace, key: str, value: str
):
    changed(workspace, f"UPDATE meta SET value = '{value}' WHERE key = '{key}'")
    with pytest.raises(CorruptDataError) as caught:
        FeatureStore.open(workspace, SAE)
    assert len(caught.value.sentence) < 500


# Annotations.


def annotated(folder: Path) -> Path:
    path = folder / "annotations.sqlite"
    annotations = Annotations(path)
    annotations.set_concept(SAE, 3, "sails", note="n", tags=["t"])
    annotations.save_preset("good", [])
    annotations.save_preset("other", [])
    annotations.close()
    return path


def altered(path: Path, *statements: str) -> Annotations:
    connection = sqlite3.connect(path)
    for statement in statements:
        connection.execute(statement)
    connection.commit()
    connection.close()
    return Annotations(path)


@pytest.mark.parametrize(
    ("statements", "says"),
    [
        (
            [
                "DROP TABLE concepts",
                "CREATE VIEW concepts AS WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 "
                "FROM n) SELECT 's' AS sae_id, i AS feature FROM n",
            ],
            "has a view 'concepts'",
        ),
        (
            [
                "CREATE TRIGGER t AFTER INSERT ON concepts BEGIN DELETE FROM history; END",
            ],
            "has a trigger 't'",
        ),
        (["CREATE VIRTUAL TABLE v USING fts5(x)"], "has a virtual table 'v'"),
        (["DROP TABLE presets"], "has no table 'presets'"),
        (["ALTER TABLE concepts DROP COLUMN note"], "has no column 'note'"),
        (
            ["DROP TABLE presets", "CREATE TABLE presets (name, interventions, created, updated)"],
            "has no column 'name' of type TEXT",
        ),
    ],
    ids=["view", "trigger", "virtual", "missing", "column", "type"],
)
def test_annotations_that_would_act_by_themselves_are_refused(
    tmp_path: Path, statements: list[str], says: str
):
    annotations = altered(annotated(tmp_path), *statements)
    for ask in (
        lambda: annotations.concepts(SAE),
        lambda: annotations.set_concept(SAE, 4, "x"),
        annotations.presets,
        annotations.data_version,
    ):
        with pytest.raises(CorruptDataError, match=says):
            ask()


@pytest.mark.slow
@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE concepts SET name = x'ff00'",
        "UPDATE concepts SET feature = -1",
        "UPDATE concepts SET feature = 'many'",
        "UPDATE concepts SET confidence = 9e999",
        "UPDATE concepts SET confidence = 'sure'",
        "UPDATE concepts SET tags = '{}'",
        "UPDATE concepts SET tags = '[1]'",
        "UPDATE concepts SET tags = '" + "[" * 100_000 + "'",
        "UPDATE concepts SET note = CAST(zeroblob(80000000) AS TEXT)",
    ],
    ids=lambda text: text[20:45],
)
def test_a_concept_that_cannot_be_right_is_a_sentence(tmp_path: Path, statement: str):
    annotations = altered(annotated(tmp_path), statement)
    with pytest.raises(MiCrowError) as caught:
        annotations.concepts(SAE)
    assert len(caught.value.sentence) < 500


@pytest.mark.parametrize("text", ["7", "[7]", "nonsense", "[" * 100_000], ids=lambda t: t[:9])
def test_a_preset_that_cannot_be_read_hides_no_other(tmp_path: Path, text: str):
    annotations = altered(
        annotated(tmp_path), f"UPDATE presets SET interventions = '{text}' WHERE name = 'good'"
    )
    presets = annotations.presets()
    assert [preset.name for preset in presets] == ["good", "other"]
    assert all(isinstance(one, dict) for preset in presets for one in preset.interventions)


def test_the_history_of_a_hostile_file_is_a_sentence(tmp_path: Path):
    update: Callable[[str], str] = "UPDATE history SET after = '{}'".format
    for after in ("[]", '{"name": 3}', "[" * 100_000):
        annotations = altered(annotated(tmp_path), update(after))
        with pytest.raises(CorruptDataError):
            annotations.history()
        annotations.close()
        (tmp_path / "annotations.sqlite").unlink()
