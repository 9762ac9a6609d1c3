"""What the flags of job commands mean, and what their results look like to people."""

from argparse import Namespace
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mi_crow.cli import main
from mi_crow.cli.commands import capture, demo, evaluate, exchange, index, jobs, train
from mi_crow.cli.commands.steer import scoring
from mi_crow.errors import UserError
from mi_crow.jobs.kinds import KINDS
from mi_crow.jobs.spec import config_as_json, config_from_json
from mi_crow.jobs.status import JobState
from mi_crow.language_model.config import CaptureConfig
from mi_crow.mechanistic.sae.config import TrainConfig
from mi_crow.mechanistic.sae.formats.exchange import ImportResult
from mi_crow.store.runs.manifest import LayerSpec
from mi_crow.store.workspace import Workspace
from tests.helpers.made_files import add_run

LAYERS = [LayerSpec("model.layers.1", "resid_post.1", 8), LayerSpec("model.layers.2", "x", 8)]


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    workspace = Workspace.open(tmp_path / "w")
    monkeypatch.setenv("MI_CROW_WORKSPACE", str(workspace.root))
    for name, layers, tokens in (("one", LAYERS[:1], 1_000_000), ("two", LAYERS, 5000)):
        add_run(workspace, name, layers=layers, tokens=tokens)
    return workspace


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """Runs a command line and gives the config of the job that it would have started."""
    jobs: list[Any] = []

    def take(workspace: Workspace, kind: str, config: Any, options: Namespace, show: Any) -> int:
        jobs.append(config_from_json(KINDS[kind].config, config_as_json(config)))
        return 0

    for module in (capture, train, index, evaluate, demo):
        monkeypatch.setattr(module, "run_job", take)

    def start(*arguments: str) -> Any:
        assert main(arguments) == 0
        return jobs.pop()

    return start


def test_capture_flags(started: Callable[..., Any], workspace: Workspace) -> None:
    config: CaptureConfig = started(
        *("capture", "--model", "org/m", "--layer", "a", "--layer", "b", "--dataset", "d"),
        *("--split", "test", "--text-field", "body", "--limit", "50", "--token-limit", "120000"),
        *("--dtype", "fp32", "--context-length", "64", "--batch-size", "8", "--revision", "main"),
        *("--offline", "--device", "cuda:1", "--seed", "3", "--name", "n", "--keep-special"),
    )
    assert config.layers == ("a", "b")
    assert (config.model.model, config.model.revision, config.model.offline) == (
        "org/m",
        "main",
        True,
    )
    assert config.model.device == "cuda:1"
    assert (config.dataset.source, config.dataset.split) == ("d", "test")
    assert (config.dataset.text_field, config.dataset.limit) == ("body", 50)
    assert config.dataset.token_limit == 120_000
    assert (config.dtype, config.context_length, config.batch_size) == ("fp32", 64, 8)
    assert (config.seed, config.name, config.keep_special) == (3, "n", True)


def test_capture_defaults_to_the_sample_model_and_texts(
    started: Callable[..., Any], workspace: Workspace
) -> None:
    config: CaptureConfig = started("capture", "--layer", "resid_post.2")
    assert (config.model.model, config.dataset.source) == ("sample", "sample")
    assert (config.dtype, config.model.device) == ("bf16", "auto")


def test_train_flags(started: Callable[..., Any], workspace: Workspace) -> None:
    config: TrainConfig = started(
        *("train", "--run", "two", "--layer", "x", "--expansion", "4", "--k", "16"),
        *("--steps", "9", "--batch-size", "64", "--lr", "1e-3", "--outlier-factor", "0"),
        *("--seed", "5", "--name", "n"),
    )
    assert (config.run_id, config.layer, config.expansion, config.k) == ("two", "x", 4.0, 16)
    assert (config.training.steps, config.training.epochs) == (9, None)
    assert (config.training.batch_size, config.training.lr, config.training.seed) == (64, 1e-3, 5)
    assert config.training.outlier_factor is None


def test_training_lasts_two_passes_but_at_least_400_steps(
    started: Callable[..., Any], workspace: Workspace
) -> None:
    assert started("train", "--run", "one").training.steps == 879  # 2 x 900,000 / 2,048
    assert started("train", "--run", "two", "--layer", "x").training.steps == 400
    assert started("train", "--run", "one", "--epochs", "3").training.epochs == 3


def test_the_only_layer_of_a_run_need_not_be_named(
    started: Callable[..., Any], workspace: Workspace, capsys: pytest.CaptureFixture[str]
) -> None:
    assert started("train", "--run", "one").layer == "model.layers.1"
    assert main(["train", "--run", "two"]) == 2
    assert "model.layers.1, model.layers.2" in capsys.readouterr().err


def test_a_run_that_another_job_makes_may_be_named_before_it_is_there(
    started: Callable[..., Any], workspace: Workspace, capsys: pytest.CaptureFixture[str]
) -> None:
    config = started("train", "--run", "later", "--layer", "x", "--after", "job")
    assert (config.run_id, config.training.epochs) == ("later", train.CLI_PASSES)
    assert main(["train", "--run", "later", "--layer", "x"]) == 2
    assert "run 'later' not found" in capsys.readouterr().err


def test_the_config_files_device_holds_unless_a_flag_says_otherwise(
    started: Callable[..., Any], workspace: Workspace
) -> None:
    assert main(["config", "set", "device", "cpu"]) == 0
    assert started("train", "--run", "one").device == "cpu"
    assert started("train", "--run", "one", "--device", "mps").device == "mps"


def test_an_sae_must_be_named_when_there_is_none_or_more_than_one(
    started: Callable[..., Any], workspace: Workspace, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["index"]) == 2
    assert "has no SAE" in capsys.readouterr().err
    for name in ("a", "b"):
        cfg = '{"architecture": "topk", "d_in": 8, "d_sae": 64, "metadata": {}}'
        (workspace.make_sae_dir(name, "") / "cfg.json").write_text(cfg)
    assert main(["evaluate"]) == 2
    assert "choose one with --sae: a, b" in capsys.readouterr().err
    assert started("index", "--sae", "b", "--top-examples", "5").top_examples == 5
    assert started("evaluate", "--sae", "a", "--documents", "32").documents == 32


def test_the_demo_takes_a_fresh_workspace(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, workspace: Workspace
) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    names = []
    for _ in range(3):
        fresh = demo.fresh_workspace(None)
        assert not fresh.root.exists()
        fresh.ensure()
        names.append(fresh.root.name)
    assert names == ["mi-crow-workspace", "mi-crow-workspace-2", "mi-crow-workspace-3"]
    assert demo.fresh_workspace(str(tmp_path / "mine")).root == tmp_path / "mine"
    with pytest.raises(UserError, match="already has runs or SAEs"):
        demo.fresh_workspace(str(workspace.root))


DEMO = {
    "workspace": "/w",
    "run_id": "demo",
    "sae_id": "demo-topk",
    "tokens": 345_678,
    "seconds": 93.4,
    "fvu": 0.0812,
    "fvu_all": 0.09,
    "l0": 15.9,
    "dead_share": 0.012,
    "ce_added": 0.0213,
    "loss_recovered": 0.991,
    "topics": [
        {"label": "sea[x]", "feature": 42, "auroc": 0.981},
        {"label": "tides", "feature": 7, "auroc": 1.0},
    ],
    "controls": {"random_sae_auroc": 0.71, "residual_auroc": 0.88},
    "steering": {
        "feature": 42,
        "label": "sea",
        "strength": 1.2,
        "unit": "norm",
        "recipe": "plausible",
        "share_baseline": 0.0625,
        "share_steered": 0.53,
        "share_random": 0.03,
        "perplexity_ratio": 1.21,
        "prompt": "The letter",
        "baseline": " began well",
        "steered": "The letter sailed",
    },
}


def test_the_scores_end_with_the_command_that_lists_them(
    capsys: pytest.CaptureFixture[str],
) -> None:
    top = [{"feature": 7, "output": 0.25}]
    facts = {"features": 64, "scored": 60, "median": 0.1, "prompts": ["The"], "seconds": 2.0}
    scoring.show_result({"sae_id": "mine", "top": top, **facts})
    last = capsys.readouterr().out.splitlines()[-1].split(maxsplit=1)
    assert last == ["next", "mi-crow features --sae mine --columns feature,output --sort output"]


def test_the_demos_summary_says_everything_within_80_columns(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    demo.show_result(DEMO)
    out = capsys.readouterr().out
    assert all(len(line) <= 80 for line in out.splitlines())
    for part in ("345,678", "0.0812", "1.2%", "0.0213", "99.1%", "sea[x]", "0.981", "0.71", "53%"):
        assert part in out
    assert "1 min 33 s" in out
    lines = [line.rstrip() for line in out.splitlines()]
    assert {"sea[x]        42   0.981", "tides          7   1.000"} <= {*lines}
    assert any(line.split("  ")[0] == "baseline" and "   began well" in line for line in lines)
    assert "perplexity × 1.21" in " ".join(out.split())
    words = " ".join(out.split())
    assert (
        "feature 42 (sea) raised, within the plausible set, at 1.2 norm: on topic in 53%" in words
    )
    assert "mi-crow steer --auto --label sea" in words


def test_an_import_that_was_watched_ends_as_one_that_was_not(
    capsys: pytest.CaptureFixture[str],
) -> None:
    result = ImportResult("s", "sparsify", "topk", 8, 4, "resid_post.1", "org/m", "org/run")
    fit = {"fvu": 0.1, "fvu_all": 0.2, "l0": 3.0, "tokens": 2000, "outlier_share": 0.0}
    found = result.as_json() | fit | {"names": 5}
    exchange.show_import(found, "my texts.jsonl")
    direct = capsys.readouterr().out
    params = {"check": {"dataset": {"source": "my texts.jsonl"}}}
    jobs.show_result_of(JobState("j", "import", "finished", params=params), found)
    assert capsys.readouterr().out == direct
    assert "mi-crow index --sae s --dataset 'my texts.jsonl'" in direct
    assert "5 from Neuronpedia" in direct
    jobs.show_result_of(JobState("j", "import", "finished"), result.as_json())
    assert "mi-crow index --sae s --dataset sample" in capsys.readouterr().out


def test_the_result_of_each_command_names_the_next_step(
    capsys: pytest.CaptureFixture[str],
) -> None:
    captured = {"run_id": "r", "layers": ["l"], "tokens": 5, "documents": 2, "bytes": 10}
    extent = {"seconds": 1.0, "padding_share": 0.031, "rounding_fvu": {"l": 0.00025}}
    capture.show_result(captured | extent)
    out = capsys.readouterr().out
    assert "mi-crow train --run r --layer l" in out
    assert "3.1%" in out
    assert "FVU 0.00025 at l" in out
    several = {"layers": ["l", "m.2"], "points": ["l", "resid_post.2"]}
    capture.show_result(captured | extent | several | {"rounding_fvu": {"m.2": 0.1}})
    out = capsys.readouterr().out
    assert "l, resid_post.2 (m.2)" in out
    assert "FVU 0.1 at resid_post.2" in out
    several = {"layers": ["m.2"], "points": ["resid_post.2"]}
    capture.show_result(captured | extent | several | {"rounding_fvu": {}})
    assert "mi-crow train --run r --layer resid_post.2" in capsys.readouterr().out
    quality = {"fvu": 0.1, "fvu_all": 0.2, "outlier_share": 0.01, "l0": 32.0, "dead_share": 0.1}
    train.show_result({"sae_id": "s", "steps": 9, "tokens": 99, "seconds": 1.0} | quality)
    assert "mi-crow index --sae s" in capsys.readouterr().out
    index.show_result({"sae_id": "s", "features": 8, "tokens": 9, "bytes": 1, "seconds": 1.0})
    assert "mi-crow features --sae s" in capsys.readouterr().out
    losses = {"ce_original": 3.0, "ce_reconstructed": 3.1, "ce_zero": 8.0, "kl": 0.1}
    rest = {"explained_variance": 0.9, "dense_share": 0.0, "loss_recovered": 0.98}
    probes = {"probes": {"latents": {"1": 0.9, "5": 0.95}, "raw": {"auroc": 0.987}}}
    evaluate.show_result(quality | losses | rest | probes)
    out = capsys.readouterr().out
    assert "loss recovered" in out
    assert "98%" in out
    lines = [line.split() for line in out.splitlines()]
    assert ["probe", "k=1", "k=5", "all"] in lines
    assert ["latents,", "AUROC", "0.9", "0.95", "-"] in lines
    assert ["activations,", "AUROC", "-", "-", "0.987"] in lines
