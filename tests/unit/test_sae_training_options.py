"""Options of a training beside the rule: the tanh penalty, orthogonal rows, aligned encoders."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from mi_crow.errors import CancelledError, UserError
from mi_crow.mechanistic.sae import (
    JumpReluSae,
    SaeTrainer,
    SaeTrainingConfig,
    SparseAutoencoder,
    TopKSae,
    TrainConfig,
    Transcoder,
)
from mi_crow.mechanistic.sae.base import LossContext
from mi_crow.mechanistic.sae.rules.pre_act import COEFFICIENT
from mi_crow.mechanistic.sae.source import TensorSource, fixed_batches
from mi_crow.mechanistic.sae.train.decoder_geometry import align_encoder, orthogonality_loss
from mi_crow.mechanistic.sae.train.whitening import whitening_of
from tests.helpers.progress import Watched

FEATURES, WIDTH, ACTIVE = 48, 16, 3


class CopiesCounted(TorchDispatchMode):
    """Counts copies to another dtype or device."""

    copies = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.copies += func.overloadpacket is torch.ops.aten._to_copy
        return func(*args, **(kwargs or {}))


@pytest.fixture(scope="module")
def source() -> TensorSource:
    """Sparse sums of unit rows around a centre, in units far from sqrt(d)."""
    generator = torch.Generator().manual_seed(2)
    rows = torch.randn(FEATURES, WIDTH, generator=generator)
    rows /= rows.norm(dim=1, keepdim=True)
    n = 3_000
    on = torch.rand(n, FEATURES, generator=generator) < ACTIVE / FEATURES
    strength = 0.5 + torch.rand(n, FEATURES, generator=generator)
    return TensorSource(20 * ((on * strength) @ rows + torch.randn(WIDTH, generator=generator)))


def config(steps: int = 24, **changes: object) -> SaeTrainingConfig:
    fields: dict[str, object] = {
        "steps": steps,
        "batch_size": 64,
        "checkpoint_every": 10,
        "log_every": 4,
        "dead_tokens": 256,
    }
    return SaeTrainingConfig(**{**fields, **changes})  # pyright: ignore[reportArgumentType]


def trained(sae: SparseAutoencoder, source: TensorSource, **changes: object) -> SaeTrainer:
    trainer = SaeTrainer(sae)
    trainer.train_on(source, config(**changes))  # pyright: ignore[reportArgumentType]
    return trainer


def test_the_tanh_penalty_is_that_of_the_paper_with_all_its_gradients() -> None:
    sae = JumpReluSae(24, 8, bandwidth=0.05, seed=1).double()
    sae.penalty = "tanh"
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        sae.threshold.copy_(0.1 + 0.2 * torch.rand(24, generator=generator))
        sae.b_enc.copy_(0.1 * torch.randn(24, generator=generator))
    x = torch.randn(40, 8, generator=generator, dtype=torch.float64)
    dead = torch.tensor([2, 5, 11])
    context = LossContext(variance=7.0, dead=dead, sparsity=0.3, target_l0=4.0)

    def dense() -> dict[str, Tensor]:
        pre = (x - sae.b_dec) @ sae.encoder_rows.T + sae.b_enc
        epsilon = 0.05 * 8**0.5
        window = ((pre - sae.threshold).abs() <= epsilon / 2).double().detach()
        moved = sae.threshold - sae.threshold.detach()
        on = (pre > sae.threshold).double().detach()
        z = pre * on - sae.threshold.detach() / epsilon * window * moved
        rebuilt = z @ sae.W_dec + sae.b_dec
        own = (x - sae.b_dec).detach() @ sae.encoder_rows.T + sae.b_enc
        below = (sae.threshold - own).relu()[:, dead]
        return {
            "reconstruction": (x - rebuilt).square().sum() / (7 * len(x)),
            "sparsity": 0.3 * (4 * z).tanh().sum() / (7 * len(x)),
            "pre_act": COEFFICIENT * below.sum() / (7 * len(x)),
        }

    def gradients(losses: dict[str, Tensor], factor: float) -> list[Tensor]:
        sae.zero_grad()
        # `pre_act` is tiny: weighed up, so that a mistake in it shows.
        torch.stack(
            [losses[key] * (factor if key == "pre_act" else 1) for key in losses]
        ).sum().backward()
        return [torch.zeros_like(p) if p.grad is None else p.grad.clone() for p in sae.parameters()]

    found, wanted = sae.training_output(x, x, context).losses, dense()
    assert found.keys() == wanted.keys()
    for name, loss in wanted.items():
        torch.testing.assert_close(found[name], loss)
    for ours, theirs in zip(gradients(found, 1e6), gradients(wanted, 1e6), strict=True):
        torch.testing.assert_close(ours, theirs)


@pytest.mark.slow
def test_the_tanh_penalty_leads_to_the_target(source: TensorSource) -> None:
    sae = JumpReluSae(FEATURES, WIDTH)
    result = trained(sae, source, steps=300, penalty="tanh", target_l0=4.0, dead_tokens=20_000)
    assert result.result is not None
    assert result.result.l0 == pytest.approx(4.0, rel=0.2)
    assert result.result.fvu < 0.6


def test_a_fixed_coefficient_of_the_tanh_penalty_sparsifies(source: TensorSource) -> None:
    found = []
    for coefficient in (0.01, 10.0):
        one = trained(JumpReluSae(FEATURES, WIDTH), source, penalty="tanh", l1_lambda=coefficient)
        assert one.result is not None
        found.append(one.result.l0)
    assert found[1] < found[0]


@pytest.mark.parametrize("chunk", [64, 7])
def test_orthogonality_is_the_largest_squared_cosine_within_a_chunk(chunk: int) -> None:
    rows = torch.randn(20, 5, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    rows = (rows / rows.norm(dim=1, keepdim=True)).requires_grad_()
    order = torch.randperm(20, generator=torch.Generator().manual_seed(9 * 1_000_003 + 2))
    parts = order.tensor_split(-(-20 // chunk))
    nearest = []
    for part in parts:
        for i in part.tolist():
            cosines = [(rows[i] @ rows[j]) ** 2 for j in part.tolist() if j != i]
            nearest.append(torch.stack(cosines).max())
    wanted = torch.stack(nearest).mean()
    (expected,) = torch.autograd.grad(wanted, rows)
    found = orthogonality_loss(rows, seed=9, step=2, chunk=chunk)
    (gradient,) = torch.autograd.grad(found, rows)
    torch.testing.assert_close(found, wanted)
    torch.testing.assert_close(gradient, expected)
    assert float(orthogonality_loss(torch.eye(4), 0, 0)) == 0
    assert float(orthogonality_loss(torch.eye(1), 0, 0)) == 0


def test_orthogonality_keeps_decoder_rows_apart(source: TensorSource) -> None:
    def nearest(coefficient: float) -> float:
        sae = TopKSae(FEATURES, WIDTH, 4)
        SaeTrainer(sae).train_on(source, config(40, orthogonality=coefficient))
        return float(orthogonality_loss(sae.W_dec, 0, 0))

    assert nearest(5.0) < 0.8 * nearest(0.0)


def test_aligned_rows_have_an_inner_product_of_one_through_the_training(
    source: TensorSource,
) -> None:
    sae, plain = TopKSae(FEATURES, WIDTH, 4), TopKSae(FEATURES, WIDTH, 4)
    trained(sae, source, aligned=True)
    trained(plain, source)
    ones = torch.ones(FEATURES)
    torch.testing.assert_close(torch.linalg.vecdot(sae.encoder_rows, sae.W_dec), ones)
    assert not torch.allclose(torch.linalg.vecdot(plain.encoder_rows, plain.W_dec), ones)
    assert not torch.allclose(sae.encoder_rows, sae.W_dec, atol=1e-3)  # aligned, and not tied
    # As little as possible: what is across the decoder's row stays.
    encoder, decoder = torch.tensor([[3.0, 4.0]]), torch.tensor([[1.0, 0.0]])
    align_encoder(encoder, decoder)
    assert encoder.tolist() == [[1.0, 4.0]]


def test_gradients_of_rows_that_share_their_nearest_are_added_in_a_fixed_order() -> None:
    """Those of `index_select` and `gather` are added by many threads at once on CUDA."""
    generator = torch.Generator().manual_seed(4)
    rows = torch.nn.functional.normalize(torch.randn(40, 3, generator=generator), dim=1)
    rows.requires_grad_()
    loss = orthogonality_loss(rows, seed=9, step=2)
    steps, seen = [loss.grad_fn], set[str]()
    while steps:
        one = steps.pop()
        if one is not None:
            seen.add(one.name())
            steps += [before for before, _ in one.next_functions]
    assert not {"IndexSelectBackward0", "GatherBackward0"} & seen
    (found,) = torch.autograd.grad(loss, rows)
    nearest = (rows @ rows.T).square().fill_diagonal_(-1).argmax(1).tolist()
    assert len(set(nearest)) < len(nearest)
    wanted = torch.autograd.grad(
        torch.stack([one.dot(rows[place]) for one, place in zip(rows, nearest, strict=True)])
        .square()
        .mean(),
        rows,
    )
    torch.testing.assert_close(found, wanted[0])


@pytest.mark.parametrize(
    ("make", "changes"),
    [
        (lambda: JumpReluSae(FEATURES, WIDTH), {"penalty": "tanh", "target_l0": 4.0}),
        (lambda: TopKSae(FEATURES, WIDTH, 4), {"orthogonality": 0.5, "aligned": True}),
        (lambda: TopKSae(FEATURES, WIDTH, 4), {"whiten": True}),
    ],
    ids=["tanh", "orthogonal", "whitened"],
)
def test_a_stopped_training_with_options_goes_on_bit_for_bit(
    make: Callable[[], SparseAutoencoder],
    changes: dict[str, object],
    source: TensorSource,
    tmp_path: Path,
) -> None:
    whole, stopped, resumed = make(), make(), make()
    history = SaeTrainer(whole).train_on(source, config(**changes))  # pyright: ignore[reportArgumentType]
    with pytest.raises(CancelledError):
        SaeTrainer(stopped).train_on(source, config(**changes), Watched(looks=13), tmp_path)  # pyright: ignore[reportArgumentType]
    again = SaeTrainer(resumed).train_on(source, config(**changes), None, tmp_path)  # pyright: ignore[reportArgumentType]
    assert again["loss"] == history["loss"]
    for name, tensor in whole.state_dict().items():
        assert torch.equal(tensor, resumed.state_dict()[name])


def test_whitening_is_that_of_the_covariance_and_folds_back(source: TensorSource) -> None:
    x = source.sample(10_000, 0).double()
    found = whitening_of(source, None, 0.0)
    used = torch.cat([*fixed_batches(source, 10_000, None)]).double()
    torch.testing.assert_close(found.whitened(used).T.cov(correction=0), torch.eye(WIDTH).double())
    torch.testing.assert_close(found.matrix @ found.inverse, torch.eye(WIDTH).double())
    shrunk = torch.linalg.eigvalsh(whitening_of(source, None, 1.0).matrix)
    torch.testing.assert_close(shrunk, shrunk.mean().expand(WIDTH))  # a scale alone

    for make in (lambda: TopKSae(FEATURES, WIDTH, 4), lambda: JumpReluSae(FEATURES, WIDTH)):
        sae = make().double()
        sae.b_dec.data.normal_(generator=torch.Generator().manual_seed(1))
        before = {name: tensor.clone() for name, tensor in sae.state_dict().items()}
        wanted = sae(found.whitened(x))
        found.fold(sae)
        got = sae(x)
        torch.testing.assert_close(got.latents.values, wanted.latents.values)
        torch.testing.assert_close(found.whitened(got.reconstruction), wanted.reconstruction)
        found.unfold(sae)
        for name, tensor in before.items():
            torch.testing.assert_close(sae.state_dict()[name], tensor)


def test_whitening_converts_its_matrix_once(source: TensorSource) -> None:
    """On a GPU it would be copied there, and waited for, in every step."""
    found = whitening_of(source, None, 0.0)
    x = source.sample(10, 0)
    first = found.whitened(x)
    assert torch.equal(first, (x - found.mean.float()) @ found.matrix.float())
    with CopiesCounted() as counted:
        assert torch.equal(found.whitened(x), first)
    assert counted.copies == 0
    assert found.whitened(x.double()).dtype == torch.float64


def test_a_whitened_training_gives_an_sae_of_plain_activations(source: TensorSource) -> None:
    sae = TopKSae(FEATURES, WIDTH, 4)
    trainer = trained(sae, source, steps=60, whiten=True)
    assert trainer.result is not None
    assert trainer.result.fvu < 0.8
    x = source.sample(500, 0, "heldout")
    error = (x - sae(x).reconstruction).square().sum() / (x - x.mean(0)).square().sum()
    assert float(error) == pytest.approx(trainer.result.fvu, rel=0.2)
    first = trainer.result.fvu
    further = trained(sae, source, steps=60, whiten=True)  # of a loaded SAE it goes on
    assert further.result is not None
    assert further.result.fvu < first


def test_options_that_an_architecture_lacks_are_refused(source: TensorSource) -> None:
    with pytest.raises(UserError, match="topk has no tanh penalty"):
        TrainConfig("run", "a", training=SaeTrainingConfig(penalty="tanh"))
    with pytest.raises(UserError, match="a topk SAE has no tanh penalty"):
        trained(TopKSae(FEATURES, WIDTH, 4), source, penalty="tanh")
    with pytest.raises(UserError, match="--aligned is for SAEs, not for transcoders"):
        trained(Transcoder(FEATURES, WIDTH // 2, WIDTH // 2, 4), source, aligned=True)
    with pytest.raises(UserError, match="the penalty 'sine' is not known"):
        SaeTrainingConfig(penalty="sine")
    with pytest.raises(UserError, match="a crosscoder takes no --aligned"):
        TrainConfig(
            "run",
            "a",
            "topk",
            family="crosscoder",
            layers=("a", "b"),
            training=SaeTrainingConfig(aligned=True),
        )
