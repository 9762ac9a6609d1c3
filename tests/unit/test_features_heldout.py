"""The AUROC that is shown is the held-out one; a label below 0.7 is not told."""

import json
from pathlib import Path

import duckdb
import pytest

from mi_crow.cli.commands.demo import show_result
from mi_crow.cli.entry import run_command_line
from mi_crow.errors import UserError
from mi_crow.mechanistic.features.queries import FeatureFilter, FeatureStore
from mi_crow.mechanistic.features.records import LEAST_AUROC
from mi_crow.store.workspace import Workspace
from tests.helpers.index_fixture import TOPICS, make_index
from tests.helpers.index_reference import Doc, auroc

SAE = "fixture-sae"


@pytest.fixture(scope="module")
def indexed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Workspace, list[Doc]]:
    workspace = Workspace.open(tmp_path_factory.mktemp("heldout") / "w")
    return workspace, make_index(workspace, SAE)


@pytest.fixture(scope="module")
def store(indexed: tuple[Workspace, list[Doc]]) -> FeatureStore:
    return FeatureStore.open(indexed[0], SAE)


def expected(docs: list[Doc], feature: int) -> tuple[str, float | None]:
    """The label chosen on training documents, and its AUROC on the others."""
    train = {label: auroc(docs, feature, label, "train") or 0.0 for label in sorted(TOPICS)}
    best = max(train, key=lambda label: train[label])
    return best, auroc(docs, feature, best, "heldout")


def test_rows_and_details_tell_the_held_out_auroc_of_the_chosen_label(
    store: FeatureStore, indexed: tuple[Workspace, list[Doc]]
) -> None:
    told = []
    for row in store.rows(range(64)):
        if not row.fires:
            assert (row.top_label, row.top_auroc) == (None, None)
            continue
        label, heldout = expected(indexed[1], row.feature)
        assert row.top_auroc == pytest.approx(heldout)
        assert row.top_label == (label if (heldout or 0) >= LEAST_AUROC else None)
        first = store.detail(row.feature).labels[0]
        assert (first.label, first.auroc) == (label, row.top_auroc)
        told.append(row.top_label is not None)
    assert any(told)
    assert not all(told)


def test_orders_filters_and_searches_go_by_what_is_told(store: FeatureStore) -> None:
    rows = {row.feature: row for row in store.rows(range(64))}
    shown = [rows[int(feature)].top_auroc for feature in store.ids("top_auroc")]
    known = [score for score in shown if score is not None]
    assert known == sorted(known, reverse=True)
    assert shown[: len(known)] == known
    told = {feature for feature, row in rows.items() if row.top_label == "cooking"}
    assert told < {
        feature for feature in rows if store.detail(feature).labels[0].label == "cooking"
    }
    assert set(store.ids(flt=FeatureFilter(label="cooking")).tolist()) == told
    best = store.ids(search="cooking").tolist()
    assert set(best[: len(told)]) == told


def test_an_index_of_the_schema_before_says_the_same(
    store: FeatureStore, indexed: tuple[Workspace, list[Doc]], tmp_path: Path
) -> None:
    workspace = Workspace.open(tmp_path / "older")
    make_index(workspace, SAE)
    with duckdb.connect(str(workspace.index_path(SAE))) as connection:
        connection.execute("DROP TABLE top_aurocs")
        connection.execute("ALTER TABLE label_aurocs DROP COLUMN auroc_heldout")
        connection.execute("UPDATE meta SET value = '2' WHERE key = 'schema_version'")
    older = FeatureStore.open(workspace, SAE)
    assert older.rows(range(64)) == store.rows(range(64))
    for sort in ("top_auroc", "top_label", "auroc:sailing"):
        assert older.ids(sort).tolist() == store.ids(sort).tolist()


def test_the_command_line_tells_one_figure(
    indexed: tuple[Workspace, list[Doc]], capsys: pytest.CaptureFixture[str]
) -> None:
    def ask(*arguments: str) -> object:
        root = str(indexed[0].root)
        assert run_command_line(["--workspace", root, "--json", *arguments, "--sae", SAE]) == 0
        return json.loads(capsys.readouterr().out)

    rows = ask("features", "--limit", "64")
    assert isinstance(rows, list)
    below = [row for row in rows if row["top_auroc"] is not None and row["top_auroc"] < LEAST_AUROC]
    assert below
    assert {row["top_label"] for row in below} == {None}
    one = ask("feature", str(below[0]["feature"]))
    assert isinstance(one, dict)
    assert one["labels"][0]["auroc"] == one["labels"][0]["auroc_heldout"] == one["top_auroc"]
    root = str(indexed[0].root)
    assert run_command_line(["--workspace", root, "feature", "1", "--sae", SAE]) == 0
    assert "cooking" not in capsys.readouterr().out  # 1.00 on training documents, 0.67 held out


def test_under_a_search_the_order_asked_for_is_the_order(
    store: FeatureStore, indexed: tuple[Workspace, list[Doc]], capsys: pytest.CaptureFixture[str]
) -> None:
    for sort in ("max_act", "density", "feature"):
        for descending in (True, False):
            found = store.ids(sort, descending, search="harbour").tolist()
            everything = store.ids(sort, descending).tolist()
            assert found == [feature for feature in everything if feature in found]
    best = store.ids(search="harbour").tolist()
    assert best == store.ids("relevance", search="harbour").tolist()
    assert best != store.ids("density", search="harbour").tolist()
    with pytest.raises(UserError, match="needs a search"):
        store.ids("relevance")

    def command(*more: str) -> list[int]:
        root = str(indexed[0].root)
        words = ["--workspace", root, "--json", "features", "--sae", SAE, "--limit", "64", *more]
        assert run_command_line(words) == 0
        return [row["feature"] for row in json.loads(capsys.readouterr().out)]

    assert command("--search", "harbour") == best
    assert command("--search", "harbour", "--sort", "relevance") == best
    by_max = store.ids("max_act", search="harbour").tolist()
    assert command("--search", "harbour", "--sort", "max") == by_max


def test_the_demo_gives_no_feature_to_a_topic_that_none_tells(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    from mi_crow.jobs.demo.measures import TopicFeature, tag_topics
    from mi_crow.mechanistic.concepts.annotations import Annotations

    topics = [TopicFeature("sailing", 3, 0.93, 5.0, 0.4), TopicFeature("law", 7, 0.55, 5.0, 0.1)]
    workspace = Workspace.open(tmp_path / "w")
    tag_topics(workspace, SAE, topics)
    named = Annotations(workspace.annotations_path).concepts(SAE)
    assert [(one.feature, one.name) for one in named] == [(3, "sailing")]
    shares = ("strength", "share_baseline", "share_steered", "share_random", "perplexity_ratio")
    steering = dict.fromkeys(shares, 0.5)
    texts = {"recipe": "add"} | dict.fromkeys(
        ("unit", "label", "prompt", "baseline", "steered"), ""
    )
    facts = dict.fromkeys(("fvu", "fvu_all", "l0", "dead_share", "ce_added", "seconds"), 1.0)
    show_result(
        facts
        | {"sae_id": SAE, "run_id": "run", "tokens": 10, "loss_recovered": 1.0}
        | {"topics": [topic.as_json() for topic in topics]}
        | {"controls": {"random_sae_auroc": 0.5, "residual_auroc": 0.5}}
        | {"steering": steering | texts | {"feature": 3}}
    )
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["sailing", "3", "0.930"] in lines
    assert ["law", "-", "0.550"] in lines
