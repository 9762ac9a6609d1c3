"""Every architecture against the same rules written with dense tensors."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from mi_crow.errors import CorruptDataError, UserError
from mi_crow.mechanistic.features import IndexConfig, build_index
from mi_crow.mechanistic.sae import (
    BatchTopKSae,
    JumpReluSae,
    L1Sae,
    MatryoshkaSae,
    SparseAutoencoder,
    TopKSae,
    Transcoder,
)
from mi_crow.mechanistic.sae.architectures import TABLE
from mi_crow.mechanistic.sae.base import LossContext
from mi_crow.mechanistic.sae.config import ARCHITECTURES, TRANSCODERS, TrainConfig
from mi_crow.mechanistic.sae.kernels.entries import (
    decode_entries,
    encode_above,
    entries_above,
    gather,
    strongest_entries,
)
from mi_crow.mechanistic.sae.rules.abstopk import AbsTopKSae
from mi_crow.mechanistic.sae.rules.jumprelu import jump_relu
from mi_crow.mechanistic.sae.rules.matching_pursuit import MatchingPursuitSae
from mi_crow.mechanistic.sae.rules.matryoshka import default_widths
from mi_crow.mechanistic.sae.train.run import new_sae
from mi_crow.mechanistic.steering.inspection import inspect
from mi_crow.mechanistic.steering.loading import LoadedSae
from mi_crow.store import Workspace
from tests.helpers.sae_reference import (
    MAKERS,
    D,
    K,
    M,
    N,
    decoded,
    dense_latents,
    dense_losses,
    noisy,
    pre_activations,
    tokens,
)

every = pytest.mark.parametrize("name", MAKERS)
trained = pytest.mark.parametrize("name", [name for name in MAKERS if name != "abstopk"])


def target_of(sae: SparseAutoencoder) -> Tensor:
    x, y = tokens()
    return y if sae.transcodes else x


def test_the_table_and_the_classes_agree() -> None:
    for row in TABLE:
        assert row.load().architecture == row.name
        assert row.load().steers_sparsity == row.steers_sparsity
    for name in ARCHITECTURES:
        outputs = 5 if name in TRANSCODERS else None
        config = TrainConfig("run", "l", name, expansion=4, k=3, target_layer=outputs and "m")
        sae = new_sae(config, 8, outputs, torch.device("cpu"))
        assert (sae.n_latents, sae.n_inputs, sae.n_outputs) == (32, 8, outputs or 8)
        assert sae.transcodes == (name in TRANSCODERS)


@every
def test_a_class_names_the_tensors_that_its_encoder_writes(name: str) -> None:
    sae = MAKERS[name]()
    shared = {"W_enc", "W_dec", "b_dec", "W_skip"}
    assert sae.weights().keys() - shared == set(sae.encoder_tensors)


@every
def test_latents_and_reconstruction_equal_the_dense_rule(name: str) -> None:
    sae, (x, _) = noisy(name), tokens()
    z = dense_latents(sae, x)
    sparse = sae.encode_sparse(x.view(3, 3, D))
    assert sparse.values.shape[:2] == (3, 3)
    assert (sparse.values >= 0).all() == (not sae.signed)
    torch.testing.assert_close(sparse.dense(M).view(N, M), z)
    torch.testing.assert_close(sae.encode(x), z)
    with torch.inference_mode():
        torch.testing.assert_close(sae.encode(x), z)
    torch.testing.assert_close(sae(x).reconstruction, decoded(sae, z, x))
    torch.testing.assert_close(sae.decode(z, x), decoded(sae, z, x))
    torch.testing.assert_close(sae.decode_sparse(sae.encode_sparse(x), x), decoded(sae, z, x))


@trained
@pytest.mark.parametrize("target_l0", [None, 4.0])
def test_losses_and_gradients_equal_the_dense_reference(name: str, target_l0: float | None) -> None:
    sae, (x, _) = noisy(name), tokens()
    target = target_of(sae)
    context = LossContext(variance=2.5, sparsity=0.7, target_l0=target_l0)
    wanted = dense_losses(sae, x, target, context)
    got = sae.training_output(x, target, context).losses
    assert got.keys() == wanted.keys()
    parameters = dict(sae.named_parameters())
    for part, loss in got.items():
        torch.testing.assert_close(loss, wanted[part])
        ours, theirs = (
            torch.autograd.grad(
                one, list(parameters.values()), retain_graph=True, allow_unused=True
            )
            for one in (loss, wanted[part])
        )
        for parameter, a, b in zip(parameters, ours, theirs, strict=True):
            where = f"gradient of {part} by {parameter}"
            if a is None or b is None:
                assert not any(g is not None and g.any() for g in (a, b)), where
            else:
                torch.testing.assert_close(a, b, msg=lambda text, at=where: f"{at}: {text}")


@trained
def test_auxk_moves_nothing_but_dead_latents(name: str) -> None:
    sae, (x, _) = noisy(name), tokens()
    dead = torch.tensor([1, 7, 30])
    context = LossContext(2.5, dead=dead, aux_alpha=1 / 32, k_aux=2)
    auxk = sae.training_output(x, target_of(sae), context).losses["auxk"]
    assert auxk > 0
    alive = torch.ones(M, dtype=torch.bool)
    alive[dead] = False
    for parameter, gradient in zip(
        sae.parameters(),
        torch.autograd.grad(auxk, list(sae.parameters()), allow_unused=True),
        strict=True,
    ):
        if gradient is not None and gradient.any():
            assert parameter is not sae.b_dec
            assert not gradient[alive].any()


@every
def test_folding_a_scale_gives_the_same_answer_for_plain_inputs(name: str) -> None:
    sae, (x, _) = noisy(name), tokens()
    scaled = sae(0.37 * x)
    sae.fold_scale(0.37, 2.5 if sae.transcodes else None)
    plain = sae(x)
    torch.testing.assert_close(plain.latents.dense(M), scaled.latents.dense(M) / 0.37)
    unit = 2.5 if sae.transcodes else 0.37
    torch.testing.assert_close(plain.reconstruction, scaled.reconstruction / unit)


@pytest.mark.parametrize("name", ["l1", "jumprelu", "gated", "transcoder-l1"])
def test_folding_decoder_norms_changes_units_and_nothing_else(name: str) -> None:
    sae, (x, _) = noisy(name), tokens()
    norms = sae.W_dec.detach().norm(dim=1)
    before = sae(x)
    sae.fold_decoder_norms()
    torch.testing.assert_close(sae.W_dec.norm(dim=1), torch.ones(M, dtype=torch.float64))
    torch.testing.assert_close(sae.encode(x), before.latents.dense(M) * norms)
    torch.testing.assert_close(sae(x).reconstruction, before.reconstruction)


@every
def test_weights_go_out_and_come_back_by_their_saelens_names(name: str) -> None:
    sae, other = noisy(name), noisy(name, seed=9)
    tensors = {key: value.clone() for key, value in sae.weights().items()}
    assert tensors["W_enc"].shape == (D, M)
    other.load_weights(tensors)
    assert all(torch.equal(a, b) for a, b in zip(sae.parameters(), other.parameters(), strict=True))
    with pytest.raises(CorruptDataError, match="W_dec"):
        other.load_weights({**tensors, "W_dec": tensors["W_dec"][1:]})
    with pytest.raises(CorruptDataError, match="nothing for b_dec"):
        other.load_weights({key: value for key, value in tensors.items() if key != "b_dec"})


@every
def test_no_tokens_give_no_latents(name: str) -> None:
    sae = noisy(name)
    out = sae(torch.empty(0, D, dtype=torch.float64))
    assert out.reconstruction.shape == (0, sae.n_outputs)
    assert sae.encode(torch.empty(2, 0, D, dtype=torch.float64)).shape == (2, 0, M)


def test_a_token_without_active_latents_is_decoded_to_the_bias() -> None:
    sae = L1Sae(M, D)
    with torch.no_grad():
        sae.b_enc.fill_(-100)
        sae.b_dec.fill_(0.5)
    out = sae(torch.randn(3, D))
    assert out.latents.values.shape == (3, 1)
    assert not out.latents.values.any()
    assert torch.equal(out.reconstruction, torch.full((3, D), 0.5))


@pytest.mark.parametrize("kind", ["constant_norm_rescale", "layer_norm"])
def test_normalised_inputs_are_put_back_into_their_units(kind: str) -> None:
    sae, (x, _) = noisy("l1"), tokens()
    sae.input_norm = kind
    if kind == "layer_norm":
        shift, size = x.mean(1, keepdim=True), x.std(1, keepdim=True)
        taken = (x - shift) / (size + 1e-5)
    else:
        shift, size = 0.0, x.norm(dim=1, keepdim=True) / D**0.5
        taken = x / size
    z = dense_latents(sae, taken)
    wanted = decoded(sae, z, taken) * size + shift
    torch.testing.assert_close(sae.encode(x), z)
    torch.testing.assert_close(sae(x).reconstruction, wanted)
    torch.testing.assert_close(sae.decode(z, x), wanted)
    torch.testing.assert_close(torch.as_tensor(sae.latent_units(x)), torch.as_tensor(size))
    with pytest.raises(UserError, match="normalises its input"):
        sae.decode(z)


def test_a_skip_connection_cannot_be_decoded_without_its_input() -> None:
    sae, (x, _) = noisy("transcoder"), tokens()
    with pytest.raises(UserError, match="skip connection"):
        sae.decode_sparse(sae.encode_sparse(x))


def operands() -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(4)
    x, rows = (torch.randn(n, D, generator=generator, dtype=torch.float64) for n in (N, M))
    return x, rows, torch.randn(M, generator=generator, dtype=torch.float64) * 0.3


def test_the_ragged_operators_pass_gradcheck() -> None:
    x, rows, bias = (tensor.requires_grad_() for tensor in operands())

    def encoded(x: Tensor, rows: Tensor, bias: Tensor) -> Tensor:
        return encode_above(x, rows, bias, 1.0)[0]

    assert torch.autograd.gradcheck(encoded, (x, rows, bias))
    values, entries = entries_above(x.detach(), rows.detach(), bias.detach(), 1.0)
    values = values.clone().requires_grad_()
    assert torch.autograd.gradcheck(lambda v, r: decode_entries(v, entries, r), (values, rows))
    assert torch.autograd.gradcheck(lambda b: gather(b, entries), (bias,))


def test_blocks_of_tokens_change_nothing() -> None:
    x, rows, bias = operands()
    values, where = entries_above(x, rows, bias, 0.5)
    count = 1024 // N + 2  # repeated so often, the tokens need a second block
    many, places = entries_above(x.repeat(count, 1), rows, bias, 0.5)
    again = range(count)
    assert torch.equal(places.columns, where.columns.repeat(count))
    assert torch.equal(places.rows, torch.cat([where.rows + n * N for n in again]))
    torch.testing.assert_close(many, values.repeat(count))


@pytest.mark.slow
@pytest.mark.parametrize("guess", [0.0, 0.3, 100.0])
@pytest.mark.parametrize("k", [1, 5, M])
def test_the_strongest_of_a_batch_are_found_whatever_the_guess(k: int, guess: float) -> None:
    x, rows, bias = operands()
    values, entries = strongest_entries(x, rows, bias, k, guess)
    pre = (x @ rows.T + bias).relu().flatten()
    wanted = pre.topk(k * N).values
    wanted = wanted[wanted > 0]
    torch.testing.assert_close(values.sort(descending=True).values, wanted)
    flat = entries.rows * M + entries.columns
    assert (flat.diff() > 0).all()
    torch.testing.assert_close(pre[flat], values)


def test_the_batch_threshold_follows_the_least_activation() -> None:
    sae, (x, _) = noisy("batchtopk"), tokens()
    assert isinstance(sae, BatchTopKSae)
    sae.threshold.zero_()
    least = []
    for factor in (1.0, 1.1, 0.9):
        sae.training_output(factor * x, factor * x, LossContext(1.0))
        pre = pre_activations(sae, factor * x).detach().flatten()
        least.append(float(pre.topk(K * N).values[-1]))
    wanted = 0.95 * (0.95 * least[0] + 0.05 * least[1]) + 0.05 * least[2]
    torch.testing.assert_close(sae.threshold, torch.full((M,), wanted, dtype=torch.float64))


def test_the_jump_has_the_pseudo_derivatives_of_its_paper() -> None:
    pre = torch.tensor([0.2, 0.96, 1.04, 3.0], requires_grad=True)
    threshold = torch.full((4,), 1.0, requires_grad=True)
    z, step = jump_relu(pre, threshold, 0.1)
    assert z.tolist() == pytest.approx([0, 0, 1.04, 3.0])
    assert step.tolist() == [0, 0, 1, 1]
    weights = torch.tensor([1.0, 2.0, 3.0, 4.0])
    by_pre, by_threshold = torch.autograd.grad((z * weights).sum(), (pre, threshold))
    assert by_pre.tolist() == [0, 0, 3, 4]
    assert by_threshold.tolist() == pytest.approx([0, -2 / 0.1, -3 / 0.1, 0])
    z, step = jump_relu(pre, threshold, 0.1)
    (by_threshold,) = torch.autograd.grad(step.sum(), threshold)
    assert by_threshold.tolist() == pytest.approx([0, -10, -10, 0])


def test_nested_widths_ascend_to_all_latents() -> None:
    assert default_widths(3200) == (100, 300, 700, 1500, 3200)
    assert default_widths(4)[-1] == 4
    assert MatryoshkaSae(8, 4, 2, widths=(2, 8)).widths == (2, 8)
    for wrong in ((2, 4), (4, 2, 8), (0, 8), ()):
        with pytest.raises(UserError, match="ascend"):
            MatryoshkaSae(8, 4, 2, widths=wrong)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: BatchTopKSae(8, 4, 9), "k = 9"),
        (lambda: Transcoder(8, 4, 0, 2), "at least one"),
        (lambda: JumpReluSae(8, 4, bandwidth=0), "bandwidth"),
        (lambda: TopKSae(0, 4, 1), "k = 1"),
    ],
)
def test_shapes_that_cannot_be_are_refused(make: object, words: str) -> None:
    with pytest.raises(UserError, match=words):
        make()  # pyright: ignore[reportCallIssue]


def test_only_a_transcoder_is_saved_with_a_skip_connection(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="'topk' cannot be saved with a skip connection"):
        TopKSae(8, 4, 2, skip=True).save(tmp_path)
    assert not list(tmp_path.iterdir())


def test_an_sae_that_can_only_be_read_is_not_trained() -> None:
    context = LossContext(variance=1.0)
    for sae in (AbsTopKSae(M, D, K), MatchingPursuitSae(M, D)):
        with pytest.raises(UserError, match="can be read, not trained"):
            sae.training_output(torch.zeros(N, D), torch.zeros(N, D), context)


def test_negative_latents_are_refused_where_strength_orders_features(tmp_path: Path) -> None:
    sae = AbsTopKSae(M, D, K)
    sae.save(tmp_path / "saes/a")
    with pytest.raises(UserError, match="has negative latents: it cannot be indexed"):
        build_index(Workspace(tmp_path), IndexConfig("a"), sae=sae)
    with pytest.raises(UserError, match="has negative latents: it cannot be inspected"):
        inspect(LoadedSae("a", Any, sae, Any), "some text")  # type: ignore[arg-type]


@pytest.mark.parametrize("stops", [True, False])
@torch.no_grad()
def test_matching_pursuit_equals_the_plain_loop(stops: bool) -> None:
    sae = MatchingPursuitSae(
        M, D, residual_threshold=0.5, stop_on_duplicate_support=stops, dtype=torch.float64
    )
    x = tokens()[0] * 3
    z = torch.zeros(N, M, dtype=torch.float64)
    for row, latents in zip(x, z, strict=True):
        residual = row.clone()
        for _ in range(D):  # as many as there are inputs
            best = (residual @ sae.W_dec.T).argmax()
            value = (residual @ sae.W_dec[best]).relu()
            known = bool(latents[best] > 0) or value == 0
            latents[best] += value
            residual = residual - value * sae.W_dec[best]
            if residual.norm() < 0.5 or (stops and known):
                break
    torch.testing.assert_close(sae.encode(x), z)
    assert sae.config()["max_iterations"] == D
    scaled = sae.encode(x)
    sae.fold_scale(2.0)
    torch.testing.assert_close(sae.encode(x / 2), scaled / 2)
