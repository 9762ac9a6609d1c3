"""The columns that can be chosen: each is read, sorts, and is refused where it is not there."""

import json

import pytest

from mi_crow.cli import main
from mi_crow.errors import UserError
from mi_crow.mechanistic.concepts.annotations import Annotations
from mi_crow.mechanistic.features.catalogue import COLUMNS
from mi_crow.mechanistic.features.queries import FeatureStore
from mi_crow.store.workspace import Workspace
from tests.helpers.index_fixture import TOPICS, make_index

SAE = "fixture-sae"
LABEL = next(iter(TOPICS))


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    workspace = Workspace.open(tmp_path_factory.mktemp("workspace") / "w")
    make_index(workspace, SAE)
    annotations = Annotations(workspace.annotations_path)
    annotations.set_concept(SAE, 5, "zebra", 0.4, note="striped", tags=["b", "a"], source="auto")
    annotations.set_concept(SAE, 5, "horse", 0.9)
    annotations.set_concept(SAE, 7, "apple", 0.6, tags=["a"])
    return workspace


@pytest.fixture
def store(workspace: Workspace) -> FeatureStore:
    return FeatureStore.open(workspace, SAE, Annotations(workspace.annotations_path))


def test_a_row_says_what_the_feature_itself_says(store: FeatureStore) -> None:
    names = [column.name for column in COLUMNS]
    row, detail = store.rows([5], names)[0], store.detail(5)
    assert row.more["std"] == pytest.approx(detail.std_act)
    assert row.more["norm"] == pytest.approx(detail.decoder_norm)
    assert row.more["cosine"] == pytest.approx(detail.encoder_decoder_cosine)
    assert row.more["kurtosis"] == pytest.approx(detail.kurtosis)
    assert row.more["nearest"] == pytest.approx(detail.neighbours[0].cosine)
    assert list(row.more["tokens"]) == [token for token, _ in detail.promoted[:5]]
    assert list(row.more["suppressed"]) == [token for token, _ in detail.suppressed[:5]]
    assert row.more["names"] == ("horse", "zebra")
    assert (row.more["tags"], row.more["note"]) == (("b", "a"), "striped")
    assert row.more["confidence"] == 0.9


def test_a_label_is_a_column(store: FeatureStore) -> None:
    scores = {one.label: one.auroc for one in store.detail(5).labels}
    assert store.rows([5], [f"auroc:{LABEL}"])[0].more == {f"auroc:{LABEL}": scores[LABEL]}


@pytest.mark.slow
@pytest.mark.parametrize("column", COLUMNS, ids=lambda column: column.name)
def test_every_column_sorts_all_features_those_without_a_value_last(
    store: FeatureStore, column
) -> None:
    ids = store.ids(column.sort, False)
    assert sorted(ids.tolist()) == list(range(store.meta().n_features))
    if column.is_number and column.name != "feature":
        rows = store.rows(ids, [column.name])
        values = [row.more.get(column.name, getattr(row, column.key, None)) for row in rows]
        known = [value for value in values if value is not None]
        assert known == sorted(known)
        assert values[: len(known)] == known


def test_what_people_say_sorts_too(store: FeatureStore) -> None:
    assert store.ids("confidence", True)[:2].tolist() == [5, 7]
    assert store.ids("tags", False)[:2].tolist() == [7, 5]
    assert store.ids("names", False)[:2].tolist() == [7, 5]


@pytest.mark.parametrize("name", ["colour", "auroc:", "auroc:nothing"])
def test_an_unknown_column_is_refused_by_name(store: FeatureStore, name: str) -> None:
    with pytest.raises(UserError, match=r"column|label"):
        store.rows([5], [name])


def test_the_command_line_prints_the_columns_it_is_asked_for(
    workspace: Workspace, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["features", "zebra", "--workspace", str(workspace.root)]
    assert main([*words, "--columns", f"feature,names,tags,tokens,auroc:{LABEL}"]) == 0
    printed = capsys.readouterr().out
    assert "horse, zebra" in printed
    assert "b, a" in printed
    assert "promotes" in printed
    assert main([*words, "--json"]) == 0
    [row] = json.loads(capsys.readouterr().out)
    assert row["decoder_norm"] > 0
    assert row["names"] == ["horse", "zebra"]
    assert row["promoted"]
    assert main([*words, "--columns", "colour"]) == 2
    assert "colour" in capsys.readouterr().err


def test_conditions_and_orders_take_the_new_figures(store: FeatureStore) -> None:
    from mi_crow.mechanistic.features.query_language import parse_query

    found = store.find(parse_query("std>0 nearest>0.1 sort:norm"))
    norms = [row.more["norm"] for row in store.rows(found, ["norm"])]
    assert norms
    assert norms == sorted(norms, reverse=True)
