"""Training jobs that make several SAEs, start from one, or read two layers of a run."""

import json
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pytest
import torch

from mi_crow.errors import CancelledError, UserError
from mi_crow.mechanistic.sae import SaeTrainer, SaeTrainingConfig, TopKSae, TrainConfig, Transcoder
from mi_crow.mechanistic.sae.formats.load import load_sae
from mi_crow.mechanistic.sae.train.run import train_run
from mi_crow.store import RunManifest, Workspace
from mi_crow.store.runs.manifest import LayerSpec, PartSpec
from mi_crow.store.runs.pair import PairReader
from mi_crow.store.runs.parts import DOCUMENT_SCHEMA, stored_rows, write_part
from mi_crow.store.runs.reader import RunReader
from tests.helpers.progress import Watched

WIDTHS = {"block": 8, "mlp": 6}
TRAINING = SaeTrainingConfig(steps=24, batch_size=64, checkpoint_every=10, log_every=10)
CONFIG = TrainConfig("run", "block", expansion=4, k=4, training=TRAINING, name="sae")


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    """A complete run of two parts with two layers; the second follows from the first."""
    workspace = Workspace.open(tmp_path / "workspace")
    run_dir = workspace.make_run_dir("run", "run")
    layers = [LayerSpec(name, f"{name}_out.0", width) for name, width in WIDTHS.items()]
    manifest = RunManifest(
        run_id="run",
        model_id="tiny",
        revision="main",
        tokenizer_hash="hash",
        layers=layers,
        dtype="fp32",
        dataset={},
        fingerprint="",
        settings={"context_length": 20},
        created=0.0,
        status="complete",
    )
    generator = torch.Generator().manual_seed(0)
    through = torch.randn(8, 6, generator=generator)
    for index in range(2):
        x = torch.randn(600, 8, generator=generator)
        x[::50] *= 100  # massive tokens
        documents = [
            {
                "document": 60 * index + number,
                "text": f"document {number}",
                "label": None,
                "split": "heldout" if number % 10 == 0 else "train",
                "token_ids": list(range(10)),
                "kept": list(range(10)),
            }
            for number in range(60)
        ]
        part = PartSpec(0, index, 60, 600)
        rows = {"block": stored_rows(x, "fp32"), "mlp": stored_rows(x.relu() @ through, "fp32")}
        write_part(run_dir, part, pa.Table.from_pylist(documents, DOCUMENT_SCHEMA), rows)
        manifest.parts.append(part)
    manifest.save(run_dir)
    return workspace


def test_a_sweep_makes_an_sae_of_each_kind_on_one_read(workspace: Workspace) -> None:
    sweep = replace(CONFIG, sweep_k=(2, 4), sweep_expansion=(2.0, 4.0))
    result = train_run(workspace, sweep).as_json()
    assert result["sae_id"] == "sae"
    assert [one["sae_id"] for one in result["saes"]] == [
        *("sae", "sae-x2-k4", "sae-x4-k2", "sae-x4-k4")
    ]
    assert "saes" not in result["saes"][1]
    sizes = [(load_sae(workspace.sae_dir(one["sae_id"])), one) for one in result["saes"]]
    assert [(sae.n_latents, sae.config()["k"]) for sae, _ in sizes] == [
        *((16, 2), (16, 4), (32, 2), (32, 4))
    ]
    assert all(one["l0"] <= sae.config()["k"] for sae, one in sizes)
    training = json.loads((workspace.sae_dir("sae-x4-k2") / "training.json").read_text())
    assert (training["config"]["k"], training["config"]["expansion"]) == (2, 4.0)
    assert training["config"]["sweep_k"] == []
    alone = train_run(workspace, replace(CONFIG, k=2, name="alone"))
    twin = load_sae(workspace.sae_dir("sae-x4-k2"))
    for name, tensor in load_sae(workspace.sae_dir(alone.sae_id)).state_dict().items():
        assert torch.equal(twin.state_dict()[name], tensor)


@pytest.mark.slow
def test_a_stopped_sweep_goes_on_in_its_folders(workspace: Workspace) -> None:
    sweep = replace(CONFIG, sweep_k=(2, 4))
    whole = train_run(workspace, replace(sweep, name="whole"))
    folder = workspace.make_sae_dir("again", "again")
    with pytest.raises(CancelledError):
        train_run(workspace, sweep, Watched(looks=13), folder)
    assert (workspace.saes_dir / "again-x4-k4" / "checkpoints" / "step-13").is_dir()
    result = train_run(workspace, sweep, None, folder)
    assert [one.sae_id for one in (result, *result.others)] == ["again", "again-x4-k4"]
    for a, b in ((whole, result), (whole.others[0], result.others[0])):
        assert (a.fvu, a.l0) == (b.fvu, b.l0)
    assert not list(workspace.saes_dir.glob("again*/checkpoints"))
    assert train_run(workspace, sweep, None, folder) == result  # finished: nothing to do


def test_a_sweep_that_cannot_begin_leaves_nothing(workspace: Workspace) -> None:
    workspace.make_sae_dir("sae-x4-k4", "sae")
    before = sorted(workspace.saes_dir.iterdir())
    with pytest.raises(UserError, match="'sae-x4-k4' exists already"):
        train_run(workspace, replace(CONFIG, sweep_k=(2, 4)))
    with pytest.raises(UserError, match="k = 99"):
        train_run(workspace, replace(CONFIG, sweep_k=(2, 99)))
    with pytest.raises(CancelledError):
        train_run(workspace, replace(CONFIG, name="other", sweep_k=(2, 5)), Watched(looks=0))
    kept = {entry.name for entry in workspace.saes_dir.iterdir()} - {e.name for e in before}
    assert kept == {"other", "other-x4-k5"}  # stopped after a checkpoint: it can go on


def test_a_training_starts_from_an_sae_of_the_workspace_or_a_path(workspace: Workspace) -> None:
    longer = replace(TRAINING, steps=200)
    first = train_run(workspace, replace(CONFIG, training=longer))
    for number, start in enumerate(("sae", str(workspace.sae_dir("sae")))):
        on = replace(CONFIG, init=start, name=f"on-{number}", training=replace(TRAINING, lr=1e-5))
        result = train_run(workspace, on)
        assert result.fvu == pytest.approx(first.fvu, rel=0.05)
        assert load_sae(workspace.sae_dir(f"on-{number}")).config()["k"] == 4
    with pytest.raises(UserError, match="'nowhere' not found"):
        train_run(workspace, replace(CONFIG, init="nowhere"))
    TopKSae(16, 5, 2).save(workspace.make_sae_dir("narrow", "narrow"))
    with pytest.raises(UserError, match=r"reads 5 inputs, layer .* has width 8"):
        train_run(workspace, replace(CONFIG, init="narrow", name="x"))
    with pytest.raises(UserError, match="not a transcoder"):
        train_run(workspace, replace(CONFIG, init="sae", target_layer="mlp", name="x"))


@pytest.mark.slow
def test_a_shuffled_control_is_marked_as_one(workspace: Workspace) -> None:
    train_run(workspace, replace(CONFIG, training=replace(TRAINING, shuffled=True)))
    assert load_sae(workspace.sae_dir("sae")).metadata.other["control"] == "shuffled"


@pytest.mark.parametrize("split", ["train", "heldout"])
def test_two_layers_are_read_row_by_row_together(workspace: Workspace, split: str) -> None:
    run_dir = workspace.run_dir("run")
    one = RunReader(run_dir, "block")
    for buffer_bytes in (1 << 29, 4096):  # a run that fits the buffer, and one that does not
        pair = PairReader(run_dir, "block", "mlp", buffer_bytes)
        assert (pair.width, pair.count(split, 30.0)) == (14, one.count(split, 30.0))
        stored = pair.batches(48, 3, split, 30.0)
        for rows in (pair.sample(40, 1, split, 30.0), next(stored), next(stored)):
            x, y = rows[:, :8], rows[:, 8:]
            generator = torch.Generator().manual_seed(0)
            through = torch.randn(8, 6, generator=generator)
            torch.testing.assert_close(y, x.relu() @ through)
            assert (x.norm(dim=1) <= 30).all()


@pytest.mark.slow
def test_a_transcoder_is_trained_from_one_layer_to_another(workspace: Workspace) -> None:
    sae = Transcoder(48, WIDTHS["block"], WIDTHS["mlp"], k=8)
    trainer = SaeTrainer(sae)
    trainer.train(
        workspace,
        "run",
        "block",
        replace(TRAINING, steps=400, checkpoint_every=400),
        target_layer="mlp",
    )
    assert trainer.result is not None
    assert trainer.result.fvu < 0.4
    assert sae.metadata.layer == "block"
    assert sae.metadata.other["target_layer"] == "mlp"
    with pytest.raises(UserError, match="layer 'nope'"):
        trainer.train(workspace, "run", "block", TRAINING, target_layer="nope")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"arch": "transcoder"}, "--target-layer"),
        ({"target_layer": "mlp"}, "for transcoders"),
        ({"skip": True}, "for transcoders"),
        ({"init": "a", "sweep_k": (1, 2)}, "one SAE"),
        ({"n_latents": 8, "sweep_expansion": (2.0, 4.0)}, "give one"),
        ({"n_latents": 3, "sweep_k": (2, 4)}, "k = 4"),
        ({"arch": "dense"}, "'dense' is not known"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(
    changes: dict[str, object], words: str
) -> None:
    with pytest.raises(UserError) as caught:
        TrainConfig("run", "block", **{"k": 2, **changes})  # pyright: ignore[reportArgumentType]
    assert words in f"{caught.value} {caught.value.hint}"
