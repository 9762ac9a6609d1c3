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


@pytest.mark.parametrize("tokens", [1, 4])
@pytest.mark.parametrize("few", [1, 3])
def test_a_few_tokens_at_a_time_have_the_latents_of_the_whole_encoding(
    tokens: int, few: int
) -> None:
    """As while a text is written: silent tokens beside others, the encoder turned after a while."""
    generator = torch.Generator().manual_seed(2)
    sae = TopKSae(96, 16, k=6)
    with torch.no_grad():
        sae.b_dec.copy_(torch.randn(16, generator=generator))
    x = torch.randn(60, 1, 16, generator=generator)
    whole = sae.encode(x)
    chosen = whole.sum((0, 1)).topk(few).indices.tolist()
    some = SomeLatents(sae, chosen)
    found = torch.cat([some(part) for part in x.split(tokens)])
    torch.testing.assert_close(found, whole[..., chosen], atol=1e-5, rtol=1e-5)
    active = (whole[..., chosen] > 0).any(-1)
    assert active.any()
    assert not active.all()
