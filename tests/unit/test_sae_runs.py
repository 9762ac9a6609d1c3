"""Training and evaluating from a captured run: the folders, the figures, the refusals."""

import hashlib
import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from torch import Tensor, nn

from mi_crow.errors import CancelledError, NotFoundError, UserError
from mi_crow.language_model import HookPoint
from mi_crow.mechanistic.sae import (
    EvaluateConfig,
    SaeTrainer,
    SaeTrainingConfig,
    TopKSae,
    TrainConfig,
    load_sae,
)
from mi_crow.mechanistic.sae.evaluation.evaluate import evaluate_sae
from mi_crow.mechanistic.sae.train.run import TrainResult, train_run
from mi_crow.store import LocalStore, RunManifest, Workspace
from mi_crow.store.runs.manifest import LayerSpec, PartSpec
from mi_crow.store.runs.parts import DOCUMENT_SCHEMA, stored_rows, write_part
from tests.helpers.progress import Watched

VOCABULARY, WIDTH = 12, 8
TRAINING = SaeTrainingConfig(steps=60, batch_size=64, checkpoint_every=20, log_every=10)
CONFIG = TrainConfig("run", "resid_post.0", expansion=4, k=4, training=TRAINING, name="sae")


class TinyModel(nn.Module):
    """Embedding, one block, head: enough to have a hook point."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.embed = nn.Embedding(VOCABULARY, WIDTH)
        self.block = nn.Linear(WIDTH, WIDTH)
        self.head = nn.Linear(WIDTH, VOCABULARY)

    def forward(self, input_ids: Tensor, **_: Any) -> SimpleNamespace:
        return SimpleNamespace(logits=2 * self.head(torch.tanh(self.block(self.embed(input_ids)))))


@pytest.fixture
def lm() -> Any:
    """Stands for a LanguageModel whose block is a Linear, so that activations vary a little."""

    def resolve(name: str | HookPoint, _point: str = "") -> HookPoint:
        if isinstance(name, HookPoint):
            return name
        return HookPoint("block" if name == "resid_post.0" else name, name, "output")

    return SimpleNamespace(
        model=TinyModel(),
        device=torch.device("cpu"),
        model_id="tiny",
        tokenizer_hash="hash",
        layers=SimpleNamespace(
            resolve=resolve, stored=resolve, width=lambda name: 8, known_layout=lambda _: "rows"
        ),
    )


def documents(first: int, count: int) -> list[dict[str, Any]]:
    generator = torch.Generator().manual_seed(first)
    rows = []
    for number in range(first, first + count):
        text = f"document {number}"
        digest = int(hashlib.sha256(text.encode()).hexdigest(), 16)
        length = int(torch.randint(4, 20, (), generator=generator))
        ids = torch.randint(1, VOCABULARY, (length,), generator=generator)
        rows.append(
            {
                "document": number,
                "text": text,
                "label": "odd" if int(ids[1]) % 2 else "even",
                "split": "heldout" if digest % 10 == 0 else "train",
                "token_ids": [0, *ids.tolist()],
                "kept": list(range(1, length + 1)),
            }
        )
    return rows


@pytest.fixture
def workspace(tmp_path: Path, lm: Any) -> Workspace:
    """A workspace with one complete run of two parts, captured at the tiny model's block."""
    workspace = Workspace.open(tmp_path / "workspace")
    run_dir = workspace.make_run_dir("run", "run")
    manifest = RunManifest(
        run_id="run",
        model_id="tiny",
        revision="main",
        tokenizer_hash="hash",
        layers=[LayerSpec("block", "resid_post.0", WIDTH)],
        dtype="fp32",
        dataset={},
        fingerprint="",
        settings={"context_length": 20},
        created=0.0,
        status="complete",
    )
    noise = torch.Generator().manual_seed(0)
    for index in range(2):
        rows = documents(200 * index, 200)
        tokens = torch.cat([torch.tensor(row["token_ids"])[row["kept"]] for row in rows])
        with torch.no_grad():
            x = lm.model.block(lm.model.embed(tokens))
        x = x + 0.05 * torch.randn(x.shape, generator=noise)
        x[::101] *= 200  # massive tokens
        part = PartSpec(0, index, len(rows), len(tokens))
        table = pa.Table.from_pylist(rows, DOCUMENT_SCHEMA)
        write_part(run_dir, part, table, {"block": stored_rows(x, "fp32")})
        manifest.parts.append(part)
    manifest.save(run_dir)
    return workspace


def test_a_training_job_leaves_a_whole_sae(workspace: Workspace) -> None:
    result = train_run(workspace, CONFIG)
    folder = workspace.sae_dir("sae")
    assert sorted(entry.name for entry in folder.iterdir()) == [
        "cfg.json",
        "metrics.parquet",
        "sae_weights.safetensors",
        "training.json",
    ]
    assert result.as_json().keys() == {
        *("sae_id", "steps", "tokens", "fvu", "fvu_all", "outlier_share", "l0", "dead_share"),
        *("seconds", "dense_share", "n_latents"),
    }
    assert (result.sae_id, result.steps, result.tokens) == ("sae", 60, 60 * 64)
    assert result.fvu < 0.7
    assert 0 < result.outlier_share < 0.03
    sae = load_sae(folder)
    assert (sae.n_latents, sae.n_inputs) == (4 * WIDTH, WIDTH)
    metadata = sae.metadata
    assert (metadata.run_id, metadata.layer, metadata.point) == ("run", "block", "resid_post.0")
    assert metadata.hook_name == "blocks.0.hook_resid_post"
    assert (metadata.model_name, metadata.revision, metadata.tokenizer_hash) == (
        *("tiny", "main", "hash"),
    )
    assert metadata.outlier_norm is not None
    assert metadata.context_size == 20
    training = json.loads((folder / "training.json").read_text())
    assert training["config"]["training"]["steps"] == 60
    assert TrainResult(**training["result"]) == result


def test_a_cancelled_job_goes_on_in_its_folder(workspace: Workspace) -> None:
    train_run(workspace, CONFIG)
    folder = workspace.make_sae_dir("again", "again")
    with pytest.raises(CancelledError):
        train_run(workspace, CONFIG, Watched(looks=33), folder)
    assert not (folder / "cfg.json").exists()
    assert (folder / "checkpoints" / "step-33").is_dir()
    result = train_run(workspace, CONFIG, None, folder)
    whole, resumed = load_sae(workspace.sae_dir("sae")), load_sae(folder)
    for name, tensor in whole.state_dict().items():
        assert torch.equal(resumed.state_dict()[name], tensor)
    assert train_run(workspace, CONFIG, None, folder) == result  # finished: nothing to do


def test_a_training_logs_what_its_metrics_file_holds(workspace: Workspace) -> None:
    events = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    train_run(workspace, replace(CONFIG, logger="tensorboard"))
    folder = workspace.sae_dir("sae")
    rows = pq.read_table(folder / "metrics.parquet").to_pylist()
    logged = events.EventAccumulator(str(folder / "tensorboard"))
    logged.Reload()
    found = [(event.step, event.value) for event in logged.Scalars("fvu")]
    assert found == [(row["step"], pytest.approx(row["fvu"], rel=1e-6)) for row in rows]
    assert len(rows) == 7


def test_a_logger_without_its_package_is_refused(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mi_crow.mechanistic.sae.train.loggers.find_spec", lambda _: None)
    with pytest.raises(UserError, match="wandb needs a package that is missing"):
        train_run(workspace, replace(CONFIG, logger="wandb"))
    assert not (workspace.saes_dir / "sae").exists()


def test_the_trainer_takes_a_store_as_the_guides_do(workspace: Workspace) -> None:
    store = LocalStore(workspace.root)
    sae = TopKSae(n_latents=32, n_inputs=WIDTH, k=4)
    history = SaeTrainer(sae).train(
        store=store,
        run_id="run",
        layer_signature="block",
        config=SaeTrainingConfig(epochs=2, batch_size=256, lr=1e-3),
    )
    for name in ("loss", "r2", "l0", "dead_features", "fvu"):
        assert len(history[name]) == len(history["step"]) > 1
    assert sae.metadata.layer == "block"
    assert sae.metadata.outlier_norm is not None


@pytest.mark.parametrize(
    ("config", "error", "words"),
    [
        (TrainConfig("nope", "block"), NotFoundError, "run 'nope' not found"),
        (TrainConfig("run", "block.9"), NotFoundError, r"layer 'block\.9' is not in run"),
        (TrainConfig("run", "block", expansion=2, k=17), UserError, "k = 17"),
        (
            TrainConfig("run", "block", training=SaeTrainingConfig(steps=1, batch_size=10**6)),
            UserError,
            "too few",
        ),
    ],
)
def test_what_cannot_work_is_refused_before_a_folder_is_made(
    workspace: Workspace, config: TrainConfig, error: type[UserError], words: str
) -> None:
    with pytest.raises(error, match=words):
        train_run(workspace, config)
    assert not workspace.saes_dir.exists()


def test_an_incomplete_run_is_refused(workspace: Workspace) -> None:
    manifest = RunManifest.load(workspace.run_dir("run"))
    manifest.status = "running"
    manifest.save(workspace.run_dir("run"))
    with pytest.raises(UserError, match="not complete"):
        train_run(workspace, CONFIG)


def test_an_evaluation_is_written_beside_the_sae(workspace: Workspace, lm: Any) -> None:
    trained = train_run(workspace, CONFIG)
    result = evaluate_sae(workspace, EvaluateConfig("sae", documents=20), lm=lm)
    written = json.loads((workspace.sae_dir("sae") / "evaluation.json").read_text())
    assert written == result
    for name in ("fvu", "fvu_all", "outlier_share", "l0", "dead_share"):
        assert result[name] == pytest.approx(getattr(trained, name))
    assert result["explained_variance"] == pytest.approx(1 - trained.fvu)
    original, rebuilt, zero = (result[f"ce_{x}"] for x in ("original", "reconstructed", "zero"))
    recovered = (zero - rebuilt) / (zero - original) if zero > original else None
    assert result["loss_recovered"] == pytest.approx(recovered)
    assert result["ce_added"] == pytest.approx(rebuilt - original)
    assert result["kl"] > 0
    assert 0 <= result["dense_share"] <= 1
    assert result["documents"] == 20
    assert result["probes"]["labels"] == 2
    for side in ("latents", "residual"):
        assert result["probes"][side].keys() == {"1", "2", "5"}
        assert all(0.3 < score <= 1 for score in result["probes"][side].values())
    again = evaluate_sae(workspace, EvaluateConfig("sae", documents=20), lm=lm)
    assert again == result


def test_an_unknown_sae_cannot_be_evaluated(workspace: Workspace, lm: Any) -> None:
    with pytest.raises(NotFoundError, match="SAE 'none' not found"):
        evaluate_sae(workspace, EvaluateConfig("none"), lm=lm)
