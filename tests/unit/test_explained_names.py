"""A name from a chat model is shown, found and ordered by its own scores, not by another's."""

import json
from pathlib import Path

import pytest

from mi_crow.cli import main
from mi_crow.cli.commands.meaning.feature_rows import print_rows
from mi_crow.mechanistic.concepts.annotations import Annotations
from mi_crow.mechanistic.concepts.coverage import FactsOf
from mi_crow.mechanistic.explain.config import ExplainConfig
from mi_crow.mechanistic.explain.job import explain_features
from mi_crow.mechanistic.features.beside.explanations import explanations_path, write_explanations
from mi_crow.mechanistic.features.queries import FeatureStore
from mi_crow.mechanistic.features.query_language import parse_query
from mi_crow.mechanistic.features.records import Explanation, auroc_text
from mi_crow.store.workspace import Workspace
from tests.helpers.index_fixture import make_index

SAE = "fixture-sae"


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    found = Workspace.open(tmp_path_factory.mktemp("explained") / "w")
    make_index(found, SAE, n_documents=120)
    explain_features(found, ExplainConfig(SAE))
    said = [
        Explanation(0, "utter nonsense", "llm", 0, True, detection=0.31, fuzzing=0.4),
        Explanation(1, "rather good", "llm", 0, True, detection=0.9, fuzzing=0.8),
        Explanation(2, "not scored", "llm", 0, False),
    ]
    built_at = FeatureStore.open(found, SAE).meta().built_at
    write_explanations(explanations_path(found, SAE), said, built_at)
    return found


def test_neither_score_nor_kind_of_the_other_name_is_shown(workspace: Workspace) -> None:
    store = FeatureStore.open(workspace, SAE)
    assert store.detail(0).proposal is not None  # the other name
    rows = store.rows([0, 1, 2, 3], ["score", "kind", "detection", "fuzzing"])
    assert [row.more["score"] for row in rows[:3]] == [None] * 3
    assert [row.more["kind"] for row in rows[:3]] == [""] * 3
    assert rows[3].more["score"] is not None
    assert rows[3].more["kind"]
    assert (rows[0].proposed, rows[0].explainer, rows[0].detection) == (
        "utter nonsense",
        "llm",
        pytest.approx(0.31),
    )
    assert [row.more["fuzzing"] for row in rows] == pytest.approx([0.4, 0.8, None, None])


def test_the_score_of_an_accepted_name_stays_beside_it(
    workspace: Workspace,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("COLUMNS", "160")  # no title is cut
    annotations = Annotations(tmp_path / "a.sqlite")
    plain = FeatureStore.open(workspace, SAE).rows([3], ["score"])[0]
    annotations.set_concept(SAE, 0, "utter nonsense")
    annotations.set_concept(SAE, 1, "my own")
    annotations.set_concept(SAE, 3, plain.proposed)
    annotations.set_concept(SAE, 4, "mine too")
    store = FeatureStore.open(workspace, SAE, annotations)
    rows = store.rows([0, 1, 3, 4], ["score"])
    assert [row.accepted for row in rows] == [True, False, True, False]
    assert [row.detection for row in rows] == [pytest.approx(0.31), None, None, None]
    assert [row.proposed for row in rows] == [""] * 4
    print_rows(rows)
    title, _, *lines = capsys.readouterr().out.splitlines()
    assert title.split()[-1] == "score"
    assert [line.split()[-1] for line in lines] == [
        "-",
        "-",
        auroc_text(rows[2].more["score"]),
        "-",
    ]
    facts = FactsOf(store, [0, 1, 3, 4])
    assert facts[0].is_scored("utter nonsense")
    assert (facts[0].score, facts[0].explained) == (pytest.approx(0.31), True)
    assert not facts[1].is_scored("my own")
    assert facts[3].is_scored(plain.proposed)
    assert facts[3].score == pytest.approx(rows[2].more["score"])


def test_features_are_found_and_ordered_by_detection(workspace: Workspace) -> None:
    store = FeatureStore.open(workspace, SAE)
    assert store.find(parse_query("detection>0.7")).tolist() == [1]
    assert store.find(parse_query("sort:detection"))[:2].tolist() == [1, 0]
    assert store.find(parse_query("fuzzing<0.5")).tolist() == [0]
    kind = store.detail(0).proposal
    assert kind is not None
    assert 0 not in store.find(parse_query(f"kind:{kind.kind}")).tolist()
    # A name that tells nothing leaves everything to be explained.
    values = store.rows([0, 1, 2], ["value"])
    fires = [row.fires for row in values]
    told = [row.more["value"] for row in values]
    assert told == pytest.approx([fires[0], fires[1] * (1 - 0.8), fires[2]], rel=1e-5)


def test_the_command_line_prints_the_score_of_the_name(
    workspace, capsys, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "120")
    at = ["--workspace", str(workspace.root), "--sae", SAE]
    assert main(["features", *at, "--sort", "detection", "--limit", "2"]) == 0
    head, *lines = [line for line in capsys.readouterr().out.splitlines() if "  " in line][:3]
    assert "detection" in head
    assert "0.9" in lines[0]
    assert "rather good" in lines[0]
    assert main(["--json", "feature", *at, "0"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["explanation"]["detection"] == pytest.approx(0.31)
    assert said["explanation"]["explainer"] == "llm"
    page = tmp_path / "page.html"
    assert main(["report", *at, "--feature", "0", str(page)]) == 0
    assert "utter nonsense (by llm, detection 0.310, fuzzing 0.400)" in page.read_text()
