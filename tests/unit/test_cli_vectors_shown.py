"""`mi-crow vector` on the terminal: the list, one vector, its features and the texts along it."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mi_crow.mechanistic.concepts.annotations import Annotations
from mi_crow.mechanistic.vectors.stored import SteeringVector, load_vector, save_vector
from mi_crow.store.workspace import Workspace
from tests.helpers.index_runs import documents, save_run
from tests.helpers.printed import Say, saying
from tests.helpers.session_fixture import add_tiny_sae
from tests.helpers.steering_fixture import WIDTH
from tests.helpers.tiny_models import TEXTS, build_tokenizer


@pytest.fixture
def say(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Say:
    """What `mi-crow vector ...` prints, each run of spaces as one."""
    return saying(workspace, monkeypatch, capsys, "vector", spaced=True)


def save(workspace: Workspace, name: str, points: tuple[str, ...], made: dict[str, Any]) -> None:
    directions = {point: torch.ones(WIDTH) for point in points}
    save_vector(workspace, SteeringVector(name, directions, made))


def facts(text: str) -> dict[str, str]:
    """Lines of two columns."""
    pairs = (line.split("  ", 1) for line in text.splitlines() if "  " in line)
    return {key.strip(): value.strip() for key, value in pairs}


def test_the_list_has_the_best_auroc_of_texts_held_out(workspace: Workspace, say: Say) -> None:
    assert say("list") == "no vectors yet; mi-crow vector make makes one\n"
    layers = {
        "resid_post.0": {"auroc": 1.0, "auroc_heldout": 0.625},
        "resid_post.1": {"auroc": 1.0, "auroc_heldout": 0.75},
    }
    made = {"model_id": "m", "method": "probe", "layers": layers}
    save(workspace, "both", ("resid_post.0", "resid_post.1"), made)
    save(workspace, "own", ("resid_post.0",), {"layers": {"resid_post.0": {"auroc": 0.875}}})
    save(workspace, "bare", ("resid_post.0",), {"layers": {"resid_post.0": {"auroc": True}}})
    rows = {line.split()[0]: line.split() for line in say("list").splitlines()}
    assert rows["both"] == ["both", "resid_post.0,", "resid_post.1", "probe", "0.75", "m", "-"]
    assert rows["own"] == ["own", "resid_post.0", "0.875", "-"]
    assert rows["bare"] == ["bare", "resid_post.0", "-"]
    assert [one["name"] for one in json.loads(say("list", "--json"))] == ["bare", "both", "own"]


def test_one_vector_says_what_it_was_made_of(workspace: Workspace, say: Say) -> None:
    figures = {"auroc_heldout": 0.75, "auroc": 1.0, "max": 3.5}
    made = {
        "method": "mean",
        "for": ["label:sea", "boats.txt"],
        "texts_for": 1200,
        "against": ["label:land"],
        "run_id": "r",
        "refined": {"of": "sea", "sae": "tiny", "features": [[3, 1.0], [7, 0.5]]},
        "layers": {"resid_post.0": figures, "resid_post.1": {"max": 2.0}},
    }
    save(workspace, "sea-2", ("resid_post.0", "resid_post.1"), made)
    shown = facts(say("show", "sea-2"))
    assert shown == {
        "vector": "sea-2",
        "layers": f"resid_post.0 (width {WIDTH}), resid_post.1 (width {WIDTH})",
        "method": "mean",
        "for": "label:sea, boats.txt (1,200 texts)",
        "against": "label:land",
        "run": "r",
        "SAE": "tiny",
        "refined from": "sea",
        "features": "3, 7",
        "AUROC, held-out texts at resid_post.0": "0.75",
        "AUROC, its own texts at resid_post.0": "1",
        "greatest projection at resid_post.0": "3.5",
        "greatest projection at resid_post.1": "2",
    }
    assert json.loads(say("show", "sea-2", "--json"))["made"] == made
    save(workspace, "plain", ("resid_post.1",), {"layers": {"resid_post.1": {"max": 2.0}}})
    shown = facts(say("show", "plain"))
    assert shown == {
        "vector": "plain",
        "layers": f"resid_post.1 (width {WIDTH})",
        "greatest projection": "2",
    }
    assert "steer with it: --steer 'vector:plain=+0.3norm'" in say("show", "plain")


def test_a_vector_of_features_is_shown_as_features_with_their_names(
    workspace: Workspace, tiny_model_dir: Path, say: Say
) -> None:
    add_tiny_sae(workspace, tiny_model_dir, "tiny")
    Annotations(workspace.annotations_path).set_concept("tiny", 7, "gulls")
    assert facts(say("from-feature", "one", "7", "--sae", "tiny"))["features"] == "7"
    shown = say("show", "one", "--sae", "tiny", "--top", "1")
    rows = [line.split() for line in shown.splitlines()]
    assert ["feature", "cosine", "concept"] in rows
    assert ["feature", "coefficient", "concept"] in rows
    assert [row[0] for row in rows if row[2:] == ["gulls"]] == ["7", "7"]
    assert "together they explain 100% of it" in shown
    assert "'layer:resid_post.1' is not features" in say(
        "from-feature", "x", "layer:resid_post.1", "--sae", "tiny", code=2
    )


def test_the_texts_along_a_vector_begin_near_their_strongest_token(
    workspace: Workspace, say: Say
) -> None:
    generator = np.random.default_rng(3)
    acts = [generator.normal(size=(40, WIDTH)).astype(np.float32) for _ in TEXTS]
    docs = [
        replace(one, label="sea" if number % 2 else None)
        for number, one in enumerate(documents(build_tokenizer(), TEXTS, acts))
    ]
    save_run(workspace, docs, "0" * 16, part_documents=5)
    save(workspace, "ones", ("resid_post.1",), {})
    asked = ("texts", "ones", "--run", "run", "--top", "2")
    found = json.loads(say(*asked, "--json"))
    shown = say(*asked)
    rows = [line.split() for line in shown.splitlines()]
    places = [rows.index(row) for row in rows if row and row[0].isdigit()]
    assert [int(rows[place][0]) for place in places] == [one["document"] for one in found["texts"]]
    for place, one in zip(places, found["texts"], strict=True):
        assert float(rows[place][1]) == pytest.approx(one["projection"], rel=1e-2)
        assert ("sea" in rows[place]) == (one["label"] == "sea")
    assert f"over {found['tokens']:,} tokens: mean" in shown


def test_a_long_text_is_cut_before_its_strongest_token() -> None:
    from mi_crow.cli.commands.vectors.showing import _near
    from mi_crow.mechanistic.vectors.top_texts import TopText

    words = " ".join(f"w{n}" for n in range(200))
    one = TopText(0, 0, "sea", 3.0, 150, words, list(range(200)))
    shown = _near(one)
    assert shown.startswith("…w")
    assert shown.endswith("…")
    assert " w150 " in shown
    assert _near(replace(one, position=0)).startswith("w0 w1")


def test_a_vector_goes_out_and_comes_in_and_has_a_note(
    workspace: Workspace, tmp_path: Path, say: Say
) -> None:
    save(workspace, "ones", ("resid_post.1",), {"model_id": "m"})
    path = tmp_path / "ones.safetensors"
    assert say("export", "ones", str(path)) == f"exported vector 'ones' to {str(path)!r}\n"
    assert "exists" in say("export", "ones", str(path), code=2)
    assert facts(say("import", "again", str(path)))["vector"] == "again"
    assert "exists already" in say("import", "again", str(path), code=2)
    one, other = (load_vector(workspace, name) for name in ("ones", "again"))
    assert torch.equal(one.directions["resid_post.1"], other.directions["resid_post.1"])
    assert say("note", "again", "to sea ") == "wrote the note on vector 'again'\n"
    assert facts(say("show", "again"))["note"] == "to sea"
    assert say("note", "again", " ") == "removed the note on vector 'again'\n"
    assert "note" not in facts(say("show", "again"))
    assert json.loads(say("note", "again", "x", "--json")) == {"vector": "again", "note": "x"}
