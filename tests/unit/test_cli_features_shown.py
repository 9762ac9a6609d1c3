"""`mi-crow features` and `feature` on the terminal: chosen columns, proposals, explanations."""

import json

import numpy as np
import pytest

from mi_crow.mechanistic.concepts.annotations import Annotations
from mi_crow.mechanistic.features.beside.explanations import explanations_path, write_explanations
from mi_crow.mechanistic.features.beside.proposals import (
    Proposals,
    proposals_path,
    write_proposals,
)
from mi_crow.mechanistic.features.queries import FeatureStore
from mi_crow.mechanistic.features.records import Explanation
from mi_crow.store.workspace import Workspace
from tests.helpers.index_fixture import make_index
from tests.helpers.printed import Say, saying

SAE = "s"


@pytest.fixture
def say(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Say:
    """What a command prints, each run of spaces as one."""
    make_index(workspace, SAE)
    return saying(workspace, monkeypatch, capsys)


def built_at(workspace: Workspace) -> float:
    store = FeatureStore.open(workspace, SAE, Annotations(workspace.annotations_path))
    return store.meta().built_at


def test_the_columns_that_were_asked_for_are_shown(workspace: Workspace, say: Say) -> None:
    annotations = Annotations(workspace.annotations_path)
    annotations.set_concept(SAE, 3, "tide", 0.5)
    annotations.set_concept(SAE, 3, "flood", 0.75)
    one = next(row for row in json.loads(say("features", "--limit", "64", "--json"))
               if row["feature"] == 3)  # fmt: skip
    shown = say(
        "features", "--limit", "64", "--columns", "feature,fires,density,names,meaning,label"
    )
    row = next(line for line in shown.splitlines() if line.startswith("3 "))
    percent = row.split()[2]
    assert row == f"3 {one['fires']} {percent} flood, tide flood {one['top_label']}"
    assert float(percent.rstrip("%")) == pytest.approx(100 * one["density"], rel=0.01)
    assert "no column is named" in say("features", "--columns", " , ", code=2)


def test_an_order_by_what_nothing_has_is_said_to_be_none(say: Say) -> None:
    told = "in no order: no feature has a value of output: mi-crow steer scores measures it\n"
    for ordered in (("--sort", "output"), ("sort:output",)):
        assert say("features", *ordered).endswith(told)
    assert "in no order" not in say("features", "--sort", "max")


def test_a_query_may_begin_with_what_it_excludes(workspace: Workspace, say: Say) -> None:
    Annotations(workspace.annotations_path).set_concept(SAE, 3, "tide")
    assert say("features", "--columns", "feature", "named:yes").split()[-1] == "3"
    shown = say("features", "-named:no", "--columns", "feature", "--json")
    assert [row["feature"] for row in json.loads(shown)] == [3]
    assert "unrecognized arguments: -sae" in say("features", "-sae", SAE, code=2)


def test_a_proposed_name_says_what_it_is_worth(workspace: Workspace, say: Say) -> None:
    of: dict[int, tuple[str, str, float, float, int]] = {
        2: ("gulls", "token", np.nan, np.nan, 2),
        3: ("sea", "label", 0.75, 0.5, 1200),
    }
    rows = [of.get(feature, ("", "unclear", np.nan, np.nan, 0)) for feature in range(64)]
    names, kinds, scores, chances, firings = zip(*rows, strict=True)
    found = Proposals(
        feature=np.arange(64, dtype=np.int32),
        name=names,
        kind=kinds,
        score=np.array(scores, np.float32),
        chance=np.array(chances, np.float32),
        hits=np.zeros(64, np.float32),
        false_alarms=np.zeros(64, np.float32),
        firings=np.array(firings, np.int32),
        words=[[]] * 64,
        around=[[]] * 64,
    )
    assert "proposed" not in say("feature", "1")
    write_proposals(proposals_path(workspace, SAE), found, built_at(workspace))
    assert "proposed nothing stands out (unclear)\n" in say("feature", "1")
    assert "proposed gulls (token; fires too rarely to be scored)\n" in say("feature", "2")
    said = "proposed sea (label; AUROC 0.75 on 1,200 unseen firings, another's name 0.5)\n"
    assert said in say("feature", "3")
    told = say("concepts", "tag", "feature:1-3", "#wet")
    assert told == "2 features tagged, 2 by the proposed name, 1 without a name left out\n"
    annotations = Annotations(workspace.annotations_path)
    found = {one.name: (one.confidence, one.source) for one in annotations.concepts(SAE)}
    assert found == {"gulls": (0.5, "auto"), "sea": (0.75, "auto")}


def test_an_explanation_stands_with_its_scores(workspace: Workspace, say: Say) -> None:
    some = [
        Explanation(
            *(3, "boats \x1b[31m", "rules", 0, True),
            detection=0.75,
            shuffled=0.5,
            intruder=0.4,
            intruder_interval=0.125,
        ),
        Explanation(4, "bread", "rules", 0, False),
    ]
    write_explanations(explanations_path(workspace, SAE), some, built_at(workspace))
    said = "explained boats ␛[31m (by rules, detection 0.75, shuffled 0.5, intruder 0.4 ± 0.12)"
    assert said in " ".join(say("feature", "3").split())
    assert "explained bread (by rules)\n" in say("feature", "4")
    assert "explained" not in say("feature", "5")
