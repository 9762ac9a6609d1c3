"""Where the features are known: does training find them?"""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

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
)
from mi_crow.mechanistic.sae.source import TensorSource

FEATURES, WIDTH, ACTIVE, LATENTS = 512, 128, 5, 768

OTHERS: dict[str, Callable[[], SparseAutoencoder]] = {
    "batchtopk": lambda: BatchTopKSae(LATENTS, WIDTH, ACTIVE),
    "matryoshka": lambda: MatryoshkaSae(LATENTS, WIDTH, ACTIVE),
    "jumprelu": lambda: JumpReluSae(LATENTS, WIDTH),
    "l1": lambda: L1Sae(LATENTS, WIDTH),
    "gated": lambda: GatedSae(LATENTS, WIDTH),
}


@pytest.fixture(scope="module")
def dictionary() -> Tensor:
    rows = torch.randn(FEATURES, WIDTH, generator=torch.Generator().manual_seed(0))
    return rows / rows.norm(dim=1, keepdim=True)


@pytest.fixture(scope="module")
def source(dictionary: Tensor) -> TensorSource:
    """Tokens that are sums of five of 512 directions in 128 dimensions, strengths 0.5 to 1.5."""
    generator = torch.Generator().manual_seed(1)
    n = 20_000
    on = torch.rand(n, FEATURES, generator=generator).topk(ACTIVE, dim=1).indices
    strengths = 0.5 + torch.rand(n, ACTIVE, generator=generator)
    return TensorSource(torch.zeros(n, FEATURES).scatter(1, on, strengths) @ dictionary)


def share_found(
    sae: SparseAutoencoder, source: TensorSource, dictionary: Tensor, steps: int
) -> float:
    """Share of the true directions that a decoder row meets at a cosine of 0.95 or more."""
    config = SaeTrainingConfig(
        steps=steps,
        batch_size=512,
        log_every=steps,
        checkpoint_every=steps,
        target_l0=float(ACTIVE) if sae.steers_sparsity else None,
    )
    trainer = SaeTrainer(sae)
    trainer.train_on(source, config)
    assert trainer.result is not None
    assert trainer.result.l0 == pytest.approx(ACTIVE, rel=0.2)
    best = (dictionary @ sae.decoder_rows.T).amax(1)
    return float((best >= 0.95).float().mean())


@pytest.mark.slow
def test_topk_finds_a_known_dictionary(source: TensorSource, dictionary: Tensor) -> None:
    assert share_found(TopKSae(LATENTS, WIDTH, ACTIVE), source, dictionary, 400) >= 0.95


@pytest.mark.slow
@pytest.mark.parametrize("name", OTHERS)
def test_every_architecture_finds_most_of_it(
    name: str, source: TensorSource, dictionary: Tensor
) -> None:
    assert share_found(OTHERS[name](), source, dictionary, 250) >= 0.8
