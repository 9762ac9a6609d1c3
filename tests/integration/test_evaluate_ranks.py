"""Two processes that torchrun starts evaluate an SAE and name its features as one would."""

from pathlib import Path
from typing import Any

import pytest

from mi_crow.jobs import follow, submit
from mi_crow.jobs.spec import config_as_json
from mi_crow.language_model.capture.job import capture_run
from mi_crow.language_model.config import CaptureConfig, DatasetSpec, LiveTexts, ModelSpec
from mi_crow.mechanistic.explain.config import ExplainConfig
from mi_crow.mechanistic.features.beside.proposals import proposals_path
from mi_crow.mechanistic.features.config import IndexConfig
from mi_crow.mechanistic.sae import SaeMetadata, TopKSae
from mi_crow.mechanistic.sae.evaluation.config import EvaluateConfig
from mi_crow.store.runs.manifest import RunManifest
from mi_crow.store.workspace import Workspace

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """A run of the sample model and an SAE of more features than one process names at once."""
    workspace = Workspace.open(tmp_path_factory.mktemp("ranks") / "workspace")
    texts = DatasetSpec("sample", limit=200)
    spec = ModelSpec("sample", dtype="fp32", device="cpu")
    config = CaptureConfig(spec, texts, ("resid_post.2",), shard_size=24)
    run_id = capture_run(workspace, config).run_id
    manifest = RunManifest.load(workspace.run_dir(run_id))
    layer = manifest.layers[0]
    sae = TopKSae(4_500, layer.width, 16, seed=1)
    sae.metadata = SaeMetadata(
        model_name="sample",
        layer=layer.name,
        point="resid_post.2",
        run_id=run_id,
        tokenizer_hash=manifest.tokenizer_hash,
    )
    sae.save(workspace.make_sae_dir("sae", "sae"))
    return workspace


@pytest.fixture(autouse=True)
def _one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")


def run(workspace: Workspace, kind: str, config: Any, **launch: Any) -> dict[str, Any]:
    last = list(follow(workspace, submit(workspace, kind, config_as_json(config), **launch)))[-1]
    assert last["event"] == "finished", last
    return last["result"]


def taken(path: Path) -> bytes:
    """The content of a file, which is removed."""
    content = path.read_bytes()
    path.unlink()
    return content


def test_two_processes_make_the_files_of_one(workspace: Workspace) -> None:
    folder, two = workspace.sae_dir("sae"), {"launcher": "torchrun", "nproc": 2}
    evaluation = EvaluateConfig("sae", documents=19, device="cpu")
    alone = run(workspace, "evaluate", evaluation)
    written = taken(folder / "evaluation.json")
    assert run(workspace, "evaluate", evaluation, **two) == alone
    assert taken(folder / "evaluation.json") == written
    assert alone["probes"]

    texts = LiveTexts(DatasetSpec("sample", limit=200), shard_size=24)
    live = EvaluateConfig("sae", live=texts, documents=19, device="cpu")
    found = run(workspace, "evaluate", live)
    written = taken(folder / "evaluation.json")
    assert run(workspace, "evaluate", live, **two) == found
    assert taken(folder / "evaluation.json") == written
    assert found["documents"] == alone["documents"]

    run(workspace, "index", IndexConfig("sae", device="cpu", names=False))
    run(workspace, "explain", ExplainConfig("sae"))
    names = taken(proposals_path(workspace, "sae"))
    run(workspace, "explain", ExplainConfig("sae"), **two)
    assert taken(proposals_path(workspace, "sae")) == names
    assert not list(folder.glob(".tmp-*"))
