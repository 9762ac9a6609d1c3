"""Crosscoders and cross-layer transcoders: trained, resumed, saved, read back, steered."""

import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from mi_crow.datasets import TextDataset
from mi_crow.errors import CancelledError, CorruptDataError, NotFoundError, UserError
from mi_crow.jobs.checks import check_evaluate, check_train
from mi_crow.language_model import LanguageModel
from mi_crow.language_model.capture.run import Capture
from mi_crow.language_model.config import CaptureConfig, DatasetSpec, ModelSpec
from mi_crow.language_model.placement.batch_size import BatchSize
from mi_crow.mechanistic.features import FeatureStore, IndexConfig, build_index
from mi_crow.mechanistic.sae import CrossLayerSae, EvaluateConfig, SaeTrainingConfig, load_sae
from mi_crow.mechanistic.sae.config import TrainConfig
from mi_crow.mechanistic.sae.cross_layer.norms import decoder_norms
from mi_crow.mechanistic.sae.cross_layer.shared import SharedCrosscoder
from mi_crow.mechanistic.sae.evaluation.evaluate import evaluate_sae
from mi_crow.mechanistic.sae.evaluation.layers_loss import layers_loss
from mi_crow.mechanistic.sae.evaluation.model_loss import TokenDocument
from mi_crow.mechanistic.sae.metadata import SaeMetadata
from mi_crow.mechanistic.sae.outputs import LossContext
from mi_crow.mechanistic.sae.train.across.crosscoder import (
    BatchTopKCrosscoder,
    TopKCrosscoder,
    contributions,
    crosscoder_record,
)
from mi_crow.mechanistic.sae.train.across.transcoder import (
    BatchTopKClt,
    CltShape,
    transcoder_record,
)
from mi_crow.mechanistic.sae.train.run import train_run
from mi_crow.mechanistic.steering.inspection import inspect
from mi_crow.mechanistic.steering.interventions import Intervention, parse_intervention
from mi_crow.mechanistic.steering.loading import join
from mi_crow.mechanistic.steering.readings import watching
from mi_crow.mechanistic.steering.steer import steering
from mi_crow.progress import NullProgress
from mi_crow.store import Workspace
from mi_crow.store.runs.joined import JoinedPart, JoinedTokens
from mi_crow.store.runs.reader import RunReader
from mi_crow.store.workspace import read_sae_summary
from tests.helpers.cross_layer_fixture import small
from tests.helpers.progress import Watched
from tests.helpers.steering_fixture import TEXT, logits
from tests.helpers.tiny_models import TEXTS

BLOCKS = range(3)
TRAINING = SaeTrainingConfig(
    steps=12, batch_size=32, checkpoint_every=4, log_every=4, dead_tokens=64
)
CROSSCODER = TrainConfig(
    "run",
    "resid_post.0",
    "batchtopk",
    n_latents=48,
    k=5,
    family="crosscoder",
    layers=("resid_post.0", "resid_post.2"),
    training=TRAINING,
    device="cpu",
    name="sae",
)
CLT = replace(
    CROSSCODER, family="clt", layer="mlp_in.0", layers=tuple(f"mlp_in.{n}" for n in BLOCKS)
)
CONFIGS = {"batchtopk": CROSSCODER, "topk": replace(CROSSCODER, arch="topk"), "clt": CLT}
every = pytest.mark.parametrize("kind", CONFIGS)


@pytest.fixture
def captured(workspace: Workspace, tiny_lm: LanguageModel) -> Workspace:
    """A workspace with a run of all hook points that are needed here."""
    kinds = ("resid_post", "mlp_in", "mlp_out")
    layers = tuple(f"{kind}.{number}" for kind in kinds for number in BLOCKS)
    config = CaptureConfig(
        ModelSpec("tiny"), DatasetSpec("list"), layers, dtype="fp32", shard_size=5, name="run"
    )
    texts = [text + ending for ending in ("", " And so on.", " Again?") for text in TEXTS]
    Capture(tiny_lm, TextDataset(texts, None), config).run(workspace, NullProgress(), None)
    return workspace


def trained(workspace: Workspace, config: TrainConfig) -> CrossLayerSae:
    train_run(workspace, config)
    sae = load_sae(workspace.sae_dir(config.name or ""))
    assert isinstance(sae, CrossLayerSae)
    return sae


def same(first: CrossLayerSae, second: CrossLayerSae) -> bool:
    own, other = first.weights(), second.weights()
    return own.keys() == other.keys() and all(torch.equal(own[name], other[name]) for name in own)


# What the formulas say.


@pytest.mark.parametrize("rule", [TopKCrosscoder, BatchTopKCrosscoder])
def test_what_is_saved_computes_what_was_trained(rule: Any, tmp_path: Path) -> None:
    """In units of the activations, also after another scale, centre and threshold."""
    generator = torch.Generator().manual_seed(0)
    sae = rule(40, (8, 12), 3, seed=1).requires_grad_(False)
    sae.b_dec.copy_(torch.randn(20, generator=generator))
    sae.b_enc.copy_(0.1 * torch.randn(40, generator=generator))
    if rule is BatchTopKCrosscoder:
        sae.threshold.fill_(0.4)
    scales = (2.0, 0.25)
    layers = [(3, "resid_post.3"), (7, "resid_post.7")]
    saved = SharedCrosscoder(crosscoder_record(sae, layers, scales, SaeMetadata()))
    saved.save(tmp_path)
    back = load_sae(tmp_path)
    assert isinstance(back, SharedCrosscoder)
    x = torch.randn(30, 20, generator=generator)
    plain = {3: x[:, :8] / scales[0], 7: x[:, 8:] / scales[1]}
    wanted, sizes = sae(x), contributions(sae.W_dec, sae.widths)
    found = back(plain)
    wide = torch.cat([found.reconstruction[3] * scales[0], found.reconstruction[7] * scales[1]], 1)
    torch.testing.assert_close(wide, wanted.reconstruction, atol=1e-5, rtol=1e-5)
    z = wanted.latents.dense(40) * sizes
    assert 0.02 < float((z > 0).float().mean()) < 0.5
    for number in (3, 7):
        torch.testing.assert_close(back.encode(plain)[number], z, atol=1e-5, rtol=1e-5)
    beside = back(torch.cat([*plain.values()], dim=1))
    torch.testing.assert_close(beside.latents.dense(40), z, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(
        beside.reconstruction, torch.cat([*found.reconstruction.values()], 1)
    )
    dense = back.decode(z)
    torch.testing.assert_close(dense, beside.reconstruction, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("rule", [TopKCrosscoder, BatchTopKCrosscoder])
def test_a_latent_of_two_layers_counts_for_both(rule: Any) -> None:
    """Of equal activations the latent of both layers contributes more, and is chosen."""
    sae = rule(2, (2, 2), 1).requires_grad_(False)
    half = 0.5**0.5
    sae.W_dec.copy_(torch.tensor([[1.0, 0, 0, 0], [0, half, 0, half]]))
    sae.encoder_rows.copy_(torch.tensor([[1.0, 0, 0, 0], [0, 1.0, 0, 0]]))
    x = torch.tensor([[1.1, 1.0, 0, 0]])
    output = sae.training_output(x, x, LossContext(1.0))
    assert output.fired.tolist() == [1]
    # The sum of the squared errors of both layers: z = 1, x_hat = (0, 0.71, 0, 0.71).
    error = 1.1**2 + (1 - half) ** 2 + half**2
    torch.testing.assert_close(output.losses["reconstruction"], torch.tensor(error))


def test_gradients_are_those_of_the_formula() -> None:
    sae = BatchTopKCrosscoder(12, (4, 4), 3, seed=2)
    x = torch.randn(6, 8, generator=torch.Generator().manual_seed(1))
    output = sae.training_output(x, x, LossContext(1.0))
    output.losses["reconstruction"].backward()
    pre = (x - sae.b_dec) @ sae.encoder_rows.T + sae.b_enc
    sizes = contributions(sae.W_dec, sae.widths)
    least = (pre * sizes).detach().flatten().topk(18).values.min()
    z = pre * ((pre * sizes).detach() >= least)
    loss = (x - (z @ sae.W_dec + sae.b_dec)).square().sum() / 6
    parameters = [sae.encoder_rows, sae.b_enc, sae.W_dec, sae.b_dec]
    for parameter, wanted in zip(parameters, torch.autograd.grad(loss, parameters), strict=True):
        torch.testing.assert_close(parameter.grad, wanted, atol=1e-5, rtol=1e-4)


def test_a_transcoder_writes_to_its_layer_and_all_later_ones(tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(0)
    sae = BatchTopKClt(CltShape(3, 4, 10), 4, seed=1)
    x, target = torch.randn(2, 8, 12, generator=generator)
    output = sae.training_output(x, target, LossContext(1.0))
    output.losses["reconstruction"].backward()
    assert len(output.fired) == 8 * 4
    by_hand = torch.zeros(8, 12)
    pre = [
        part @ rows.T + bias
        for part, rows, bias in zip(x.split(4, 1), sae.encoders, sae.biases, strict=True)
    ]
    least = torch.cat(pre, 1).flatten().topk(32).values.min()
    for layer, (own, decoder) in enumerate(zip(pre, sae.decoders, strict=True)):
        assert decoder.shape == (10, (3 - layer) * 4)
        by_hand[:, 4 * layer :] += (own * (own >= least)) @ decoder
    loss = (target - by_hand).square().sum() / 8
    torch.testing.assert_close(output.losses["reconstruction"], loss, atol=1e-5, rtol=1e-5)
    for parameter in (*sae.encoders, *sae.biases, *sae.decoders):
        (wanted,) = torch.autograd.grad(loss, [parameter], retain_graph=True)
        torch.testing.assert_close(parameter.grad, wanted, atol=1e-5, rtol=1e-4)

    sae.requires_grad_(False)
    sae.fold_scale(1.5, 0.5)
    sae.b_dec.copy_(torch.randn(12, generator=generator))
    names = [(number, f"mlp_in.{number}", f"mlp_out.{number}") for number in (1, 4, 5)]
    scales = (2.0, 1.0, 0.5, 4.0, 3.0, 0.25)
    from mi_crow.mechanistic.sae.cross_layer.kinds import CrossLayerTranscoder

    CrossLayerTranscoder(transcoder_record(sae, names, scales, SaeMetadata())).save(tmp_path)
    back = load_sae(tmp_path)
    assert isinstance(back, CrossLayerSae)
    parts = zip((1, 4, 5), x.split(4, 1), scales[:3], strict=True)
    found = back({number: part / scale for number, part, scale in parts})
    wanted = sae(x)
    assert float((wanted.latents.values > 0).float().sum()) > 8
    for part, number, scale in zip(
        wanted.reconstruction.split(4, 1), (1, 4, 5), scales[3:], strict=True
    ):
        torch.testing.assert_close(found.reconstruction[number] * scale, part)
    assert back.written_by(4) == (4, 5)


def test_dead_latents_of_each_layer_learn_from_what_is_left_over() -> None:
    sae = BatchTopKClt(CltShape(2, 4, 6), 2, seed=1)
    x, target = torch.randn(2, 8, 8, generator=torch.Generator().manual_seed(0))
    dead = torch.tensor([1, 8, 9])
    context = LossContext(1.0, dead, 3, 1 / 32, 4)
    output = sae.training_output(x, target, context)
    output.losses["auxk"].backward()
    for layer, own in ((0, [1]), (1, [2, 3])):
        touched = sae.decoders[layer].grad.abs().sum(1).nonzero()[:, 0].tolist()
        assert touched
        assert set(touched) <= set(own)
    assert sae.b_dec.grad is None
    assert "auxk" not in sae.training_output(x, target, LossContext(1.0)).losses


# On captured layers.


def test_layers_are_read_side_by_side_in_units_of_their_own(captured: Workspace) -> None:
    run = captured.run_dir("run")
    readers = [RunReader(run, f"model.layers.{number}") for number in (0, 2)]
    tokens = JoinedTokens(readers)
    parts = [JoinedPart(parts) for parts in zip(*(one.parts() for one in readers), strict=True)]
    raw = torch.cat([part.take(slice(None)) for part in parts])
    for reader, scale in zip(readers, tokens.scales, strict=True):
        assert scale * reader.median_norm() == pytest.approx(32**0.5)
    rows = raw * torch.tensor(tokens.scales).repeat_interleave(32)
    norms = rows.norm(dim=1)
    assert tokens.median_norm() == pytest.approx(float(norms.sort().values[(len(norms) - 1) // 2]))
    largest = torch.cat([part.norms for part in parts])
    assert tokens.median_largest_norm() == float(largest.sort().values[(len(norms) - 1) // 2])
    held = torch.cat([part.row_split for part in parts])
    limit = float(norms.quantile(0.7))
    assert tokens.count("train", limit) == int((~held & (norms <= limit)).sum())
    assert tokens.count("heldout") == int(held.sum())
    found = tokens.sample(10**6, 0, "heldout")
    torch.testing.assert_close(found, rows[held])
    batches = tokens.batches(16, 3, "train", limit)
    three = [next(batches) for _ in range(3)]
    torch.testing.assert_close(next(tokens.batches(16, 3, "train", limit, 2)), three[2])
    assert all((rows[:, None] == batch).all(-1).any(0).all() for batch in three[:1])
    first_only = JoinedTokens(readers, 1)
    assert first_only.median_norm() == pytest.approx(32**0.5)
    assert first_only.width == 64


@every
def test_a_stopped_training_resumes_bit_for_bit(captured: Workspace, kind: str) -> None:
    config = CONFIGS[kind]
    whole = trained(captured, replace(config, name="whole"))
    folder = captured.make_sae_dir("sae", "sae")
    with pytest.raises(CancelledError) as caught:
        train_run(captured, config, Watched(looks=6), folder)
    assert caught.value.resumable
    assert [one.name for one in (folder / "checkpoints").iterdir()] == ["step-6"]
    train_run(captured, config, NullProgress(), folder)
    resumed = load_sae(folder)
    assert isinstance(resumed, CrossLayerSae)
    assert same(whole, resumed)
    assert not (folder / "checkpoints").exists()


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["batchtopk", "clt"])
def test_a_killed_training_resumes_bit_for_bit(captured: Workspace, kind: str) -> None:
    config = CONFIGS[kind]
    whole = trained(captured, replace(config, name="whole"))
    folder = captured.make_sae_dir("sae", "sae")
    command = (
        "import os, signal\n"
        "from mi_crow.mechanistic.sae.train.run import train_run\n"
        "from mi_crow.progress import NullProgress\n"
        "from mi_crow.store import Workspace\n"
        "from tests.unit.test_sae_across import CONFIGS\n"
        "class Killed(NullProgress):\n"
        "    def checkpoint(self, name):\n"
        "        os.kill(os.getpid(), signal.SIGKILL)\n"
        f"workspace = Workspace.open({str(captured.root)!r})\n"
        f"train_run(workspace, CONFIGS[{kind!r}], Killed(), workspace.saes_dir / 'sae')\n"
    )
    environment = {**os.environ, "OMP_NUM_THREADS": str(torch.get_num_threads())}
    done = subprocess.run([sys.executable, "-c", command], env=environment, check=False)
    assert done.returncode == -signal.SIGKILL
    assert [*(folder / "checkpoints").iterdir()]
    assert not (folder / "cfg.json").exists()
    train_run(captured, config, NullProgress(), folder)
    resumed = load_sae(folder)
    assert isinstance(resumed, CrossLayerSae)
    assert same(whole, resumed)


@every
def test_training_ends_with_a_whole_sae(captured: Workspace, kind: str) -> None:
    sae = trained(captured, CONFIGS[kind])
    meta = sae.metadata
    assert (Path(meta.model_name).name, meta.run_id) == ("tiny-llama", "run")
    across = ("mlp_in.0", "mlp_in.1", "mlp_in.2")
    assert sae.layers == (across if kind == "clt" else ("resid_post.0", "resid_post.2"))
    assert meta.hook_name == ("mlp_in.0-2" if kind == "clt" else "resid_post.0,2")
    assert sae.n_latents == (3 * 48 if kind == "clt" else 48)
    assert meta.outlier_norm is not None
    summary = read_sae_summary(captured.sae_dir("sae"))
    assert summary.layers == sae.layers
    assert summary.k == (5 if kind == "topk" else None)


def test_k_of_a_transcoder_is_over_all_layers(captured: Workspace) -> None:
    check_train(captured, replace(CLT, k=3 * 48))
    with pytest.raises(UserError, match="k = 145 is more than"):
        replace(CLT, k=3 * 48 + 1)


def test_several_k_train_side_by_side(captured: Workspace) -> None:
    result = train_run(captured, replace(CROSSCODER, arch="topk", sweep_k=(2, 4)))
    assert [one.l0 for one in (result, *result.others)] == pytest.approx([2, 4], abs=0.3)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"layers": ("resid_post.0",)}, "a crosscoder is of several layers"),
        ({"arch": "l1"}, "a crosscoder is not trained as 'l1'"),
        ({"init": "x"}, "a crosscoder takes no --init"),
        ({"shares": "latents"}, "cannot be shared"),
        ({"family": "clt", "arch": "topk"}, "a cross-layer transcoder is not trained as 'topk'"),
        ({"family": "many"}, "many"),
    ],
)
def test_settings_that_do_not_fit_are_refused(changes: dict[str, Any], says: str) -> None:
    with pytest.raises(UserError, match=says):
        replace(CROSSCODER, **changes)


def test_layers_that_do_not_fit_are_refused(captured: Workspace) -> None:
    def refused(kind: str, says: str, error: type[Exception] = UserError, **changes: Any) -> None:
        config = replace(CONFIGS[kind], **changes)
        for attempt in (check_train, train_run):
            with pytest.raises(error, match=says):
                attempt(captured, config)
        assert not captured.list_saes()
        assert not [*captured.saes_dir.glob("*")]

    refused("clt", "reads the inputs of MLPs", layers=("resid_post.0", "resid_post.1"))
    refused("batchtopk", "given twice", layers=("resid_post.0", "model.layers.0"))
    refused("batchtopk", "of the same block", layers=("resid_post.0", "mlp_out.0"))
    refused("batchtopk", "not in run", NotFoundError, layers=("resid_post.0", "resid_pre.1"))
    refused("batchtopk", "k = 20 .* 16", n_latents=None, expansion=0.5, k=20)


@pytest.mark.parametrize(
    ("kind", "layers", "says", "hint"),
    [
        ("clt", ("resid_post.0", "mlp_in.1"), "not 'resid_post.0'", "--layer mlp_in.0"),
        ("clt", ("mlp_in.0", "mlp_out.1"), "not 'mlp_out.1'", "--layer mlp_in.1"),
        ("batchtopk", ("mlp_in.1", "blocks.1.hook_resid_post"), "of the same block", "leave one"),
        ("batchtopk", ("mlp_in.1", "mlp_in.1"), "given twice", "leave one out"),
    ],
)
def test_a_stream_says_which_layers_would_do(
    workspace: Workspace, kind: str, layers: tuple[str, ...], says: str, hint: str
) -> None:
    stream = CaptureConfig(ModelSpec("sample"), DatasetSpec("sample"), layers)
    config = replace(
        CONFIGS[kind], run_id="", layers=layers, stream=stream, training=SaeTrainingConfig(steps=3)
    )
    with pytest.raises(UserError, match=says) as error:
        check_train(workspace, config)
    assert hint in error.value.hint
    assert "capture" not in error.value.hint  # there is no run


def test_several_layers_are_an_sae_each_in_one_job(captured: Workspace) -> None:
    config = TrainConfig(
        "run",
        "resid_post.0",
        layers=("resid_post.0", "mlp_out.1"),
        n_latents=40,
        k=4,
        training=TRAINING,
        device="cpu",
        name="both",
    )
    check_train(captured, config)
    folder = captured.make_sae_dir("both", "both")
    with pytest.raises(CancelledError):
        train_run(captured, config, Watched(looks=15), folder)  # in the second
    result = train_run(captured, config, NullProgress(), folder)
    names = [result.sae_id, *(one.sae_id for one in result.others)]
    assert names == ["both", "both-mlp_out.1"]
    alone = replace(config, layer="mlp_out.1", layers=(), name="alone")
    train_run(captured, alone)
    first, second = (load_sae(captured.sae_dir(name)) for name in ("both-mlp_out.1", "alone"))
    assert first.metadata.point == "mlp_out.1"
    for name, tensor in first.weights().items():
        assert torch.equal(tensor, second.weights()[name])


@every
def test_it_is_evaluated_layer_by_layer(
    captured: Workspace, tiny_lm: LanguageModel, kind: str
) -> None:
    sae = trained(captured, CONFIGS[kind])
    sae.metadata = replace(sae.metadata, outlier_norm=None)
    sae.save(captured.sae_dir("sae"))
    check_evaluate(captured, EvaluateConfig("sae"))
    found = evaluate_sae(captured, EvaluateConfig("sae", device="cpu"), lm=tiny_lm)
    assert read_sae_summary(captured.sae_dir("sae")).evaluation == found
    run = captured.run_dir("run")
    names = {"mlp_in": "model.layers.{}.mlp.input", "mlp_out": "model.layers.{}.mlp"}
    parts = []
    for layer in dict.fromkeys((*sae.layers, *sae.target_layers)):
        point, _, number = layer.partition(".")
        reader = RunReader(run, names.get(point, "model.layers.{}").format(number))
        rows = [part.take(slice(None))[part.row_split] for part in reader.parts()]
        parts.append(torch.cat(rows))
    n = len(sae.layers)
    x, targets = dict(zip(sae.layer_numbers, parts, strict=False)), parts[-n:]
    output = sae(x)
    for one, number, target in zip(found["layers"], sae.layer_numbers, targets, strict=True):
        error = (target - output.reconstruction[number]).square().sum()
        fvu = float(error / (target - target.mean(0)).square().sum())
        assert one["fvu"] == pytest.approx(fvu, rel=1e-3)
        if kind == "clt":
            l0 = float((output.latents[number].values > 0).sum()) / len(target)
            assert one["l0"] == pytest.approx(l0)
            assert 0 <= one["dead_share"] < 1
        else:
            assert one.keys() == {"layer", "fvu"}
    z = sae.encode(torch.cat([*x.values()], dim=1))
    assert found["l0"] == pytest.approx(float((z > 0).sum()) / len(z))
    assert min(one["fvu"] for one in found["layers"]) <= found["fvu"] * 1.01


@pytest.mark.parametrize("kind", ["crosscoder", "clt"])
def test_all_layers_are_replaced_at_once(tiny_lm: LanguageModel, kind: str) -> None:
    """A transcoder reads the changed model layer after layer, shared latents the plain one."""
    generator = torch.Generator().manual_seed(0)
    if kind == "clt":
        sae = small("clt", (0, 1, 2))
    else:
        rule = BatchTopKCrosscoder(40, (32, 32), 4, seed=1).requires_grad_(False)
        rule.b_dec.copy_(torch.randn(64, generator=generator))
        layers = [(0, "resid_post.0"), (2, "resid_post.2")]
        record = crosscoder_record(rule, layers, (1.0, 1.0), SaeMetadata())
        sae = SharedCrosscoder(record)
    ids = tiny_lm.tokenizer(TEXT)["input_ids"]
    document = TokenDocument(ids, list(range(1, len(ids))))
    means = torch.randn(sae.n_outputs, generator=generator)
    found = layers_loss(tiny_lm, sae, means, [document], NullProgress(), BatchSize(8, print))
    blocks = [tiny_lm.model.get_submodule(f"model.layers.{number}") for number in range(3)]
    seen: dict[int, Tensor] = {}

    def loss(value: Any) -> float:
        def hook(number: int) -> Any:
            def change(_: object, inputs: Any, output: Any) -> Any:
                y = output[0] if isinstance(output, tuple) else output
                seen[number] = inputs[0] if kind == "clt" else y
                if value is None:
                    return None
                y = torch.cat([y[:, :1], value(number)[:, 1:]], dim=1)
                return (y, *output[1:]) if isinstance(output, tuple) else y

            return change

        handles = [
            (blocks[number].mlp if kind == "clt" else blocks[number]).register_forward_hook(
                hook(number)
            )
            for number in sae.layer_numbers
        ]
        with torch.no_grad():
            predicted = tiny_lm.model(torch.tensor([ids])).logits[0, :-1]
        for handle in handles:
            handle.remove()
        return float(torch.nn.functional.cross_entropy(predicted, torch.tensor(ids[1:])))

    assert found["ce_original"] == pytest.approx(loss(None), abs=1e-4)
    plain = sae({number: x.clone() for number, x in seen.items()}).reconstruction

    def rebuilt(number: int) -> Tensor:
        if kind != "clt":
            return plain[number]
        return sae({one: seen[one] for one in range(number + 1)}).reconstruction[number]

    assert found["ce_reconstructed"] == pytest.approx(loss(rebuilt), abs=1e-4)
    nothing = torch.zeros(1, len(ids), 32)
    assert found["ce_zero"] == pytest.approx(loss(lambda _: nothing), abs=1e-4)
    parts = dict(zip(sae.layer_numbers, means.split(32), strict=True))
    mean = loss(lambda number: parts[number].expand(1, len(ids), -1))
    assert found["ce_mean"] == pytest.approx(mean, abs=1e-4)
    assert abs(found["ce_reconstructed"] - found["ce_original"]) > 1e-3


# In a model.


def first_firing(sae: SharedCrosscoder, lm: LanguageModel) -> tuple[int, Tensor]:
    found = inspect(join("sae", lm, sae), TEXT, top=3)["features"][0]
    return found["feature"], torch.tensor(found["acts"])


def outputs(lm: LanguageModel) -> dict[int, Tensor]:
    """What blocks 0 and 2 give on TEXT, as other hooks leave it."""
    seen: dict[int, Tensor] = {}

    def keep(number: int) -> Any:
        def hook(_: object, __: object, output: Any) -> None:
            seen[number] = (output[0] if isinstance(output, tuple) else output).detach().clone()

        return lm.model.get_submodule(f"model.layers.{number}").register_forward_hook(hook)

    handles = [keep(number) for number in (0, 2)]
    logits(lm)
    for handle in handles:
        handle.remove()
    return seen


@pytest.mark.parametrize("kind", ["batchtopk", "topk"])
def test_a_shared_feature_steers_every_layer(
    captured: Workspace, tiny_lm: LanguageModel, kind: str
) -> None:
    sae = trained(captured, CONFIGS[kind])
    assert isinstance(sae, SharedCrosscoder)
    sae.metadata = replace(sae.metadata, outlier_norm=None)
    feature, acts = first_firing(sae, tiny_lm)
    assert float(acts.max()) > 0
    plain, before = logits(tiny_lm), outputs(tiny_lm)
    rows = sae.writes([feature])
    with steering(tiny_lm, sae, 0, [Intervention(f"feature:{feature}", "add", 2.0)]):
        after = outputs(tiny_lm)
        assert not torch.allclose(logits(tiny_lm), plain)
    moved = (after[0] - before[0])[0]
    touched = moved.norm(dim=-1) > 0
    assert bool(touched.any())
    torch.testing.assert_close(
        moved[touched], 2 * rows[0].expand(int(touched.sum()), -1), atol=1e-4, rtol=1e-4
    )
    # What depends on the activation is done at the last layer, where it is known.
    with steering(tiny_lm, sae, 0, [parse_intervention(f"{feature}=ablate")]):
        after = outputs(tiny_lm)
    torch.testing.assert_close(after[0], before[0])
    change = (after[2] - before[2])[0]
    torch.testing.assert_close(change, -acts[:, None] * rows[2], atol=1e-4, rtol=1e-4)
    never = parse_intervention(f"{feature}=+2 ?{feature}>1000000")
    with steering(tiny_lm, sae, 0, [never]):
        torch.testing.assert_close(logits(tiny_lm), plain)
    with watching(join("sae", tiny_lm, sae), [feature, 0]) as watched:
        watched.enable()
        logits(tiny_lm)
        torch.testing.assert_close(watched.found[0, :, 0], acts, atol=1e-4, rtol=1e-4)
    with (
        pytest.raises(UserError, match="not a feature of this SAE"),
        steering(tiny_lm, sae, 0, [Intervention("feature:48", "add", 1.0)]),
    ):
        pass


def test_latents_of_all_layers_need_all_of_them(captured: Workspace) -> None:
    sae = trained(captured, CROSSCODER)
    assert isinstance(sae, SharedCrosscoder)
    with pytest.raises(UserError, match="every latent also reads layer 2"):
        sae.encode({0: torch.zeros(1, 32)})
    with pytest.raises(UserError, match="width 31"):
        sae.encode({0: torch.zeros(1, 31), 2: torch.zeros(1, 32)})
    with pytest.raises(NotFoundError, match="does not read layer 1"):
        sae.encode({0: torch.zeros(1, 32), 1: torch.zeros(1, 32)})
    record = sae.record
    broken = replace(record, layers=(replace(record.layers[0], decoders={}), record.layers[1]))
    with pytest.raises(CorruptDataError, match="does not hold a decoder"):
        broken.checked("a test")


@pytest.mark.slow
@every
def test_it_is_indexed(captured: Workspace, tiny_lm: LanguageModel, kind: str) -> None:
    sae = trained(captured, CONFIGS[kind])
    result = build_index(captured, IndexConfig("sae", device="cpu"), lm=tiny_lm)
    assert result.features == sae.n_latents
    store = FeatureStore(captured.index_path("sae"), "sae", None)
    run = captured.run_dir("run")
    names = [f"model.layers.{n}.mlp.input" for n in BLOCKS] if kind == "clt" else []
    readers = [RunReader(run, name) for name in names or ["model.layers.0", "model.layers.2"]]
    parts = [JoinedPart(parts) for parts in zip(*(one.parts() for one in readers), strict=True)]
    z = sae.encode(torch.cat([part.take(slice(None)) for part in parts]))
    keep = torch.cat([part.norms for part in parts]) <= (sae.metadata.outlier_norm or 0)
    wanted = z[keep].amax(0).tolist()
    got = {row.feature: row.max_act for row in store.rows(range(sae.n_latents))}
    for feature, value in enumerate(wanted):
        assert got[feature] == pytest.approx(value, abs=1e-3)
    # A feature is of the layer that it reads (clt), or of the one that it writes most.
    longest = int(decoder_norms(sae)[0].argmax())
    layer = "mlp_in.0" if kind == "clt" else f"resid_post.{(0, 2)[longest]}"
    assert store.detail(0).layer == layer


@pytest.mark.slow
def test_the_sample_model(workspace: Workspace) -> None:
    """A crosscoder of two layers and a transcoder of all four: trained, indexed, steered."""
    from mi_crow.language_model.capture.job import capture_run

    kinds = ("mlp_in", "mlp_out")
    layers = ("resid_post.1", "resid_post.3", *(f"{one}.{n}" for one in kinds for n in range(4)))
    spec = ModelSpec("sample", device="cpu")
    capture_run(
        workspace, CaptureConfig(spec, DatasetSpec("sample", limit=120), layers, name="run")
    )
    lm = LanguageModel.from_spec(spec)
    training = SaeTrainingConfig(steps=150, batch_size=512, checkpoint_every=150)
    configs = {
        "crosscoder": replace(CROSSCODER, layers=layers[:2], k=16),
        "clt": replace(CLT, layers=layers[2:6], k=32),
    }
    for name, config in configs.items():
        config = replace(config, name=name, n_latents=None, expansion=2.0, training=training)
        result = train_run(workspace, config)
        assert result.fvu < (0.4 if name == "crosscoder" else 0.75)
        assert result.l0 == pytest.approx(config.k, rel=0.2)
        build_index(workspace, IndexConfig(name, device="cpu"), lm=lm)
        sae = load_sae(workspace.sae_dir(name))
        plain = logits(lm)
        strongest = inspect(join(name, lm, sae), TEXT, top=1)["features"][0]
        add = Intervention(f"feature:{strongest['feature']}", "add", 20.0)
        with steering(lm, sae, 0, [add]):
            assert not torch.allclose(logits(lm), plain, atol=0.1)
