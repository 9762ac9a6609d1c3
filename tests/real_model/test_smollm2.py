"""SmolLM2-135M from capture to steering by commands, checked as a researcher would."""

import json
import os
import subprocess
import sys
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load_file

pytestmark = pytest.mark.real_model

LAYER = "model.layers.15"
PROMPT = "The easiest way to learn a new language is"


def mi_crow(workspace: Path, *arguments: str) -> dict[str, Any]:
    """Runs one command as a user would and gives its JSON result."""
    done = subprocess.run(
        [sys.executable, "-m", "mi_crow", "--workspace", str(workspace), *arguments, "--json"],
        capture_output=True,
        text=True,
        env=os.environ | {"HF_HUB_OFFLINE": "1"},
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout)


@dataclass(frozen=True)
class Pipeline:
    """What the three commands left behind."""

    workspace: Path
    capture: dict[str, Any]
    train: dict[str, Any]
    index: dict[str, Any]


@pytest.fixture(scope="module")
def pipeline(
    tmp_path_factory: pytest.TempPathFactory, smollm2_dir: Path, real_texts_path: Path
) -> Pipeline:
    workspace = tmp_path_factory.mktemp("real") / "workspace"
    capture = mi_crow(
        workspace,
        *("capture", "--model", str(smollm2_dir), "--layer", LAYER),
        *("--dataset", str(real_texts_path), "--token-limit", "30000", "--name", "smol"),
    )
    train = mi_crow(
        workspace,
        *("train", "--run", "smol", "--layer", LAYER, "--expansion", "4", "--k", "32"),
        *("--steps", "300", "--batch-size", "1024", "--name", "smol-topk"),
    )
    index = mi_crow(workspace, "index", "--sae", "smol-topk")
    return Pipeline(workspace, capture, train, index)


def test_the_capture_holds_what_was_asked_for(pipeline: Pipeline) -> None:
    assert pipeline.capture["layers"] == [LAYER]
    assert 30_000 <= pipeline.capture["tokens"] < 31_000


def test_the_sae_reconstructs_held_out_tokens(pipeline: Pipeline) -> None:
    assert pipeline.train["fvu"] < 0.30
    assert pipeline.train["dead_share"] < 0.30
    assert pipeline.train["l0"] <= 32


def independent_tops(pipeline: Pipeline, count: int) -> dict[int, list[tuple[float, int]]]:
    """(activation, document) of each feature's strongest documents, from the files alone."""
    sae_dir = pipeline.workspace / "saes" / "smol-topk"
    cfg = json.loads((sae_dir / "cfg.json").read_text())
    limit = cfg["metadata"]["mi_crow"]["outlier_norm"]
    weights = load_file(sae_dir / "sae_weights.safetensors")
    run = pipeline.workspace / "activations" / "smol"
    best: dict[int, dict[int, float]] = defaultdict(dict)
    for tokens_file in sorted((run / "tokens").glob("part-*.parquet")):
        table = pq.read_table(tokens_file)
        owners = np.repeat(
            table["document"].to_numpy(), [len(kept) for kept in table["kept"].to_pylist()]
        )
        x = load_file(run / LAYER / f"{tokens_file.stem}.safetensors")["activations"].float()
        pre = (x - weights["b_dec"]) @ weights["W_enc"] + weights["b_enc"]
        values, indices = pre.topk(cfg["k"], dim=1)
        keep = (x.norm(dim=1) <= limit)[:, None] & (values > 0)
        rows, slots = torch.nonzero(keep, as_tuple=True)
        for feature, document, value in zip(
            indices[rows, slots].tolist(),
            owners[rows.numpy()].tolist(),
            values[rows, slots].tolist(),
            strict=True,
        ):
            if value > best[feature].get(document, 0.0):
                best[feature][document] = value
    return {
        feature: sorted(((a, d) for d, a in documents.items()), reverse=True)[:count]
        for feature, documents in best.items()
    }


def test_top_examples_are_the_highest_activations(pipeline: Pipeline) -> None:
    expected = independent_tops(pipeline, 5)
    page = mi_crow_list(pipeline, "features", "--sae", "smol-topk", "--sort", "max_act")
    checked = [row["feature"] for row in page if row["fires"] >= 50][:6]
    assert len(checked) == 6
    for feature in checked:
        detail = mi_crow(pipeline.workspace, "feature", "--sae", "smol-topk", str(feature))
        found = [example["activation"] for example in detail["examples"]][:5]
        assert found == pytest.approx([a for a, _ in expected[feature]][: len(found)], rel=1e-3)
        assert detail["max_act"] == pytest.approx(expected[feature][0][0], rel=1e-3)


def mi_crow_list(pipeline: Pipeline, *arguments: str) -> list[dict[str, Any]]:
    result: Any = mi_crow(pipeline.workspace, *arguments)
    return result["features"] if isinstance(result, dict) else result


def test_inspect_names_features_that_fire_on_the_text(pipeline: Pipeline) -> None:
    text = "A dictionary maps keys to values; raise KeyError when the key is missing."
    result = mi_crow(pipeline.workspace, "inspect", "--sae", "smol-topk", text)
    assert text in "".join(result["tokens"])
    assert result["features"]
    for row in result["features"]:
        assert len(row["acts"]) == len(result["tokens"])
        assert max(row["acts"]) == pytest.approx(row["max_act"])


def test_steering_changes_the_text_and_scale_by_one_does_not(pipeline: Pipeline) -> None:
    inspected = mi_crow(pipeline.workspace, "inspect", "--sae", "smol-topk", PROMPT)
    feature = inspected["features"][0]["feature"]

    def steer(intervention: str) -> dict[str, Any]:
        return mi_crow(
            pipeline.workspace,
            *("steer", "--sae", "smol-topk", "--feature", f"{feature}={intervention}"),
            *("--max-new-tokens", "24", "--seed", "3", PROMPT),
        )

    moved, still = steer("+1.5max"), steer("x1")
    assert moved["steered"] != moved["baseline"]
    # Not with the baseline of `moved`: that was written beside another text, and a matrix product
    # of two rows may round otherwise than one of a single row.
    assert still["steered"] == still["baseline"]


def test_evaluation_keeps_most_of_the_loss(pipeline: Pipeline) -> None:
    result = mi_crow(pipeline.workspace, "evaluate", "--sae", "smol-topk", "--documents", "16")
    assert result["ce_original"] < result["ce_reconstructed"] < result["ce_zero"]
    assert result["loss_recovered"] > 0.8
    assert result["fvu"] < 0.30
