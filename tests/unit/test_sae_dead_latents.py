"""AuxK by dense products and entry by entry: the same gradients, at the lesser cost."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from mi_crow.mechanistic.sae.base import LossContext, SparseAutoencoder
from mi_crow.mechanistic.sae.kernels.entries import decode_entries, encode_topk
from mi_crow.mechanistic.sae.rules import losses
from mi_crow.mechanistic.sae.rules.batchtopk import BatchTopKSae
from mi_crow.mechanistic.sae.rules.dead_latents import dense_costs_less
from mi_crow.mechanistic.sae.rules.topk import TopKSae

N, D, M, K_AUX = 96, 24, 400, 12


def tokens(n: int, d: int) -> tuple[Tensor, Tensor]:
    """An encoder's input and a residual."""
    generator = torch.Generator().manual_seed(3)
    x, residual = (torch.randn(n, d, generator=generator) for _ in range(2))
    return x, residual


def context(n_dead: int, n_latents: int, k_aux: int) -> LossContext:
    dead = torch.linspace(0, n_latents - 1, n_dead).long()
    return LossContext(1.0, dead=dead, n_dead=n_dead, aux_alpha=1 / 32, k_aux=k_aux)


def entry_by_entry(
    sae: SparseAutoencoder, x: Tensor, residual: Tensor, given: LossContext
) -> Tensor:
    """The loss with a gathered decoder row for each active entry."""
    assert given.dead is not None
    k = min(given.k_aux, given.dead.numel())
    z, entries = encode_topk(x, sae.encoder_rows[given.dead], sae.b_enc[given.dead], k)
    error = residual - decode_entries(z.flatten(), entries, sae.W_dec[given.dead])
    weight = given.aux_alpha * k / given.k_aux
    return weight * error.square().sum() / (given.variance * len(x))


def gradients(loss: Tensor, sae: SparseAutoencoder) -> list[Tensor]:
    return list(torch.autograd.grad(loss, [sae.encoder_rows, sae.b_enc, sae.W_dec]))


@pytest.mark.slow
@pytest.mark.parametrize("make", [TopKSae, BatchTopKSae])
@pytest.mark.parametrize("n_dead", [1, K_AUX, 30, 50, 200, 400])
def test_the_gradients_are_those_of_the_gathered_rows(
    make: Callable[[int, int, int], SparseAutoencoder], n_dead: int
) -> None:
    sae, (x, residual) = make(M, D, 4), tokens(N, D)
    with torch.no_grad():
        sae.b_enc.normal_(std=0.3, generator=torch.Generator().manual_seed(5))
    given = context(n_dead, M, K_AUX)
    ours = losses.auxk_loss(sae, x, residual, given)["auxk"]
    wanted = entry_by_entry(sae, x, residual, given)
    torch.testing.assert_close(ours, wanted, rtol=1e-6, atol=0)
    for got, right in zip(gradients(ours, sae), gradients(wanted, sae), strict=True):
        assert (got - right).norm() <= 1e-6 * right.norm()


@pytest.mark.slow
def test_the_sizes_alone_choose_and_the_same_seed_gives_the_same_gradients() -> None:
    sae, (x, residual) = TopKSae(M, D, 4), tokens(N, D)
    for n_dead in (30, 400):
        given = context(n_dead, M, K_AUX)
        first, second = (
            gradients(losses.auxk_loss(sae, x, residual, given)["auxk"], sae) for _ in range(2)
        )
        assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def test_few_dead_latents_go_by_dense_products_and_many_entry_by_entry() -> None:
    cpu = torch.device("cpu")
    assert dense_costs_less(2048, (50, 576), 50, cpu)
    assert dense_costs_less(2048, (200, 576), 200, cpu)
    assert not dense_costs_less(2048, (20_000, 576), 288, cpu)
