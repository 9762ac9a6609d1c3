"""Saved inspections: kept with the annotations, listed, renamed, removed, written to files."""

import json
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from mi_crow.cli import main
from mi_crow.errors import CorruptDataError, NotFoundError, UserError
from mi_crow.mechanistic.concepts.annotations import Annotations
from mi_crow.mechanistic.concepts.annotations_inspections import KINDS
from mi_crow.mechanistic.concepts.inspection_files import as_markdown, write_inspections
from mi_crow.store.workspace import Workspace

ROW = {"feature": 7, "concept": "sails | masts", "label": "harbour", "auroc": 0.9}
TOKENS = ["The", " \x1b[31mferry"]
INSPECTED = {
    "sae_id": "tiny",
    "point": "resid_post.1",
    "tokens": TOKENS,
    "explained": [None, 0.5],
    "features": [{**ROW, "max_act": 2.5, "share": 0.4, "density": 0.01, "acts": [0.0, 2.5]}],
}
CAUSE = {**ROW, "effect": 1.5, "measured": 1.25, "share": 0.5, "tokens": [[1, 1.5]]}
RESULTS: dict[str, dict[str, Any]] = {
    "inspect": INSPECTED,
    "layers": {**INSPECTED, "saes": [INSPECTED]},
    "compare": {
        "sae_id": "tiny",
        "first": {"tokens": TOKENS},
        "second": {"tokens": TOKENS, "text": "The boat"},
        "features": [
            {
                **ROW,
                "difference": 2.5,
                "first": 2.5,
                "second": 0.0,
                "first_acts": [0.0, 2.5],
                "second_acts": [0.0, 0.0],
            }
        ],
    },
    "contrast": {
        "sae_id": "tiny",
        "texts_for": 8,
        "texts_against": 9,
        "chance": 0.7,
        "features": [
            {
                "feature": 7,
                "name": "sails | masts",
                "auroc": 0.9,
                "effect": 1.5,
                "mean_for": 2.0,
                "mean_against": 0.25,
            }
        ],
    },
    "attribute": {
        "tokens": TOKENS,
        "target": {"words": "logit of ' left'", "token": " left", "position": 1},
        "predictions": [{"token": " left", "probability": 0.75}],
        "value": 8.5,
        "saes": [
            {
                "sae_id": name,
                "point": "resid_post.1",
                "causes": [CAUSE],
                "parts": {"features": 0.5},
                "check": {"together": 1.0, "predicted_sum": -1.0, "faithfulness": None},
            }
            for name in ("tiny", "later")
        ],
        "tree": [{**CAUSE, "sae_id": "later", "children": []}],
    },
    "lens": {
        "tokens": TOKENS,
        "layers": [
            {
                "point": "resid_post.0",
                "top": [[[" left", 0.5]], [[" home", 0.25]]],
                "entropy": [1.5, 2.5],
                "kl": [0.75, 0.0],
            }
        ],
    },
    "patch": {
        "tokens": TOKENS,
        "corrupted_tokens": ["The", " boat"],
        "target": {"words": "logit of ' left' minus ' sank'"},
        "clean": 2.0,
        "corrupted": -1.0,
        "what": "resid",
        "points": ["resid_post.0"],
        "effects": [[0.0, 0.75]],
    },
}


@pytest.fixture
def annotations(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Annotations:
    workspace = Workspace.open(tmp_path / "w")
    monkeypatch.setenv("MI_CROW_WORKSPACE", str(workspace.root))
    return Annotations(workspace.annotations_path)


def keep(annotations: Annotations, name: str = "ferry", kind: Any = "inspect") -> None:
    annotations.save_inspection(
        name,
        kind,
        "The ferry",
        RESULTS[kind],
        settings={"order": "meaning"},
        model_id="sample",
        sae_ids=["tiny"],
    )


def test_what_was_saved_comes_back_and_older_files_stay_until_then(annotations) -> None:
    annotations.set_concept("tiny", 7, "sails")
    assert annotations.inspections() == []
    keep(annotations)
    found = Annotations(annotations.path).inspection("ferry")
    assert (found.results, found.settings) == (RESULTS["inspect"], {"order": "meaning"})
    assert (found.text, found.model_id, found.sae_ids) == ("The ferry", "sample", ("tiny",))
    assert [one.name for one in annotations.inspections()] == ["ferry"]
    assert annotations.concepts("tiny")[0].name == "sails"


def test_names_are_one_each(annotations) -> None:
    keep(annotations)
    keep(annotations, "boat")
    for name, words in (
        ("ferry", "already"),
        (" \n", "needs a name"),
        ("n" * 201, "201 char"),
        ("e\x1b[31m", "'e␛.31m' has control or invisible"),
        ("e\nx", "control or invisible"),
        ("e\u202ex", "control or invisible"),
    ):
        with pytest.raises(UserError, match=words):
            keep(annotations, name)
    with pytest.raises(UserError, match="already"):
        annotations.rename_inspection("ferry", "boat")
    with pytest.raises(UserError, match="control or invisible"):
        annotations.rename_inspection("ferry", "fer\nry")
    with pytest.raises(UserError, match="control or invisible"):
        annotations.save_preset("fer\nry", [])
    assert annotations.rename_inspection("ferry", "ferry") == "ferry"
    annotations.rename_inspection("ferry", "sails")
    annotations.delete_inspection("boat")
    assert [one.name for one in annotations.inspections()] == ["sails"]
    for call in (annotations.inspection, annotations.delete_inspection):
        with pytest.raises(NotFoundError, match="'boat' not found"):
            call("boat")


def test_they_follow_an_sae_to_its_new_name(annotations) -> None:
    keep(annotations, "why", "attribute")
    annotations.rename_sae("tiny", "large")
    found = annotations.inspection("why")
    assert found.sae_ids == ("large",)
    assert [one["sae_id"] for one in found.results["saes"]] == ["large", "later"]


def test_a_row_that_nobody_wrote_is_one_sentence(annotations) -> None:
    keep(annotations)
    annotations.close()
    with sqlite3.connect(annotations.path) as connection:
        connection.execute("UPDATE inspections SET results = '[1'")
    with pytest.raises(CorruptDataError, match="inspection"):
        annotations.inspection("ferry")
    annotations.close()
    with sqlite3.connect(annotations.path) as connection:
        connection.execute("DROP TABLE inspections")
        connection.execute("CREATE TABLE inspections (name TEXT, results BLOB)")
    with pytest.raises(CorruptDataError, match="inspections"):
        annotations.inspections()


@pytest.mark.parametrize("kind", KINDS)
def test_markdown_says_what_was_found_and_stays_a_table(annotations, kind: Any) -> None:
    keep(annotations, kind=kind)
    text = as_markdown(annotations.inspection("ferry"))
    assert "\x1b" not in text
    assert "## ferry" in text
    assert "- order: meaning" in text
    if kind not in ("lens", "patch"):
        assert "| 7 | sails \\| masts |" in text
    tables = [line for line in text.splitlines() if line.startswith("|")]
    assert len(tables) > 2
    if kind == "lens":
        assert "| resid_post.0 | “ left” 50.0% | “ home” 25.0% |" in tables
        assert "| resid_post.0 | 1.5 | 2.5 |" in tables
        assert "| resid_post.0 | 0.75 | 0 |" in tables


def test_markdown_of_an_attribution_says_the_question_and_names_figures_as_everywhere(
    annotations,
) -> None:
    settings = {"target": " left", "against": ["The ship.", " A boat"], "windows": True}
    annotations.save_inspection("why", "attribute", "The", RESULTS["attribute"], settings=settings)
    text = as_markdown(annotations.inspection("why"))
    for words in (
        '- target: " left"\n',
        '- against: "The ship.", " A boat"\n',
        "- windows: yes\n",
        "logit of ' left' (the likeliest) after token 1 “",
        "the model says “ left” 75.0%\n",
        "| ablated together | 1 |",
        "the prediction of the sum (-1; ablated together +1) fails here",
    ):
        assert words in text


def test_the_command_lists_shows_renames_exports_and_removes(annotations, tmp_path, capsys) -> None:
    keep(annotations)
    keep(annotations, "why", "attribute")
    assert main(["inspections"]) == 0
    out = capsys.readouterr().out
    assert "ferry" in out
    assert "attribute" in out
    assert main(["inspections", "show", "why"]) == 0
    assert "logit of ' left'" in capsys.readouterr().out
    file = tmp_path / "all.json"
    assert main(["inspections", "export", str(file)]) == 0
    assert {one["name"] for one in json.loads(file.read_text())} == {"ferry", "why"}
    assert main(["inspections", "export", str(file), "why"]) == 2
    assert "--force replaces it" in capsys.readouterr().err
    assert main(["inspections", "export", str(tmp_path / "x.pdf"), "why"]) == 2
    assert not (tmp_path / "x.pdf").exists()
    assert main(["inspections", "rename", "why", "ferry"]) == 2
    assert main(["inspections", "rename", "why", "because"]) == 0
    assert main(["inspections", "rm", "because"]) == 0
    assert main(["inspections", "show", "because"]) == 2
    assert "there is ferry" in capsys.readouterr().err


def test_results_that_are_none_cannot_become_markdown(annotations, tmp_path: Path) -> None:
    annotations.save_inspection("odd", "patch", "a", {"tokens": 3})
    with pytest.raises(CorruptDataError, match=r"export it as \.json|cannot be written"):
        write_inspections(tmp_path / "odd.md", [annotations.inspection("odd")])
    assert not (tmp_path / "odd.md").exists()
