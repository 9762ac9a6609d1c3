"""Evaluations and names that several processes make together are those of a single one."""

import json
from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from mi_crow.errors import UserError
from mi_crow.language_model import LanguageModel
from mi_crow.language_model.capture.job import capture_run
from mi_crow.language_model.config import CaptureConfig, DatasetSpec, ModelSpec
from mi_crow.mechanistic.explain import job as naming
from mi_crow.mechanistic.explain.config import ExplainConfig
from mi_crow.mechanistic.explain.job import explain_features
from mi_crow.mechanistic.features.beside.proposals import proposals_path
from mi_crow.mechanistic.sae import quality
from mi_crow.mechanistic.sae.evaluation.config import EvaluateConfig
from mi_crow.mechanistic.sae.evaluation.evaluate import evaluate_sae
from mi_crow.ranks import Ranks
from mi_crow.share import WHOLE, shared
from mi_crow.store import RunManifest, Workspace
from tests.helpers.index_fixture import make_index
from tests.helpers.index_runs import identity_sae, save_sae
from tests.helpers.thread_ranks import in_threads
from tests.helpers.tiny_models import TEXTS


def test_rows_are_added_as_one_process_adds_them(tmp_path: Path) -> None:
    rows = np.random.default_rng(0).normal(size=(23, 3)) * 10.0 ** np.arange(-11, 12)[:, None]
    alone = WHOLE.sum_in_order(dict(enumerate(rows)), 3)

    def work(ranks: Ranks) -> np.ndarray:
        with shared(ranks, tmp_path, "sums") as share:
            return share.sum_in_order(dict(share.own(rows)), 3)

    for found in in_threads(work, 3):
        assert_array_equal(found, alone)
    assert not list(tmp_path.iterdir())


@pytest.fixture
def evaluated(
    workspace: Workspace, tiny_model_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> tuple[Workspace, str]:
    """A run with labels in several parts, an SAE of it, and its evaluation by one process."""
    rows = [{"text": f"{n}: {TEXTS[n % 12]}", "label": "ab"[n % 2]} for n in range(90)]
    texts = tmp_path / "texts.jsonl"
    texts.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    model, source = ModelSpec(str(tiny_model_dir), device="cpu"), DatasetSpec(str(texts))
    config = CaptureConfig(
        model, source, ("resid_post.1",), dtype="fp32", shard_size=20, name="run"
    )
    capture_run(workspace, config)
    save_sae(workspace, identity_sae(RunManifest.load(workspace.run_dir("run")).tokenizer_hash))
    monkeypatch.setattr(quality, "BATCH", 100)
    evaluate_sae(workspace, EvaluateConfig("sae", device="cpu", batch_size=2))
    return workspace, (workspace.sae_dir("sae") / "evaluation.json").read_text()


def test_an_evaluation_is_the_same_to_the_last_bit(
    evaluated: tuple[Workspace, str], tiny_model_dir: Path
) -> None:
    workspace, alone = evaluated
    path = workspace.sae_dir("sae") / "evaluation.json"
    path.unlink()
    models = [LanguageModel.from_spec(ModelSpec(str(tiny_model_dir), device="cpu")) for _ in "123"]
    config = EvaluateConfig("sae", device="cpu", batch_size=2)

    def work(ranks: Ranks) -> dict[str, object]:
        return evaluate_sae(workspace, config, lm=models[ranks.rank], ranks=ranks)

    first, *others = in_threads(work, 3)
    assert path.read_text() == alone
    assert first["probes"]
    assert others == [{}, {}]
    assert [one.name for one in path.parent.iterdir() if one.name.startswith(".tmp")] == []


@pytest.mark.slow
def test_names_are_the_same(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    make_index(workspace, "sae", n_documents=120)
    monkeypatch.setattr(naming, "_FEATURES_AT_ONCE", 7)
    path = proposals_path(workspace, "sae")
    alone = explain_features(workspace, ExplainConfig("sae"))
    names = path.read_bytes()
    path.unlink()
    found = in_threads(lambda ranks: explain_features(workspace, ExplainConfig("sae"), None, ranks))
    assert path.read_bytes() == names
    for one in found:
        assert one.as_json() | {"seconds": 0} == alone.as_json() | {"seconds": 0}


def test_what_is_wrong_is_said_by_every_process(workspace: Workspace) -> None:
    save_sae(workspace, identity_sae("f" * 16))
    with pytest.raises(UserError, match="run 'run'"):
        in_threads(lambda ranks: evaluate_sae(workspace, EvaluateConfig("sae"), ranks=ranks))
