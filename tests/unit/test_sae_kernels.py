"""The sparse kernels against plain dense PyTorch, values and gradients."""

from typing import Any

import pytest
import torch
from torch import Tensor

from mi_crow.mechanistic.sae.base import LossContext
from mi_crow.mechanistic.sae.kernels import entries as entries_module
from mi_crow.mechanistic.sae.kernels.bags import dense_latents
from mi_crow.mechanistic.sae.kernels.entries import (
    Entries,
    decode_entries,
    encode_topk,
    entries_above,
    latent_sums,
    strongest_entries,
)
from mi_crow.mechanistic.sae.kernels.product import rounded_topk_activations, topk_activations
from mi_crow.mechanistic.sae.rules.topk import TopKSae

N, D, M, K = 7, 5, 11, 3


def operands(dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(4)
    x = torch.randn(N, D, generator=generator, dtype=dtype)
    rows = torch.randn(M, D, generator=generator, dtype=dtype)
    bias = torch.randn(M, generator=generator, dtype=dtype) * 0.3
    return x, rows, bias


def dense_encode(x: Tensor, rows: Tensor, bias: Tensor, k: int) -> Tensor:
    top = (x @ rows.T + bias).topk(k, dim=1)
    return torch.zeros(x.shape[0], rows.shape[0], dtype=x.dtype).scatter(
        1, top.indices, top.values.relu()
    )


def dense_topk(x: Tensor, rows: Tensor, bias: Tensor, k: int) -> Tensor:
    """Our own, spread out."""
    values, entries = encode_topk(x, rows, bias, k)
    return dense_latents(values, entries.columns.view(values.shape), len(rows))


def test_the_encoder_passes_gradcheck() -> None:
    x, rows, bias = (tensor.requires_grad_() for tensor in operands())
    assert torch.autograd.gradcheck(
        lambda x, rows, bias: encode_topk(x, rows, bias, K)[0], (x, rows, bias)
    )


def test_the_decoder_passes_gradcheck() -> None:
    x, rows, bias = operands()
    values, entries = encode_topk(x, rows, bias, K)
    assert torch.autograd.gradcheck(
        lambda values, rows: decode_entries(values, entries, rows),
        (values.flatten().requires_grad_(), rows.requires_grad_()),
    )


@pytest.mark.parametrize("k", [1, K, M])
def test_encoding_equals_the_dense_reference(k: int) -> None:
    x, rows, bias = operands()
    assert encode_topk(x, rows, bias, k)[0].shape == (N, k)
    torch.testing.assert_close(dense_topk(x, rows, bias, k), dense_encode(x, rows, bias, k))


@pytest.mark.parametrize("n_latents", [37, 40, 63, 64, 65])
def test_padding_for_speed_changes_nothing(n_latents: int) -> None:
    generator = torch.Generator().manual_seed(6)
    x, rows = (torch.randn(n, D, generator=generator) for n in (N, n_latents))
    bias = torch.zeros(n_latents)
    bias[:5] = -torch.inf
    values, indices = topk_activations(x, rows, bias, 1)
    torch.testing.assert_close(
        dense_latents(values, indices, n_latents), dense_encode(x, rows, bias, 1)
    )
    _, indices = topk_activations(x, rows, torch.full((n_latents,), -torch.inf), 1)
    assert (indices < n_latents).all()


def test_a_batch_of_several_blocks_equals_the_dense_reference() -> None:
    generator = torch.Generator().manual_seed(5)
    x = torch.randn(2500, D, generator=generator, dtype=torch.float64)
    _, rows, bias = operands()
    torch.testing.assert_close(dense_topk(x, rows, bias, K), dense_encode(x, rows, bias, K))
    values, entries = entries_above(x, rows, bias, 0.5)
    pre = x @ rows.T + bias
    torch.testing.assert_close(values, pre[pre > 0.5])
    assert torch.equal(torch.stack([entries.rows, entries.columns], 1), (pre > 0.5).nonzero())


@pytest.mark.parametrize("n_latents", [40, 63])
@pytest.mark.parametrize("n", [15, 16, 50, 2100])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_stored_activations_are_encoded_as_the_formula_says(
    n_latents: int, n: int, dtype: torch.dtype
) -> None:
    """Few tokens for the weights' size and many, whose bias is one more column of the weights."""
    generator = torch.Generator().manual_seed(n)
    sae = TopKSae(n_latents, 4, K)
    x = torch.randn(n, 4, generator=generator).to(dtype)
    with torch.no_grad():
        for parameter in (sae.b_enc, sae.b_dec, sae.encoder_rows):
            parameter.copy_(torch.randn(parameter.shape, generator=generator))
    with torch.inference_mode():
        found = sae.encode_sparse(x)
        assert found.values.dtype == torch.float32
    expected = dense_encode(x.float() - sae.b_dec, sae.encoder_rows, sae.b_enc, K)
    torch.testing.assert_close(found.dense(n_latents), expected)
    torch.testing.assert_close(sae.encode_sparse(x).dense(n_latents), expected)  # not inference


def test_a_latent_that_nobody_uses_gets_no_gradient() -> None:
    indices = torch.tensor([[0, 2], [2, 5]])
    weights = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
    x = torch.tensor([[1.0, 10.0], [2.0, 20.0]])
    gradient = latent_sums(weights.flatten(), Entries.of_topk(indices, 6), x)
    expected = torch.zeros(6, 2)
    expected[0], expected[2], expected[5] = x[0], 2 * x[0] + 3 * x[1], 4 * x[1]
    assert torch.equal(gradient, expected)


@pytest.mark.parametrize("n_latents", [6, 1 << 15, (1 << 15) + 1, 1 << 17])
def test_entries_are_grouped_by_latent_up_to_the_last_one(n_latents: int) -> None:
    last = n_latents - 1
    columns, rows = torch.tensor([last, 0, last, 3, 0]), torch.tensor([0, 0, 1, 1, 2])
    grouped = Entries(columns, rows, 3, n_latents).grouped
    assert grouped.order.tolist() == [1, 4, 3, 0, 2]
    assert grouped.rows.tolist() == [0, 2, 1, 0, 1]
    assert grouped.starts[[0, 1, 3, 4, last]].tolist() == [0, 2, 2, 3, 3]


def test_inference_mode_and_training_can_take_turns() -> None:
    x, rows, bias = operands(torch.float32)
    with torch.inference_mode():
        topk_activations(x.repeat(40, 1), rows, bias, K)
    rows.requires_grad_()
    encode_topk(x, rows, bias, K)[0].sum().backward()
    assert rows.grad is not None


def dense_losses(sae: TopKSae, x: Tensor, context: LossContext) -> dict[str, Tensor]:
    """The losses written out with [n, M] tensors and nothing clever."""
    centred = x - sae.b_dec
    z = dense_encode(centred, sae.encoder_rows, sae.b_enc, sae.k)
    residual = x - (z @ sae.W_dec + sae.b_dec)
    total = context.variance * x.shape[0]
    losses = {"reconstruction": residual.square().sum() / total}
    if context.dead is not None:
        dead = context.dead
        k = min(context.k_aux, len(dead))
        z_dead = dense_encode(centred.detach(), sae.encoder_rows[dead], sae.b_enc[dead], k)
        error = residual.detach() - z_dead @ sae.W_dec[dead]
        losses["auxk"] = context.aux_alpha * error.square().sum() * (k / context.k_aux) / total
    return losses


@pytest.mark.parametrize("dead", [None, [1], [0, 3, 4, 9, 10]])
def test_losses_and_their_gradients_equal_the_dense_reference(dead: list[int] | None) -> None:
    sae = TopKSae(M, D, K, dtype=torch.float64, seed=2)
    with torch.no_grad():
        for parameter in sae.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.2)
    x = operands()[0]
    context = LossContext(
        variance=2.5,
        dead=None if dead is None else torch.tensor(dead),
        aux_alpha=1 / 32,
        k_aux=2,
    )
    ours = sae.training_output(x, x, context).losses
    reference = dense_losses(sae, x, context)
    assert ours.keys() == reference.keys()
    for name, loss in ours.items():
        torch.testing.assert_close(loss, reference[name])
        names, parameters = zip(*sae.named_parameters(), strict=True)
        got = torch.autograd.grad(loss, parameters, allow_unused=True, retain_graph=True)
        wanted = torch.autograd.grad(
            reference[name], parameters, allow_unused=True, retain_graph=True
        )
        for parameter, a, b in zip(names, got, wanted, strict=True):
            assert (a is None) == (b is None), (name, parameter)
            if a is not None and b is not None:
                torch.testing.assert_close(a, b, msg=lambda text, p=parameter: f"{p}: {text}")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_the_cuda_kernels_agree_with_the_cpu() -> None:
    x, rows, bias = operands()
    results = []
    for device in ("cpu", "cuda"):
        x_, rows_, bias_ = (t.to(device).detach().requires_grad_() for t in (x, rows, bias))
        values, entries = encode_topk(x_, rows_, bias_, K)
        loss = decode_entries(values.flatten(), entries, rows_).square().sum()
        gradients = torch.autograd.grad(loss, (x_, rows_, bias_))
        results.append([gradient.cpu() for gradient in gradients])
    for on_cpu, on_cuda in zip(*results, strict=True):
        torch.testing.assert_close(on_cpu, on_cuda)


def test_the_strongest_of_a_fresh_sae_are_found_without_a_list_of_all_positive_ones(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Half of all pre-activations are positive then: a list of them is longer than the product."""
    generator = torch.Generator().manual_seed(7)
    x, rows = (torch.randn(size, 16, generator=generator) for size in (256, 400))
    bias, listed = torch.zeros(400), []

    def noting(*operands: Any) -> tuple[Tensor, Entries]:
        found = entries_above(*operands)
        listed.append(found[0].numel())
        return found

    monkeypatch.setattr(entries_module, "entries_above", noting)
    values, entries = strongest_entries(x, rows, bias, 4)
    assert max(listed) < 4 * len(values)  # and not 200 a token
    wanted = (x @ rows.T).flatten().topk(4 * len(x))
    assert set((entries.rows * 400 + entries.columns).tolist()) == set(wanted.indices.tolist())


def test_a_rounded_product_chooses_the_same_latents_with_the_same_values() -> None:
    """Alone a bf16 product gives every eighth token other latents; here it is only a first look."""
    generator = torch.Generator().manual_seed(11)
    x, rows = (torch.randn(size, 64, generator=generator) for size in (512, 1000))
    bias, centre = torch.zeros(1000), torch.randn(64, generator=generator)
    wanted = topk_activations(x, rows, bias, 8, centre)
    found = rounded_topk_activations(x, rows, bias, 8, torch.bfloat16, centre)
    alone = topk_activations((x - centre).bfloat16(), rows.bfloat16(), bias.bfloat16(), 8)
    sets = [indices.sort(1).values for _, indices in (wanted, found, alone)]
    assert (sets[0] != sets[2]).any(1).float().mean() > 0.05
    assert torch.equal(sets[0], sets[1])
    dense = [dense_latents(*one, 1000) for one in (wanted, found)]
    torch.testing.assert_close(dense[1], dense[0], rtol=1e-4, atol=1e-4)


def test_a_rounded_product_of_rounded_inputs_chooses_in_the_encoder_s_dtype() -> None:
    """As what a transcoder reads of a run in bf16, from which no centre is subtracted."""
    generator = torch.Generator().manual_seed(12)
    x, rows = (torch.randn(size, 64, generator=generator) for size in (512, 1000))
    x, bias = x.bfloat16(), torch.zeros(1000)
    wanted = topk_activations(x, rows, bias, 8)
    found = rounded_topk_activations(x, rows, bias, 8, torch.bfloat16)
    assert found[0].dtype == torch.float32
    assert torch.equal(*(indices.sort(1).values for _, indices in (wanted, found)))
    torch.testing.assert_close(*(dense_latents(*one, 1000) for one in (found, wanted)))
