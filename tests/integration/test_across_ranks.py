"""Two processes that torchrun starts train, evaluate and index SAEs over several layers as one."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from mi_crow.jobs import follow, submit
from mi_crow.jobs.spec import config_as_json
from mi_crow.language_model.capture.job import capture_run
from mi_crow.language_model.config import CaptureConfig, DatasetSpec, LiveTexts, ModelSpec
from mi_crow.mechanistic.features.config import IndexConfig
from mi_crow.mechanistic.sae import CrossLayerSae, SaeTrainingConfig, load_sae
from mi_crow.mechanistic.sae.config import CLT, CROSSCODER, TrainConfig
from mi_crow.mechanistic.sae.evaluation.config import EvaluateConfig
from mi_crow.mechanistic.sae.quality import HELDOUT_TOKENS, FvuSums
from mi_crow.mechanistic.sae.source import HELDOUT
from mi_crow.mechanistic.sae.train.across.streamed import streamed_layers
from mi_crow.mechanistic.sae.train.across.tokens import LayersOfRun, open_layers
from mi_crow.progress import NullProgress
from mi_crow.store.workspace import Workspace
from tests.unit.test_features_job import tables
from tests.unit.test_features_live import corpus

pytestmark = pytest.mark.slow

LAYERS = tuple(f"{kind}.{n}" for kind in ("resid_post", "mlp_in", "mlp_out") for n in range(3))
# A batch that does not halve evenly, and latents that die.
TRAINING = SaeTrainingConfig(steps=80, batch_size=63, log_every=5, dead_tokens=200)
RESIDUAL, INPUTS = LAYERS[0:3:2], LAYERS[3:6]
CROSS = TrainConfig(
    "base",
    RESIDUAL[0],
    "batchtopk",
    n_latents=160,
    k=5,
    family=CROSSCODER,
    layers=RESIDUAL,
    training=TRAINING,
    device="cpu",
)
CONFIGS = {
    "batchtopk": CROSS,
    "topk": replace(CROSS, arch="topk"),
    "clt": replace(CROSS, family=CLT, layer=INPUTS[0], layers=INPUTS),
    "two": replace(CROSS, tuned_run="tuned"),
}
TWO = {"launcher": "torchrun", "nproc": 2}


@pytest.fixture(scope="module")
def workspace(
    tmp_path_factory: pytest.TempPathFactory, tiny_model_dir: Path, tiny_tuned_dir: Path
) -> Workspace:
    """A workspace with a run of each of two models."""
    place = tmp_path_factory.mktemp("across")
    made = Workspace.open(place / "workspace")
    texts = corpus(place, "texts", count=120)
    for name, model in (("base", tiny_model_dir), ("tuned", tiny_tuned_dir)):
        spec = ModelSpec(str(model), device="cpu")
        capture_run(made, CaptureConfig(spec, texts, LAYERS, "fp32", shard_size=24, name=name))
    return made


@pytest.fixture(autouse=True)
def _one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")


def run(workspace: Workspace, kind: str, config: Any, **launch: Any) -> dict[str, Any]:
    last = list(follow(workspace, submit(workspace, kind, config_as_json(config), **launch)))[-1]
    assert last["event"] == "finished", last
    return last["result"]


def heldout_figures(sae: CrossLayerSae, tokens: LayersOfRun) -> dict[str, float]:
    """Of the saved SAE, by the formulas, with all held-out tokens at once."""
    rows = tokens.source.sample(HELDOUT_TOKENS, 0, HELDOUT)
    pairs = zip(tokens.source.widths, tokens.source.scales, strict=True)
    units = torch.cat([torch.full((1, width), scale) for width, scale in pairs], dim=1)
    plain = rows / units
    output = sae(plain[:, : sae.n_inputs])
    norms = torch.linalg.vector_norm(rows[:, : sae.n_inputs], dim=1)
    keep = norms <= (TRAINING.outlier_factor or 0) * tokens.source.median_norm()
    found = {"l0": float((output.latents.values[keep] > 0).sum(1).float().mean())}
    for name, chosen in (("fvu", keep), ("fvu_all", torch.ones_like(keep))):
        sums = FvuSums(sae.n_outputs, torch.device("cpu"))
        own = units[:, -sae.n_outputs :]
        sums.add(rows[chosen][:, -sae.n_outputs :], output.reconstruction[chosen] * own)
        found[name] = sums.fvu()
    return found


@pytest.mark.parametrize("kind", CONFIGS)
def test_two_processes_train_and_measure_what_one_does(workspace: Workspace, kind: str) -> None:
    config = CONFIGS[kind]
    alone = run(workspace, "train", replace(config, name=f"{kind}-alone"))
    both = run(workspace, "train", replace(config, name=f"{kind}-both"), **TWO)
    assert 0.01 < alone["fvu"] < 0.99
    for name in ("fvu", "fvu_all", "l0", "dead_share", "dense_share", "outlier_share"):
        assert both[name] == pytest.approx(alone[name], rel=1e-5), name
    saes = [load_sae(workspace.sae_dir(f"{kind}-{one}")) for one in ("alone", "both")]
    for name, tensor in saes[0].weights().items():
        # Adam makes more of the last bits of a latent that hardly ever fires.
        torch.testing.assert_close(saes[1].weights()[name], tensor, atol=1e-3, rtol=0)
    assert isinstance(saes[1], CrossLayerSae)
    by_hand = heldout_figures(saes[1], open_layers(workspace, config))
    for name, figure in by_hand.items():
        assert both[name] == pytest.approx(figure, rel=1e-4), name
    if kind not in ("clt", "two"):
        return
    evaluation = EvaluateConfig(f"{kind}-both", documents=9, device="cpu")
    one = run(workspace, "evaluate", evaluation)
    assert run(workspace, "evaluate", evaluation, **TWO) == one
    assert len(one["layers"]) == len(saes[1].layers)
    assert one["l0"] == pytest.approx(both["l0"], rel=1e-4)
    assert one["fvu"] == pytest.approx(both["fvu"], rel=1e-4)


@pytest.mark.parametrize("kind", ["batchtopk", "clt", "two"])
def test_a_stream_of_two_processes_is_measured_as_by_one(
    workspace: Workspace, kind: str, tiny_model_dir: Path, tiny_tuned_dir: Path
) -> None:
    config = CONFIGS[kind]
    texts = DatasetSpec(str(workspace.root.parent / "texts.jsonl"))
    stream = CaptureConfig(ModelSpec(str(tiny_model_dir), device="cpu"), texts, config.layers)
    tuned = str(tiny_tuned_dir) if kind == "two" else None
    config = replace(config, run_id="", stream=stream, tuned_run=None, tuned_model=tuned)
    result = run(workspace, "train", replace(config, name=f"{kind}-stream"), **TWO)
    sae = load_sae(workspace.sae_dir(f"{kind}-stream"))
    assert isinstance(sae, CrossLayerSae)
    by_hand = heldout_figures(sae, streamed_layers(config, stream, NullProgress()))
    assert 0.01 < result["fvu"] < 0.98
    for name, figure in by_hand.items():
        assert result[name] == pytest.approx(figure, rel=1e-4), name
    if kind != "two":
        return
    index = IndexConfig(
        f"{kind}-stream", live=LiveTexts(texts, shard_size=24), device="cpu", names=False
    )
    run(workspace, "index", index)
    path = workspace.index_path(f"{kind}-stream")
    expected = tables(path)
    path.unlink()
    run(workspace, "index", index, **TWO)
    assert tables(path) == expected
