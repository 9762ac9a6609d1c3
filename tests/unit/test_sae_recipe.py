"""The recipe on every architecture: resume, accumulation, targets, sweeps, controls."""

import math
from collections.abc import Callable
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from mi_crow.errors import CancelledError, CorruptDataError, UserError
from mi_crow.mechanistic.sae import (
    BatchTopKSae,
    GatedSae,
    JumpReluSae,
    L1Sae,
    MatryoshkaSae,
    SaeTrainer,
    SaeTrainingConfig,
    SparseAutoencoder,
    TopKSae,
    Transcoder,
    train_many,
)
from mi_crow.mechanistic.sae.base import LossContext
from mi_crow.mechanistic.sae.rules.losses import variance_share
from mi_crow.mechanistic.sae.rules.sparsity_control import SparsityControl
from mi_crow.mechanistic.sae.source import HELDOUT, ShuffledSource, TensorSource
from mi_crow.mechanistic.sae.train.plan import make_plan
from mi_crow.mechanistic.sae.train.state import TrainState
from tests.helpers.progress import Watched

FEATURES, WIDTH, ACTIVE = 64, 32, 3

MAKERS: dict[str, Callable[[], SparseAutoencoder]] = {
    "topk": lambda: TopKSae(FEATURES, WIDTH, 4),
    "batchtopk": lambda: BatchTopKSae(FEATURES, WIDTH, 4),
    "matryoshka": lambda: MatryoshkaSae(FEATURES, WIDTH, 4),
    "jumprelu": lambda: JumpReluSae(FEATURES, WIDTH),
    "l1": lambda: L1Sae(FEATURES, WIDTH),
    "gated": lambda: GatedSae(FEATURES, WIDTH),
    "transcoder": lambda: Transcoder(FEATURES, WIDTH // 2, WIDTH // 2, 4, skip=True),
}
STEERED = ("jumprelu", "l1", "gated")

every = pytest.mark.parametrize("name", MAKERS)


@pytest.fixture(scope="module")
def activations() -> Tensor:
    """Sparse sums of unit rows around a centre, in units far from sqrt(d)."""
    generator = torch.Generator().manual_seed(1)
    rows = torch.randn(FEATURES, WIDTH, generator=generator)
    rows /= rows.norm(dim=1, keepdim=True)
    n = 8_000
    on = torch.rand(n, FEATURES, generator=generator) < ACTIVE / FEATURES
    strength = 0.5 + torch.rand(n, FEATURES, generator=generator)
    noise = torch.randn(n, WIDTH, generator=generator) * 0.02
    return 40 * ((on * strength) @ rows + noise + torch.randn(WIDTH, generator=generator))


def config(name: str, steps: int = 24, **changes: object) -> SaeTrainingConfig:
    fields: dict[str, object] = {
        "steps": steps,
        "batch_size": 128,
        "checkpoint_every": 10,
        "log_every": 5,
        "dead_tokens": 256,
        "target_l0": 4.0 if name in STEERED else None,
    }
    return SaeTrainingConfig(**{**fields, **changes})  # pyright: ignore[reportArgumentType]


def same_weights(a: SparseAutoencoder, b: SparseAutoencoder) -> bool:
    return all(torch.equal(x, b.state_dict()[name]) for name, x in a.state_dict().items())


@pytest.mark.slow
@every
def test_a_stopped_training_goes_on_bit_for_bit(
    name: str, activations: Tensor, tmp_path: Path
) -> None:
    source, settings = TensorSource(activations), config(name)
    whole, stopped, resumed = (MAKERS[name]() for _ in range(3))
    history = SaeTrainer(whole).train_on(source, settings)
    with pytest.raises(CancelledError):
        SaeTrainer(stopped).train_on(source, settings, Watched(looks=13), tmp_path)
    again = SaeTrainer(resumed).train_on(source, settings, None, tmp_path)
    assert same_weights(whole, resumed)
    for reading in ("loss", "fvu", "l0", "dead_features", "step"):
        assert again[reading] == history[reading]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["topk", "l1", "gated", "jumprelu", "transcoder"])
def test_pieces_of_a_batch_add_up_to_the_batch(name: str, activations: Tensor) -> None:
    # JumpReLU's distance to a target is not a mean over tokens; its coefficient's loss is.
    changes = {"target_l0": None, "l1_lambda": 0.01} if name == "jumprelu" else {}
    saes = [MAKERS[name]().double() for _ in range(2)]
    losses = [
        SaeTrainer(sae).train_on(
            TensorSource(activations), config(name, accumulate=pieces, **changes)
        )["loss"]
        for sae, pieces in zip(saes, (1, 3), strict=True)
    ]
    assert losses[0] == pytest.approx(losses[1], rel=1e-6)
    for parameter, a in saes[0].state_dict().items():
        torch.testing.assert_close(a, saes[1].state_dict()[parameter], rtol=1e-6, atol=1e-8)


@pytest.mark.slow
@pytest.mark.parametrize("name", STEERED)
@pytest.mark.parametrize("target", [2.0, 5.0])
def test_a_target_for_l0_is_reached(name: str, target: float, activations: Tensor) -> None:
    trainer = SaeTrainer(MAKERS[name]())
    trainer.train_on(
        TensorSource(activations), config(name, 300, target_l0=target, checkpoint_every=300)
    )
    assert trainer.result is not None
    assert trainer.result.l0 == pytest.approx(target, rel=0.15)
    assert trainer.result.fvu < 0.8


@pytest.mark.slow
@pytest.mark.parametrize("name", ["l1", "gated", "jumprelu"])
def test_a_larger_coefficient_leaves_fewer_latents(name: str, activations: Tensor) -> None:
    found = []
    for coefficient in (0.001, 1.0):
        trainer = SaeTrainer(MAKERS[name]())
        settings = config(name, 120, target_l0=None, l1_lambda=coefficient)
        trainer.train_on(TensorSource(activations), settings)
        assert trainer.result is not None
        found.append(trainer.result.l0)
    assert found[1] < found[0]


def test_a_coefficient_warms_up_and_follows_the_error() -> None:
    control = SparsityControl(2.0, 10.0, warmup_steps=4, steps=1000, device=torch.device("cpu"))
    assert [float(control.coefficient(step)) for step in range(4)] == [0.5, 1.0, 1.5, 2.0]
    control.observe(0, torch.tensor(20.0))
    assert float(control.coefficient(3)) == pytest.approx(2 * math.sqrt(2))
    assert float(control.state[0]) == pytest.approx(math.log(2))  # nothing adds up so far
    for step in range(4, 8):
        control.observe(step, torch.tensor(20.0))
    assert float(control.state[0]) == pytest.approx(math.log(2) + 4 * 0.012 * math.log(2))
    fixed = SparsityControl(2.0, None, warmup_steps=1, steps=9, device=torch.device("cpu"))
    fixed.observe(5, torch.tensor(999.0))
    assert float(fixed.coefficient(6)) == 2.0


@pytest.mark.slow
def test_saes_side_by_side_come_out_as_if_alone(activations: Tensor, tmp_path: Path) -> None:
    names = ("topk", "gated", "batchtopk")
    source = TensorSource(activations)
    alone = [MAKERS[name]() for name in names]
    for name, sae in zip(names, alone, strict=True):
        SaeTrainer(sae).train_on(source, config(name))
    together = [MAKERS[name]() for name in names]
    settings = [config(name) for name in names]
    folders = [tmp_path / name for name in names]
    for folder in folders:
        folder.mkdir()
    with pytest.raises(CancelledError):
        train_many(together, source, settings, Watched(looks=17), folders)
    # As if a kill had come between two trainings' checkpoints: one is behind the others.
    (folders[1] / "checkpoints" / "step-17").rename(tmp_path / "lost")
    together = [MAKERS[name]() for name in names]
    trained = train_many(together, source, settings, None, folders)
    for a, b in zip(alone, together, strict=True):
        assert same_weights(a, b)
    assert [one.result.sae_id for one in trained] == list(names)
    assert trained[2].history["step"] == [1, 5, 10, 15, 20, 24]


def test_saes_that_need_other_data_cannot_train_side_by_side(activations: Tensor) -> None:
    settings = [config("topk"), config("topk", seed=3)]
    with pytest.raises(UserError, match="the same seed"):
        train_many([MAKERS["topk"](), MAKERS["topk"]()], TensorSource(activations), settings)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"lr": 0.5}, r"lr was 0\.0\d+, now it is 0\.5"),
        ({"steps": 30}, "steps was 24, now it is 30"),
        ({"accumulate": 2}, "accumulate was 1, now it is 2"),
    ],
)
def test_a_checkpoint_of_other_settings_says_which(
    change: dict[str, float], words: str, activations: Tensor, tmp_path: Path
) -> None:
    source = TensorSource(activations)
    SaeTrainer(MAKERS["topk"]()).train_on(source, config("topk"), None, tmp_path)
    settings = replace(config("topk"), **change)  # pyright: ignore[reportArgumentType]
    with pytest.raises(UserError, match=words):
        SaeTrainer(MAKERS["topk"]()).train_on(source, settings, None, tmp_path)


def test_a_checkpoint_of_another_sae_says_how_it_differs(
    activations: Tensor, tmp_path: Path
) -> None:
    source = TensorSource(activations)
    SaeTrainer(MAKERS["topk"]()).train_on(source, config("topk"), None, tmp_path)
    for sae, words in (
        (TopKSae(FEATURES, WIDTH, 5), "k was 4, now it is 5"),
        (TopKSae(FEATURES + 1, WIDTH, 4), "n_latents was 64, now it is 65"),
        (BatchTopKSae(FEATURES, WIDTH, 4), "architecture was topk, now it is batchtopk"),
    ):
        with pytest.raises(UserError, match=words):
            SaeTrainer(sae).train_on(source, config("topk"), None, tmp_path)


def test_activations_that_are_not_finite_stop_with_the_reason_and_keep_the_checkpoint(
    activations: Tensor, tmp_path: Path
) -> None:
    source = TensorSource(activations)
    batches = list(islice(source.batches(128, 0), 24))

    class Spoiled(TensorSource):
        def batches(self, *_: object, start: int = 0, **__: object):  # type: ignore[override]
            for number, batch in enumerate(batches):
                if number >= start:
                    yield torch.full_like(batch, torch.nan) if number == 16 else batch

    settings = config("topk", outlier_factor=None)
    with pytest.raises(CorruptDataError, match="step 20: the loss is nan") as caught:
        SaeTrainer(MAKERS["topk"]()).train_on(Spoiled(activations), settings, None, tmp_path)
    assert caught.value.hint
    assert (tmp_path / "checkpoints" / "step-10").is_dir()
    assert not (tmp_path / "checkpoints" / "step-20").exists()


class Greedy(TopKSae):
    """An SAE for which there is memory for so many tokens alone."""

    room = 0

    def training_output(self, x: Tensor, *others: Any, **named: Any) -> Any:
        if len(x) > self.room:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return super().training_output(x, *others, **named)


def test_running_out_of_memory_names_the_batch_that_fits(activations: Tensor) -> None:
    sae = Greedy(FEATURES, WIDTH, 4)
    sae.room = 40
    with pytest.raises(UserError, match="cpu with 64 tokens at once") as caught:
        SaeTrainer(sae).train_on(TensorSource(activations), config("topk", accumulate=2))
    assert "32 tokens at once fit" in caught.value.hint
    assert "--accumulate 4" in caught.value.hint
    assert "--batch-size 32" in caught.value.hint


def test_an_sae_without_room_for_one_token_is_too_wide(activations: Tensor) -> None:
    with pytest.raises(UserError, match="and with fewer: CUDA out of memory") as caught:
        SaeTrainer(Greedy(FEATURES, WIDTH, 4)).train_on(TensorSource(activations), config("topk"))
    assert "--share latents" in caught.value.hint


def test_tokens_decide_the_length(activations: Tensor) -> None:
    trainer = SaeTrainer(MAKERS["topk"]())
    settings = SaeTrainingConfig(tokens=1000, batch_size=128)
    history = trainer.train_on(TensorSource(activations), settings)
    assert history["tokens"][-1] == 1024
    with pytest.raises(UserError, match="steps and tokens were both given"):
        SaeTrainingConfig(steps=3, tokens=4)


def test_rows_of_metrics_hold_the_parts_of_the_loss(activations: Tensor, tmp_path: Path) -> None:
    import pyarrow.parquet as pq

    SaeTrainer(MAKERS["gated"]()).train_on(
        TensorSource(activations), config("gated"), None, tmp_path
    )
    table = pq.read_table(tmp_path / "metrics.parquet").to_pydict()
    for step in range(len(table["step"])):
        parts = [table[key][step] for key in table if key.startswith("loss_")]
        assert sum(part for part in parts if part) == pytest.approx(table["loss"][step])
    assert {"loss_reconstruction", "loss_via_gate", "loss_sparsity"} <= table.keys()
    assert all(norm > 0 for norm in table["grad_norm"])
    assert all(0 <= share <= 1 for share in table["dense_share"])


def test_a_latent_that_always_fires_counts_as_dense(activations: Tensor) -> None:
    sae = L1Sae(FEATURES, WIDTH)
    trainer = SaeTrainer(sae)
    trainer.train_on(TensorSource(activations), config("l1", target_l0=None, l1_lambda=0.0))
    assert trainer.result is not None
    assert trainer.result.dense_share > 0.9  # without a penalty half of all latents fire


def test_training_goes_on_from_a_trained_sae(activations: Tensor) -> None:
    source = TensorSource(activations)
    first = MAKERS["l1"]()
    trainer = SaeTrainer(first)
    history = trainer.train_on(source, config("l1", 200))
    with torch.no_grad():  # as other tools leave them: decoder rows of any length
        factor = 0.5 + torch.rand(FEATURES, 1)
        first.W_dec.mul_(factor)
        first.encoder_rows.div_(factor)
        first.b_enc.div_(factor[:, 0])
    again = SaeTrainer(first).train_on(source, config("l1", 20, lr=1e-6))
    assert again["fvu"][0] == pytest.approx(history["fvu"][-1], rel=0.15)
    assert history["fvu"][0] > 1.3 * again["fvu"][0]


def test_an_sae_that_normalises_its_input_is_not_trained_on(activations: Tensor) -> None:
    sae = MAKERS["l1"]()
    sae.input_norm = "layer_norm"
    with pytest.raises(UserError, match="layer_norm"):
        SaeTrainer(sae).train_on(TensorSource(activations), config("l1"))


def test_a_target_for_l0_is_for_the_kinds_that_are_steered(activations: Tensor) -> None:
    with pytest.raises(UserError, match="by k"):
        SaeTrainer(MAKERS["topk"]()).train_on(
            TensorSource(activations), config("topk", target_l0=4.0)
        )
    with pytest.raises(UserError, match="both"):
        SaeTrainingConfig(target_l0=4.0, l1_lambda=1.0)


@pytest.mark.slow
def test_bf16_products_train_about_as_well(activations: Tensor) -> None:
    results = []
    for precision in ("fp32", "bf16"):
        trainer = SaeTrainer(MAKERS["topk"]())
        trainer.train_on(TensorSource(activations), config("topk", 150, precision=precision))
        assert trainer.sae.dtype == torch.float32
        assert trainer.result is not None
        results.append(trainer.result.fvu)
    assert results[1] == pytest.approx(results[0], rel=0.1)


def test_shuffling_keeps_each_dimension_and_nothing_between_them() -> None:
    generator = torch.Generator().manual_seed(0)
    shared = torch.randn(4000, 1, generator=generator)
    x = shared * torch.arange(1, 9) + 0.01 * torch.randn(4000, 8, generator=generator)
    source = ShuffledSource(TensorSource(x))
    plain = next(TensorSource(x).batches(1000, seed=5))
    first, second = islice(source.batches(1000, seed=5), 2)
    torch.testing.assert_close(first.sort(0).values, plain.sort(0).values)
    assert torch.corrcoef(plain.T).min() > 0.99
    for rows in (first, second, source.sample(3000, 0), source.sample(300, 0, HELDOUT)):
        between = torch.corrcoef(rows.T) - torch.eye(8)
        assert between.abs().max() < 0.25
    assert torch.equal(next(source.batches(1000, seed=5, start=1)), second)


@pytest.mark.slow
def test_a_shuffled_control_is_reconstructed_worse(activations: Tensor) -> None:
    fvu = []
    for shuffled in (False, True):
        trainer = SaeTrainer(MAKERS["topk"]())
        trainer.train_on(TensorSource(activations), config("topk", 200, shuffled=shuffled))
        assert trainer.result is not None
        fvu.append(trainer.result.fvu)
    assert fvu[1] > 1.4 * fvu[0]


@pytest.mark.slow
def test_a_transcoder_learns_to_predict_its_target() -> None:
    generator = torch.Generator().manual_seed(3)
    on = torch.rand(6000, FEATURES, generator=generator) < ACTIVE / FEATURES
    z = on * (0.5 + torch.rand(6000, FEATURES, generator=generator))
    read, write = torch.randn(2, FEATURES, WIDTH, generator=generator)
    pairs = torch.cat([20 * z @ read, 0.3 * z @ write[:, :20] + 1.0], dim=1)
    sae = Transcoder(2 * FEATURES, WIDTH, 20, k=6)
    trainer = SaeTrainer(sae)
    trainer.train_on(TensorSource(pairs), config("topk", 400, batch_size=256))
    assert trainer.result is not None
    assert trainer.result.fvu < 0.5
    heldout = TensorSource(pairs).sample(10**5, 0, HELDOUT)
    x, y = heldout[:, :WIDTH], heldout[:, WIDTH:]
    with torch.no_grad():
        error = (sae(x).reconstruction - y).square().sum()
    fvu = float(error / (y - y.mean(0)).square().sum())
    assert fvu == pytest.approx(trainer.result.fvu, rel=1e-3)
    with pytest.raises(UserError, match="width 32"):
        SaeTrainer(Transcoder(64, WIDTH, 20, k=6)).train_on(
            TensorSource(pairs[:, :WIDTH]), config("topk")
        )


def test_the_gradient_of_the_squared_error_is_twice_the_error() -> None:
    error = torch.randn(5, 3, dtype=torch.float64).t().requires_grad_()  # rows are not contiguous
    context = LossContext(variance=2.0)
    assert variance_share(error, context).item() == pytest.approx(error.square().sum().item() / 6)
    assert torch.autograd.gradcheck(lambda one: variance_share(one, context), error)


def test_a_step_moves_decoder_rows_at_right_angles_to_themselves() -> None:
    sae = TopKSae(1_500, 8, 4)  # more rows than are worked on at once
    before = sae.W_dec.detach().clone()
    source = TensorSource(torch.randn(64, 8), torch.zeros(64, dtype=torch.bool))
    state = TrainState(sae, make_plan(sae, source, SaeTrainingConfig(steps=10, batch_size=8)))
    across = torch.randn(1_500, 8)
    across -= (across * before).sum(1, keepdim=True) * before
    sae.W_dec.grad = across + 7 * before
    gradient = sae.W_dec.grad
    state.apply_gradients()
    assert torch.allclose(gradient, across, atol=1e-5)
    assert not torch.equal(sae.W_dec, before)
    assert torch.allclose(sae.W_dec.norm(dim=1), torch.ones(1_500))
