"""The trainer on tensors with a known dictionary."""

import re
import shutil
from itertools import islice
from pathlib import Path
from threading import Event
from typing import Any

import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from mi_crow.errors import CancelledError, CorruptDataError, MiCrowError, UserError
from mi_crow.mechanistic.sae import SaeTrainer, SaeTrainingConfig, TopKSae
from mi_crow.mechanistic.sae.source import HELDOUT, TensorSource
from mi_crow.mechanistic.sae.train import checkpoint, checkpoint_writer
from mi_crow.mechanistic.sae.train.checkpoint import newest_checkpoint
from mi_crow.mechanistic.sae.train.plan import geometric_median, make_plan
from mi_crow.mechanistic.sae.train.trainer import flushed_denormals
from mi_crow.progress import NullProgress
from tests.helpers.progress import Watched

FEATURES, WIDTH, ACTIVE = 64, 32, 3


@pytest.fixture(scope="module")
def dictionary() -> Tensor:
    rows = torch.randn(FEATURES, WIDTH, generator=torch.Generator().manual_seed(0))
    return rows / rows.norm(dim=1, keepdim=True)


@pytest.fixture(scope="module")
def activations(dictionary: Tensor) -> Tensor:
    """Sparse sums of dictionary rows around a centre, in units far from sqrt(d)."""
    generator = torch.Generator().manual_seed(1)
    n = 12_000
    on = torch.rand(n, FEATURES, generator=generator) < ACTIVE / FEATURES
    strength = 0.5 + torch.rand(n, FEATURES, generator=generator)
    noise = torch.randn(n, WIDTH, generator=generator) * 0.02
    centre = torch.randn(WIDTH, generator=generator)
    return 40 * ((on * strength) @ dictionary + noise + centre)


def small_config(steps: int = 40, **changes: object) -> SaeTrainingConfig:
    fields = {"steps": steps, "batch_size": 128, "checkpoint_every": 10, "log_every": 5, **changes}
    return SaeTrainingConfig(**fields)  # pyright: ignore[reportArgumentType]


@pytest.mark.slow
def test_most_of_a_known_dictionary_is_found(dictionary: Tensor, activations: Tensor) -> None:
    sae = TopKSae(n_latents=2 * FEATURES, n_inputs=WIDTH, k=ACTIVE + 1)
    trainer = SaeTrainer(sae)
    history = trainer.train_on(
        TensorSource(activations), SaeTrainingConfig(steps=400, batch_size=256)
    )
    found = (dictionary @ sae.decoder_rows.detach().T).amax(1)
    assert (found >= 0.9).float().mean() >= 0.9
    assert trainer.result is not None
    assert trainer.result.fvu < 0.15
    assert trainer.result.dead_share < 0.15
    assert 1 < trainer.result.l0 <= ACTIVE + 1
    assert history["loss"][-1] < history["loss"][0] / 4
    assert history["r2"][-1] == pytest.approx(1 - history["fvu"][-1])
    torch.testing.assert_close(sae.decoder_rows.norm(dim=1), torch.ones(2 * FEATURES))


def test_the_result_is_measured_in_the_units_of_the_input(activations: Tensor) -> None:
    sae = TopKSae(FEATURES, WIDTH, 4)
    trainer = SaeTrainer(sae)
    trainer.train_on(TensorSource(activations), small_config(120))
    heldout = TensorSource(activations).sample(10**6, 0, HELDOUT)
    with torch.no_grad():
        error = (heldout - sae(heldout).reconstruction).square().sum()
    fvu = float(error / (heldout - heldout.mean(0)).square().sum())
    assert trainer.result is not None
    assert trainer.result.fvu == pytest.approx(fvu, rel=1e-4)


def train(
    activations: Tensor, folder: Path | None = None, progress: NullProgress | None = None
) -> tuple[TopKSae, dict[str, list[float]]]:
    sae = TopKSae(FEATURES, WIDTH, 4, seed=7)
    config = small_config(dead_tokens=256)
    return sae, SaeTrainer(sae).train_on(TensorSource(activations), config, progress, folder)


def same_weights(a: TopKSae, b: TopKSae) -> bool:
    return all(torch.equal(x, b.state_dict()[name]) for name, x in a.state_dict().items())


def test_a_seed_decides_everything(activations: Tensor) -> None:
    first, second = train(activations), train(activations)
    assert same_weights(first[0], second[0])
    assert first[1]["loss"] == second[1]["loss"]


@pytest.mark.parametrize("stop_at", [1, 17, 31])
def test_a_stopped_training_goes_on_bit_for_bit(
    activations: Tensor, tmp_path: Path, stop_at: int
) -> None:
    whole, history = train(activations)
    watcher = Watched(looks=stop_at - 1)
    with pytest.raises(CancelledError) as caught:
        train(activations, tmp_path, watcher)
    assert caught.value.resumable
    assert watcher.checkpoints[-1] == f"step-{stop_at - 1}"
    resumed, resumed_history = train(activations, tmp_path)
    assert same_weights(whole, resumed)
    for name in ("loss", "fvu", "l0", "dead_features", "step"):
        assert resumed_history[name] == history[name]
    rows = pq.read_table(tmp_path / "metrics.parquet")
    assert rows["step"].to_pylist() == history["step"]


def test_only_the_newest_checkpoint_stays(activations: Tensor, tmp_path: Path) -> None:
    watcher = Watched()
    train(activations, tmp_path, watcher)
    assert watcher.checkpoints == ["step-10", "step-20", "step-30", "step-40"]
    assert [entry.name for entry in (tmp_path / "checkpoints").iterdir()] == ["step-40"]


def test_the_clock_decides_when_a_checkpoint_is_due(activations: Tensor, tmp_path: Path) -> None:
    whole, _ = train(activations)
    source, watcher = TensorSource(activations), Watched()
    sae = TopKSae(FEATURES, WIDTH, 4, seed=7)
    often = small_config(dead_tokens=256, checkpoint_minutes=1e-6, checkpoint_every=None)
    SaeTrainer(sae).train_on(source, often, watcher, tmp_path)
    assert watcher.checkpoints == [f"step-{step}" for step in (1, *range(5, 41, 5))]
    assert same_weights(whole, sae)
    watcher = Watched()
    seldom = small_config(dead_tokens=256, checkpoint_every=None)
    SaeTrainer(sae).train_on(source, seldom, watcher, tmp_path / "seldom")
    assert watcher.checkpoints == ["step-40"]


def test_the_training_goes_on_while_a_checkpoint_is_written(
    activations: Tensor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The thread that writes waits for a later step, and what it writes is of its own step."""
    later, saved = Event(), checkpoint_writer.save_checkpoint

    class Progressing(Watched):
        def update(self, done: int, total: int, unit: str, metrics: Any = None) -> None:
            super().update(done, total, unit, metrics)
            if done >= 15:
                later.set()

    def waiting(folder: Path, step: int, *rest: Any) -> str:
        if step == 10:
            assert later.wait(60)
            assert len(rest[0]["idle"]) == FEATURES
            kept.update({name: one.clone() for name, one in rest[0].items()})
        return saved(folder, step, *rest)

    kept: dict[str, Tensor] = {}
    monkeypatch.setattr(checkpoint_writer, "save_checkpoint", waiting)
    train(activations, tmp_path / "one", Progressing())
    with pytest.raises(CancelledError):
        train(activations, tmp_path / "two", Watched(looks=10))
    found = newest_checkpoint(tmp_path / "two" / "checkpoints")
    assert found is not None
    assert kept.keys() == found[0].keys()
    assert all(torch.equal(one, found[0][name]) for name, one in kept.items())


def test_without_room_for_copies_the_step_waits(
    activations: Tensor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkpoint_writer, "available_memory", lambda: 1000)
    with pytest.raises(CancelledError):
        train(activations, tmp_path, Watched(looks=25))
    resumed, _ = train(activations, tmp_path)
    assert same_weights(train(activations)[0], resumed)


def test_a_disk_that_refuses_a_checkpoint_stops_the_training(
    activations: Tensor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> str:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoint_writer, "save_checkpoint", full)
    with pytest.raises(OSError, match="No space left"):
        train(activations, tmp_path)


def test_other_times_of_checkpoints_do_not_keep_a_training_from_going_on(
    activations: Tensor, tmp_path: Path
) -> None:
    whole, _ = train(activations)
    with pytest.raises(CancelledError):
        train(activations, tmp_path, Watched(looks=20))
    sae = TopKSae(FEATURES, WIDTH, 4, seed=7)
    config = small_config(dead_tokens=256, checkpoint_every=7, checkpoint_minutes=3)
    SaeTrainer(sae).train_on(TensorSource(activations), config, folder=tmp_path)
    assert same_weights(whole, sae)


def test_a_checkpoint_of_other_settings_is_refused(activations: Tensor, tmp_path: Path) -> None:
    train(activations, tmp_path)
    with pytest.raises(UserError, match="other settings"):
        SaeTrainer(TopKSae(FEATURES, WIDTH, 4)).train_on(
            TensorSource(activations), small_config(50), folder=tmp_path
        )


def test_a_torn_checkpoint_is_reported(activations: Tensor, tmp_path: Path) -> None:
    train(activations, tmp_path)
    (tmp_path / "checkpoints" / "step-40" / "state.safetensors").write_bytes(b"torn")
    with pytest.raises(CorruptDataError, match="no checkpoint"):
        newest_checkpoint(tmp_path / "checkpoints")


def torn(path: Path) -> None:
    """What a power cut leaves: the right name and size, and zeros."""
    path.write_bytes(bytes(path.stat().st_size))


@pytest.mark.slow
@pytest.mark.parametrize("file", ["state.safetensors", "state.json"])
def test_a_training_goes_on_from_the_checkpoint_before_a_torn_one(
    activations: Tensor, tmp_path: Path, file: str
) -> None:
    whole, history = train(activations)
    with pytest.raises(CancelledError):
        train(activations, tmp_path, Watched(looks=20))
    shutil.copytree(tmp_path / "checkpoints" / "step-20", tmp_path / "before")
    with pytest.raises(CancelledError):
        train(activations, tmp_path, Watched(looks=10))
    (newest,) = (tmp_path / "checkpoints").iterdir()
    assert newest.name == "step-30"
    torn(newest / file)
    (tmp_path / "before").rename(tmp_path / "checkpoints" / "step-20")
    watcher = Watched()
    resumed, resumed_history = train(activations, tmp_path, watcher)
    assert same_weights(whole, resumed)
    assert resumed_history["loss"] == history["loss"]
    assert [entry.name for entry in (tmp_path / "checkpoints").iterdir()] == ["step-40"]


def test_an_older_checkpoint_stays_while_the_newer_one_cannot_be_read_back(
    activations: Tensor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkpoint, "forget_cached", torn)
    train(activations, tmp_path)
    names = sorted(entry.name for entry in (tmp_path / "checkpoints").iterdir())
    assert names == ["step-10", "step-20", "step-30", "step-40"]


def test_torn_metrics_stop_no_training(activations: Tensor, tmp_path: Path) -> None:
    whole, history = train(activations)
    with pytest.raises(CancelledError):
        train(activations, tmp_path, Watched(looks=20))
    torn(tmp_path / "metrics.parquet")
    resumed, resumed_history = train(activations, tmp_path)
    assert same_weights(whole, resumed)
    assert resumed_history["loss"] == history["loss"][-len(resumed_history["loss"]) :]


def test_without_a_folder_a_stop_cannot_be_resumed(activations: Tensor) -> None:
    with pytest.raises(CancelledError) as caught:
        train(activations, None, Watched(looks=2))
    assert not caught.value.resumable


def test_progress_carries_the_readings_that_viewers_show(activations: Tensor) -> None:
    watcher = Watched()
    train(activations, None, watcher)
    assert [done for done, *_ in watcher.updates] == [1, 5, 10, 15, 20, 25, 30, 35, 40]
    assert watcher.metrics.keys() == {"fvu", "l0", "dead_share", "tokens_s", "loss"}
    assert watcher.metrics["tokens_s"] > 0


def test_the_log_begins_with_what_is_trained(activations: Tensor) -> None:
    seen = Watched(updates=1)
    with pytest.raises(CancelledError):
        train(activations, None, seen)
    first, second = seen.lines
    assert first == f"training {FEATURES} latents: 40 steps of 128 tokens"
    assert re.fullmatch(r"step 1 of 40: FVU \d\.\d{4}, L0 \d+\.\d, dead \d+\.\d%", second)


@pytest.mark.parametrize(("apart", "told"), [(0.0, [1, 5, 10, 15, 20, 25, 30, 35, 40]), (99, [1])])
def test_the_log_goes_on_with_the_figures_of_a_row_now_and_then(
    activations: Tensor, monkeypatch: pytest.MonkeyPatch, apart: float, told: list[int]
) -> None:
    monkeypatch.setattr("mi_crow.mechanistic.sae.train.loop._LINE_EVERY_S", apart)
    seen = Watched()
    train(activations, None, seen)
    steps = [re.match(r"step (\d+) of 40: FVU", line) for line in seen.lines]
    assert [int(found[1]) for found in steps if found] == told


def test_a_loss_that_is_not_finite_stops_with_the_reason(activations: Tensor) -> None:
    with pytest.raises(MiCrowError, match=r"the loss is (nan|inf)") as caught:
        SaeTrainer(TopKSae(FEATURES, WIDTH, 4)).train_on(
            TensorSource(activations), small_config(lr=1e9, warmup_steps=1)
        )
    assert "learning rate" in caught.value.hint


@pytest.mark.slow
def test_auxk_brings_dead_latents_back(activations: Tensor) -> None:
    dead_after = {}
    for alpha in (0.0, 1 / 32):
        sae = TopKSae(FEATURES, WIDTH, 4)
        with torch.no_grad():
            sae.b_enc[: FEATURES // 2] = -70  # never among the four largest
        trainer = SaeTrainer(sae)
        trainer.train_on(
            TensorSource(activations), small_config(400, aux_alpha=alpha, dead_tokens=500)
        )
        assert trainer.result is not None
        dead_after[alpha] = trainer.result.dead_share
    assert dead_after[0.0] >= 0.3
    assert dead_after[1 / 32] < 0.15


def test_massive_tokens_are_left_out_and_reported(activations: Tensor) -> None:
    spoiled = activations.clone()
    spoiled[::50] = 1e5 * torch.randn(WIDTH, generator=torch.Generator().manual_seed(9))
    sae = TopKSae(FEATURES, WIDTH, 4)
    trainer = SaeTrainer(sae)
    trainer.train_on(TensorSource(spoiled), small_config(120))
    limit = sae.metadata.outlier_norm
    assert limit == pytest.approx(10 * float(spoiled.norm(dim=1).median()))
    assert trainer.result is not None
    assert trainer.result.outlier_share == pytest.approx(0.2, abs=0.01)
    assert trainer.result.fvu < 0.6 < trainer.result.fvu_all


def test_the_learning_rate_warms_up_and_decays() -> None:
    source = TensorSource(torch.randn(4000, 8))
    plan = make_plan(TopKSae(16, 8, 2), source, SaeTrainingConfig(steps=100, batch_size=64, lr=1.0))
    rates = [plan.lr_at(step) for step in range(100)]
    assert rates[0] == pytest.approx(0.1)
    assert rates[9:80] == [1.0] * 71
    assert rates[90] == pytest.approx(0.5)
    assert rates[99] == pytest.approx(0.05)


def test_epochs_and_the_default_length() -> None:
    sae, source = TopKSae(16, 8, 2), TensorSource(torch.randn(4000, 8))
    twice = make_plan(sae, source, SaeTrainingConfig(epochs=2, batch_size=100))
    assert twice.steps == 72  # 3,600 tokens are not held out
    assert make_plan(sae, source, SaeTrainingConfig(batch_size=100)).steps == 2000


def test_too_few_tokens_and_a_wrong_width_are_explained() -> None:
    source = TensorSource(torch.randn(100, 8))
    with pytest.raises(UserError, match="90 training tokens are too few"):
        make_plan(TopKSae(16, 8, 2), source, SaeTrainingConfig(batch_size=128))
    with pytest.raises(UserError, match="width 8"):
        make_plan(TopKSae(16, 9, 2), source, SaeTrainingConfig(batch_size=16))


def test_a_run_of_held_out_texts_alone_is_explained() -> None:
    source = TensorSource(torch.randn(100, 8), torch.ones(100, dtype=torch.bool))
    with pytest.raises(UserError, match="all 100 tokens are of held-out texts") as caught:
        make_plan(TopKSae(16, 8, 2), source, SaeTrainingConfig(batch_size=16))
    assert "outlier" not in caught.value.sentence


def test_unusable_activations_are_explained() -> None:
    for value, reason in ((1.0, "the same"), (float("nan"), "not finite")):
        source = TensorSource(torch.full((200, 8), value))
        with pytest.raises(CorruptDataError, match=reason):
            SaeTrainer(TopKSae(16, 8, 2)).train_on(
                source, small_config(batch_size=16, outlier_factor=None)
            )


def test_the_geometric_median_shrugs_off_a_few_far_points() -> None:
    points = torch.randn(400, 3) * 0.1
    points[:20] = 1000.0
    assert geometric_median(points, 60).norm() < 0.2
    assert points.mean(0).norm() > 10


@settings(max_examples=30, deadline=None)
@given(tokens=st.integers(2, 60), batch=st.integers(1, 40), start=st.integers(0, 9))
def test_a_batch_depends_on_its_number_alone(tokens: int, batch: int, start: int) -> None:
    source = TensorSource(torch.arange(tokens, dtype=torch.float32)[:, None] + 1)
    batches = list(islice(source.batches(batch, seed=3), start + 3))
    again = list(islice(source.batches(batch, seed=3, start=start), 3))
    assert all(torch.equal(a, b) for a, b in zip(batches[start:], again, strict=True))
    epoch = torch.cat(batches).flatten()[: source.count()]
    assert len(epoch.unique()) == len(epoch)


def test_training_leaves_the_process_with_the_denormals_it_had() -> None:
    def kept() -> bool:
        return bool(torch.full((1,), 1e-40) * torch.ones(1) != 0)

    before = kept()
    with flushed_denormals():
        assert not kept()
    assert kept() == before
