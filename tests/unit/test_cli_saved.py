"""Presets and saved generations are listed, shown and removed from the command line."""

import json
from pathlib import Path

import pytest

from mi_crow.cli import main
from mi_crow.mechanistic.concepts.annotations import Annotations
from mi_crow.store.workspace import Workspace

STACK = [
    {"target": "feature:demo/42", "op": "add", "value": 0.8, "unit": "max", "scope": "all"},
    {"target": "layer:resid_post.2", "op": "ablate", "value": 0, "unit": "latent", "scope": "all"},
]


@pytest.fixture
def annotations(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Annotations:
    workspace = Workspace.open(tmp_path / "w")
    monkeypatch.setenv("MI_CROW_WORKSPACE", str(workspace.root))
    return Annotations(workspace.annotations_path)


def save(annotations: Annotations, prompt: str) -> int:
    return annotations.save_generation(
        model_id="sample",
        prompt=prompt,
        baseline=" goes on",
        steered=" sails \x1b[31m on",
        sae_ids=["demo"],
        weight_hashes=["ab" * 32],
        seed=7,
        settings={"temperature": 0.8, "interventions": STACK},
        metrics={"kl": 0.25},
    )


def test_presets_are_listed_shown_and_removed(annotations, capsys):
    annotations.save_preset("sails", STACK)
    annotations.save_preset("torn", [{"target": 3}])
    assert main(["presets"]) == 0
    out = capsys.readouterr().out
    assert "sails" in out
    assert "unreadable" in out
    assert main(["presets", "show", "sails"]) == 0
    out = capsys.readouterr().out
    assert "feature:demo/42 add 0.8 max" in out
    assert "layer:resid_post.2 ablate" in out
    assert main(["presets", "show", "sails", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["interventions"] == STACK
    assert main(["presets", "rm", "sails", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"removed": "sails"}
    assert [preset.name for preset in annotations.presets()] == ["torn"]
    assert main(["presets", "show", "sails"]) == 2
    assert "preset 'sails' not found" in capsys.readouterr().err


def test_generations_are_listed_shown_and_removed(annotations, capsys):
    first, second = save(annotations, "The harbour"), save(annotations, "The ferry")
    assert main(["generations", "list", "--limit", "1", "--json"]) == 0
    assert [one["id"] for one in json.loads(capsys.readouterr().out)] == [second]
    assert main(["generations", "show", str(first)]) == 0
    out = capsys.readouterr().out
    for words in ("The harbour", "goes on", "feature:demo/42 add 0.8 max", "abab", "0.25"):
        assert words in out
    assert "\x1b" not in out
    assert main(["generations", "rm", str(first)]) == 0
    assert [one.id for one in annotations.generations()] == [second]
    for number in (str(first), "9" * 30):
        assert main(["generations", "show", number]) == 2
        assert "Traceback" not in capsys.readouterr().err


def test_without_any_the_lists_say_how_to_save_one(annotations, capsys):
    for command in ("presets", "generations"):
        assert main([command]) == 0
        assert "on the Steer screen saves one" in capsys.readouterr().out
        assert main([command, "--json"]) == 0
        assert json.loads(capsys.readouterr().out) == []


def test_without_any_the_key_that_saves_is_the_users(annotations, capsys, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    (tmp_path / "mi-crow").mkdir()
    (tmp_path / "mi-crow/config.toml").write_text('[keys]\n"steer.save" = "f9"\n')
    annotations.presets()
    assert main(["generations"]) == 0
    assert "f9 on the Steer screen saves one" in capsys.readouterr().out
    assert main(["presets"]) == 0
    assert "P on the Steer screen saves one" in capsys.readouterr().out
