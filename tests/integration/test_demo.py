"""The main job on the embedded default: `mi-crow demo` reaches the figures it promises."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def summary(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """One run of the demo from an unrelated folder, as after a plain install."""
    folder = tmp_path_factory.mktemp("demo")
    done = subprocess.run(
        [sys.executable, "-m", "mi_crow", "demo", "--no-tui", "--json"],
        cwd=folder,
        capture_output=True,
        text=True,
        env=os.environ | {"HF_HUB_OFFLINE": "1"},
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout)


def test_the_sae_reconstructs_and_lives(summary: dict[str, Any]) -> None:
    assert summary["tokens"] > 250_000
    assert summary["fvu"] < 0.15
    assert summary["dead_share"] < 0.15
    assert 0 < summary["l0"] <= 32
    assert summary["ce_added"] < 0.05
    assert summary["loss_recovered"] > 0.95


def test_it_says_how_long_its_index_and_its_evaluation_took(summary: dict[str, Any]) -> None:
    index, evaluation = (summary["stages"][name] for name in ("index", "evaluate"))
    assert (index["features"], index["tokens"]) == (1536, summary["tokens"])
    assert evaluation["documents"] > 0
    assert 0 < index["seconds"] + evaluation["seconds"] < summary["seconds"]


def test_topics_have_features_of_their_own(summary: dict[str, Any]) -> None:
    topics = summary["topics"]
    assert len(topics) >= 16
    good = [topic for topic in topics if topic["auroc"] >= 0.9]
    assert len(good) >= len(topics) - 2, [t for t in topics if t["auroc"] < 0.9]
    mean = sum(topic["auroc"] for topic in topics) / len(topics)
    assert mean > summary["controls"]["random_sae_auroc"]
    assert mean >= summary["controls"]["residual_auroc"]


def test_a_topic_feature_steers_generation(summary: dict[str, Any]) -> None:
    steering = summary["steering"]
    assert steering["share_steered"] >= 0.35
    assert steering["share_baseline"] <= 0.15
    assert steering["share_random"] <= 0.15
    assert steering["perplexity_ratio"] <= 1.5
    assert steering["steered"] != steering["baseline"]


def test_the_workspace_is_ready_for_the_app(summary: dict[str, Any]) -> None:
    root = Path(summary["workspace"])
    sae = root / "saes" / summary["sae_id"]
    assert (root / "activations" / summary["run_id"] / "manifest.json").is_file()
    for name in ("cfg.json", "sae_weights.safetensors", "features.duckdb", "evaluation.json"):
        assert (sae / name).is_file()
    assert not list(root.rglob(".tmp-*"))
    listed = subprocess.run(
        [sys.executable, "-m", "mi_crow", "--workspace", str(root), "concepts", "list", "--json"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert len({topic["label"] for topic in summary["topics"]}) <= len(json.loads(listed.stdout))
