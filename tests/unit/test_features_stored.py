"""What stands in the file: tokens that are kept as the places where they end, derived tables."""

from pathlib import Path

import duckdb
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mi_crow.mechanistic.features.connection import connect
from mi_crow.mechanistic.features.index.write import writing_index
from mi_crow.mechanistic.features.one_feature import read_examples
from mi_crow.store.workspace import Workspace
from tests.helpers.index_fixture import make_index

# Characters of one to four bytes, some that join others into one on the screen, and controls.
CHARACTERS = "ab \n\t\x00\x1b[é€של\u0301\u200d\u202e👩🏽\U0001f680日"
PIECES = st.lists(st.text(CHARACTERS, max_size=4), max_size=12)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("stored")


@pytest.mark.slow
@given(st.lists(st.tuples(PIECES, st.booleans()), min_size=1, max_size=5), st.data())
@settings(max_examples=30, deadline=None)
def test_tokens_come_back_as_they_were(
    folder: Path, documents: list[tuple[list[str], bool]], data: st.DataObject
) -> None:
    """In SQL and in an example's window, whether or not the model saw just the text."""
    pieces = [some for some, _ in documents]
    texts = ["".join(some) + (" and more" if cut else "") for some, cut in documents]
    numbers = list(range(len(pieces)))
    starts = [data.draw(st.integers(0, len(some))) for some in pieces]
    windows = [
        some[start : data.draw(st.integers(start, len(some)))]
        for some, start in zip(pieces, starts, strict=True)
    ]
    path = folder / "features.duckdb"
    with writing_index(path) as writer:
        writer.append(
            "documents",
            {
                "document": numbers,
                "text": texts,
                "token_ids": [[7] * len(some) for some in pieces],
                "token_texts": pieces,
            },
        )
        writer.append(
            "examples",
            {
                "feature": [0] * len(pieces),
                "band": [0] * len(pieces),
                "rank": numbers,
                "document": numbers,
                "position": starts,
                "activation": [1.0] * len(pieces),
                "window_start": starts,
                "acts": [[0.0] * len(window) for window in windows],
            },
        )
        writer.write_meta({"sae_id": "stored"})
    connection = connect(path, "stored")
    found = connection.rows("SELECT text, token_texts FROM idx.documents ORDER BY document")
    assert found == list(zip(texts, pieces, strict=True))
    [examples] = read_examples(connection, 0, None, 20).values()
    assert [(one.text, one.tokens) for one in examples] == list(zip(texts, windows, strict=True))


def test_a_text_that_the_model_saw_whole_is_stored_once(tmp_path: Path) -> None:
    path = tmp_path / "features.duckdb"
    with writing_index(path) as writer:
        columns = {"document": [0, 1], "text": ["a mast", "a mast"]}
        writer.append("documents", columns | {"token_texts": [["a", " mast"], ["<s>", "a"]]})
    with duckdb.connect(str(path), read_only=True) as connection:
        found = connection.sql("SELECT seen, token_ends FROM stored_documents").fetchall()
    assert found == [(None, [1, 6]), ("<s>a", [3, 4])]


@pytest.mark.slow
def test_the_aurocs_of_a_label_are_those_of_its_rows(tmp_path: Path) -> None:
    workspace = Workspace.open(tmp_path / "w")
    make_index(workspace, "sae")
    with duckdb.connect(str(workspace.index_path("sae")), read_only=True) as connection:
        columns = "label, feature, auroc, auroc_heldout"
        same = f"SELECT {columns} FROM feature_labels ORDER BY label, feature"
        expected = connection.sql(same).fetchall()
        assert len({label for label, *_ in expected}) > 1
        found = connection.sql(f"SELECT {columns} FROM label_aurocs").fetchall()
    assert found == expected
