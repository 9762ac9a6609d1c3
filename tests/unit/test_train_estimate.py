"""What a training will take: counted from its settings, and by the speed of earlier ones."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from mi_crow.cli import main
from mi_crow.language_model.outline import Outline
from mi_crow.mechanistic.sae.config import SaeTrainingConfig, TrainConfig
from mi_crow.mechanistic.sae.estimate.training import expected_time, training_cost
from mi_crow.store.runs.manifest import LayerSpec, RunManifest
from mi_crow.store.workspace import Workspace
from tests.helpers.made_files import add_run
from tests.helpers.steering_fixture import tiny_sae

MODEL = Outline(4, 8, file_bytes=4000, tensors={"embed_tokens.weight": (100, 8)})
CONFIG = TrainConfig("run", "a", k=4, training=SaeTrainingConfig(steps=10, batch_size=100))


@pytest.fixture
def run(workspace: Workspace) -> RunManifest:
    add_run(workspace, layers=(LayerSpec("a", "resid_post.1", 8),), tokens=5000)
    return RunManifest.load(workspace.run_dir("run"))


def test_an_sae_of_each_width_is_counted(run: RunManifest) -> None:
    one = training_cost(CONFIG, 8, run, None)
    assert (one.tokens, one.latents, one.work) == (1000, (64,), 1000 * 8 * 64)
    assert one.disk == 4 * (2 * 8 * 64 + 64 + 8)
    assert one.operations == {"encoding": 2 * one.work}
    both = training_cost(replace(CONFIG, sweep_k=(2, 4)), 8, run, None)
    assert (both.work, both.disk) == (2 * one.work, 2 * one.disk)


def test_whitening_takes_its_covariance(run: RunManifest) -> None:
    plain = training_cost(CONFIG, 8, run, None)
    config = replace(CONFIG, training=replace(CONFIG.training, whiten=True))
    found = training_cost(config, 8, run, None)
    assert found.whitening_memory == found.memory - plain.memory > 0
    assert found.checkpoints > plain.checkpoints
    assert found.operations["whitening"] > 2 * 131_072 * 8 * 8
    assert found.disk == plain.disk  # it is folded back


def test_a_finetune_takes_its_model(run: RunManifest) -> None:
    plain = training_cost(CONFIG, 8, run, MODEL)
    found = training_cost(replace(CONFIG, init="sae", finetune="kl"), 8, run, MODEL)
    assert plain.model_memory == 0
    assert found.model_memory == found.memory - plain.memory > MODEL.file_bytes
    # Four passes over the tokens, and what is measured before and after.
    assert found.operations["the model"] > 4 * 2 * 100 * 8 * found.tokens


def test_the_time_of_a_finetune_is_not_that_of_a_training(
    workspace: Workspace, run: RunManifest
) -> None:
    folder = workspace.saes_dir / "one"
    tiny_sae(model="sample").save(folder)
    told = {"config": {"arch": "topk"}, "result": {"tokens": 2000, "seconds": 4.0}}
    (folder / "training.json").write_text(json.dumps(told))
    saes = [replace(one, model_id=run.model_id) for one in workspace.list_saes()]
    config = replace(CONFIG, init="one", finetune="kl")
    cost = training_cost(config, 8, run, MODEL)
    captured = replace(run, seconds=10.0)  # 5,000 tokens
    before = expected_time(config, cost, saes, captured)
    assert before is not None
    assert (before.seconds, before.at_least) == (4 * 1000 * 10 / 5000, True)
    told["config"]["finetune"] = "kl"
    (folder / "training.json").write_text(json.dumps(told))
    after = expected_time(config, cost, saes, captured)
    assert after is not None
    assert (after.seconds, after.why) == (2.0, "as measured on 1 finetune")
    assert expected_time(CONFIG, training_cost(CONFIG, 8, run, None), saes, captured) is None


def test_the_command_counts_without_training(
    workspace: Workspace, run: RunManifest, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["train", "--run", "run", "--workspace", str(workspace.root), "--estimate", "--json"]
    capsys.readouterr()
    assert main([*command, "--init", "nothing"]) == 2
    assert "'nothing'" in capsys.readouterr().err
    assert main([*command, "--steps", "7", "--whiten"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["steps"], found["measured_seconds"]) == (7, None)
    assert found["seconds"].keys() == {"encoding", "whitening"}
    assert not workspace.saes_dir.exists()


def test_a_stream_of_an_unknown_model_says_what_is_missing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["train", "--stream", "--model", str(tmp_path / "none"), "--layer", "resid_post.1"]
    assert main([*command, "--workspace", str(tmp_path / "ws"), "--estimate"]) == 2
    assert "the width of 'resid_post.1' is not known" in capsys.readouterr().err
