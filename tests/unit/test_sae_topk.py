"""The TopK SAE as arithmetic: encode, decode, folding."""

import pytest
import torch

from mi_crow.errors import UserError
from mi_crow.mechanistic.sae import SparseLatents, TopKSae


def noisy_sae(n_latents: int = 48, n_inputs: int = 10, k: int = 5) -> TopKSae:
    sae = TopKSae(n_latents, n_inputs, k, dtype=torch.float64, seed=1)
    with torch.no_grad():
        for parameter in sae.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.3)
    return sae


def test_a_fresh_sae_has_unit_rows_and_a_tied_encoder() -> None:
    sae = TopKSae(64, 16, 4, seed=5)
    torch.testing.assert_close(sae.decoder_rows.norm(dim=1), torch.ones(64))
    assert torch.equal(sae.W_enc, sae.W_dec.T)
    assert torch.equal(sae.W_dec, TopKSae(64, 16, 4, seed=5).W_dec)
    assert not torch.equal(sae.W_dec, TopKSae(64, 16, 4, seed=6).W_dec)


def test_sparse_and_dense_forms_agree_for_any_leading_shape() -> None:
    sae = noisy_sae()
    x = torch.randn(2, 7, 10, dtype=torch.float64)
    latents = sae.encode_sparse(x)
    assert latents.values.shape == latents.indices.shape == (2, 7, 5)
    dense = sae.encode(x)
    torch.testing.assert_close(latents.dense(48), dense)
    torch.testing.assert_close(sae.decode_sparse(latents), sae.decode(dense))
    torch.testing.assert_close(sae(x).reconstruction, sae.decode(dense))


def test_values_are_never_negative_though_k_exceeds_the_positive_ones() -> None:
    sae = TopKSae(6, 3, 6)
    latents = sae.encode_sparse(torch.randn(20, 3))
    assert (latents.values >= 0).all()
    assert (latents.values == 0).any()


def test_folding_a_scale_gives_the_same_reconstruction_of_plain_inputs() -> None:
    sae = noisy_sae()
    x = torch.randn(30, 10, dtype=torch.float64)
    scale = 0.37
    scaled = sae(scale * x)
    sae.fold_scale(scale)
    plain = sae(x)
    torch.testing.assert_close(plain.reconstruction, scaled.reconstruction / scale)
    torch.testing.assert_close(plain.latents.values, scaled.latents.values / scale)
    assert torch.equal(plain.latents.indices, scaled.latents.indices)


def test_bf16_activations_are_encoded_in_the_dtype_of_the_sae() -> None:
    sae = TopKSae(32, 8, 4)
    assert sae.encode(torch.randn(3, 8).bfloat16()).dtype == torch.float32


def test_a_wrong_width_is_explained() -> None:
    with pytest.raises(UserError, match="width 9"):
        TopKSae(32, 8, 4).encode(torch.randn(3, 9))


@pytest.mark.parametrize("k", [0, 33])
def test_k_outside_the_latents_is_refused(k: int) -> None:
    with pytest.raises(UserError, match=f"k = {k}"):
        TopKSae(32, 8, k)


def test_the_random_control_centres_like_the_trained_sae() -> None:
    b_dec = torch.randn(8)
    control = TopKSae.random(32, 8, 4, b_dec=b_dec, seed=2)
    assert torch.equal(control.b_dec, b_dec)
    assert isinstance(control.encode_sparse(torch.randn(2, 8)), SparseLatents)
