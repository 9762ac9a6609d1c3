"""Explanations of Neuronpedia in and out again: what a model said stays with the model's name."""

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from mi_crow.cli import main
from mi_crow.mechanistic.concepts.annotations import Annotations
from mi_crow.mechanistic.concepts.exchange.dashboards import DashboardIds, export_dashboards
from mi_crow.mechanistic.concepts.exchange.publishing import uploads
from mi_crow.mechanistic.features.beside.explanations import explanations_path, write_explanations
from mi_crow.mechanistic.features.queries import FeatureStore
from mi_crow.mechanistic.features.records import Explanation
from mi_crow.mechanistic.sae import TopKSae
from mi_crow.store.workspace import Workspace, read_sae_summary
from tests.helpers.index_fixture import make_index

ROWS: list[dict[str, Any]] = [
    {
        "id": "abc1",
        "modelId": "gpt2-small",
        "layer": "10-res-jb",
        "index": "5",
        "description": "mentions of the sea",
        "authorId": "cl0",
        "typeName": "oai_token-act-pair",
        "explanationModelName": "gpt-4o-mini",
        "notes": "checked by hand",
        "createdAt": "2024-05-01T10:00:00.000000+00:00",
        "scoreV2": 0.83,
        "umap_x": None,
    },
    {
        "layer": "10-res-jb",
        "index": "5",
        "description": "mentions of the sea",
        "explanationModelName": "claude-3",
        "notes": None,
        "createdAt": "2024-06-01T10:00:00.000000+00:00",
    },
    {"layer": "10-res-jb", "index": "6", "description": "tides"},
]


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    found = Workspace.open(tmp_path / "w")
    monkeypatch.setenv("MI_CROW_WORKSPACE", str(found.root))
    TopKSae(16, 4, 2).save(found.saes_dir / "s")
    return found


def written(path: Path, rows: list[dict[str, Any]]) -> str:
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return str(path)


def test_two_explainers_with_one_text_are_one_name(workspace, tmp_path, capsys):
    path = written(tmp_path / "in.jsonl", ROWS)
    assert main(["neuronpedia", "import", path, "--sae", "s"]) == 0
    said = capsys.readouterr().out
    assert "2 new" in said
    for name in ("id", "authorId", "typeName"):  # nothing is left out without a word
        assert f"“{name}”" in said or f'"{name}"' in said
    assert "umap_x" not in said
    annotations = Annotations(workspace.annotations_path)
    sea, tides = annotations.concepts("s")
    assert sea.source == "neuronpedia:gpt-4o-mini, claude-3"
    assert (sea.confidence, sea.note) == (0.83, "checked by hand")
    assert sea.created == 1714557600.0
    assert tides.source == "neuronpedia"
    # And out again: each model has its row; a second time in changes nothing.
    out = tmp_path / "out.jsonl"
    where = ["--model-id", "gpt2-small", "--source-id", "10-res-jb"]
    assert main(["concepts", "export", str(out), "--sae", "s", *where]) == 0
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    known = [(one["index"], one["description"], one["explanationModelName"]) for one in rows]
    assert known == [
        ("5", "mentions of the sea", "gpt-4o-mini"),
        ("5", "mentions of the sea", "claude-3"),
        ("6", "tides", None),
    ]
    assert rows[0]["createdAt"] == ROWS[0]["createdAt"]
    assert len({one["id"] for one in rows}) == 3
    capsys.readouterr()
    assert main(["neuronpedia", "import", str(out), "--sae", "s"]) == 0
    said = capsys.readouterr().out
    assert "2 unchanged" in said
    assert "not read" not in said
    assert annotations.concepts("s") == [sea, tides]


def test_notes_that_are_damaged_are_those_of_one_row(workspace, tmp_path, capsys):
    bad = ROWS[2] | {"index": "4", "notes": '{"mi_crow: hello'}
    path = written(tmp_path / "in.jsonl", [ROWS[2], bad, ROWS[0]])
    assert main(["neuronpedia", "import", path, "--sae", "s"]) == 2
    said = capsys.readouterr().err
    assert "row 2 of" in said
    assert "notes is not valid JSON" in said
    assert main(["neuronpedia", "import", path, "--sae", "s", "--skip-bad"]) == 0
    assert {one.feature for one in Annotations(workspace.annotations_path).concepts("s")} == {5, 6}


def test_explanations_by_a_chat_model_go_out_with_its_name(tmp_path: Path) -> None:
    workspace = Workspace.open(tmp_path / "w")
    make_index(workspace, "one")
    store = FeatureStore.open(workspace, "one")
    said = Explanation(0, "boats at sea", "gpt-4o-mini", 0, True, detection=0.75, fuzzing=0.5)
    write_explanations(explanations_path(workspace, "one"), [said], store.meta().built_at)
    store.reopen()
    folder = tmp_path / "out"
    export_dashboards(store, [0, 1], folder, DashboardIds("m", "1-x"), proposed=True)
    data = gzip.decompress((folder / "explanations" / "batch-0.jsonl.gz").read_bytes())
    rows = [json.loads(line) for line in data.splitlines()]
    [first] = rows
    assert (first["description"], first["explanationModelName"]) == ("boats at sea", "gpt-4o-mini")
    assert first["notes"] == "explained with mi-crow: detection 0.75, fuzzing 0.50"
    assert first["scoreV2"] == 0.75
    sae = read_sae_summary(workspace.sae_dir("one"))
    (sae.path / "sae_weights.safetensors").touch()
    names = [one.name for one in uploads(sae, [], {}, index=True)]
    assert "explanations.parquet" in names
