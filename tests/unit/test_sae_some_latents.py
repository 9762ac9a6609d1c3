"""A few latents by themselves are what encoding everything gives them."""

import pytest
import torch

from mi_crow.errors import UserError
from mi_crow.mechanistic.sae import BatchTopKSae, GatedSae, JumpReluSae, L1Sae, TopKSae, Transcoder
from mi_crow.mechanistic.sae.base import SparseAutoencoder
from mi_crow.mechanistic.sae.rules.groupmax import GroupMaxSae
from mi_crow.mechanistic.sae.rules.some_latents import SomeLatents

SAES = {
    "topk": lambda: TopKSae(96, 16, k=6),
    "transcoder": lambda: Transcoder(96, 16, 24, k=6),
    "groupmax": lambda: GroupMaxSae(96, 16, k=6),
    "batchtopk": lambda: BatchTopKSae(96, 16, k=6),
    "jumprelu": lambda: JumpReluSae(96, 16),
    "l1": lambda: L1Sae(96, 16),
    "gated": lambda: GatedSae(96, 16),
}


@pytest.mark.parametrize("name", SAES)
@pytest.mark.parametrize("input_norm", ["none", "layer_norm"])
def test_some_latents_are_those_of_the_whole_encoding(name: str, input_norm: str) -> None:
    sae: SparseAutoencoder = SAES[name]()
    sae.input_norm = input_norm
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for own in (sae.encoder_bias, getattr(sae, "threshold", None)):
            if own is not None:
                own.copy_(0.2 * torch.randn(96, generator=generator))
    x = torch.randn(3, 50, 16, generator=generator)
    whole = sae.encode(x)
    chosen = [95, 0, *whole.sum((0, 1)).topk(3).indices.tolist()]
    torch.testing.assert_close(
        SomeLatents(sae, chosen)(x), whole[..., chosen], atol=1e-5, rtol=1e-5
    )
    assert (whole[..., chosen] > 0).any()
    # One token whose latents are all silent, as most are while a text is written.
    silent = int((whole[0, 0] == 0).nonzero()[0])
    assert SomeLatents(sae, [silent])(x[0, :1]).tolist() == [[0.0]]
    assert SomeLatents(sae, [])(x).shape == (3, 50, 0)
    with pytest.raises(UserError, match="feature 96 is not a feature of this SAE"):
        SomeLatents(sae, [0, 96])
