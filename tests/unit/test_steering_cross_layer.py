"""SAEs over several layers in a model: indexed, inspected, steered at every layer they write to."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from mi_crow.datasets import TextDataset
from mi_crow.errors import NotFoundError, UserError
from mi_crow.jobs.checks import check_evaluate, check_index
from mi_crow.language_model import LanguageModel
from mi_crow.language_model.capture.run import Capture
from mi_crow.language_model.capture_pass import run_to
from mi_crow.language_model.config import CaptureConfig, DatasetSpec, ModelSpec
from mi_crow.language_model.tokenize import encode_batch
from mi_crow.mechanistic.features import FeatureStore, IndexConfig, build_index
from mi_crow.mechanistic.features.query_language import parse_query
from mi_crow.mechanistic.sae import CrossLayerSae, EvaluateConfig
from mi_crow.mechanistic.sae.evaluation.evaluate import evaluate_sae
from mi_crow.mechanistic.steering.inspection import inspect
from mi_crow.mechanistic.steering.interventions import Intervention, parse_intervention
from mi_crow.mechanistic.steering.loading import join
from mi_crow.mechanistic.steering.readings import watching
from mi_crow.mechanistic.steering.steer import steering
from mi_crow.progress import NullProgress
from mi_crow.store import Workspace
from tests.helpers.cross_layer_fixture import LATENTS, dense, small
from tests.helpers.steering_fixture import TEXT, logits
from tests.helpers.tiny_models import TEXTS

kinds = pytest.mark.parametrize("kind", ["clt", "crosscoder"])


def read(lm: LanguageModel, sae: CrossLayerSae) -> tuple[dict[int, Tensor], Tensor]:
    """What the SAE reads on TEXT, by layer [length, d], and which tokens are special."""
    encoding = encode_batch(lm.tokenizer, [TEXT])
    points = {
        n: lm.layers.resolve(name) for n, name in zip(sae.layer_numbers, sae.layers, strict=True)
    }
    found = run_to(lm, list(points.values()), encoding.input_ids, encoding.attention_mask)
    return {number: found[point][0] for number, point in points.items()}, encoding.special[0]


@contextmanager
def added_by_hand(lm: LanguageModel, change: dict[str, Tensor], special: Tensor) -> Iterator[None]:
    """Adds rows [length, d] to the outputs of modules, at ordinary tokens."""
    handles = []
    for name, rows in change.items():

        def hook(_: object, __: object, output: object, rows: Tensor = rows) -> object:
            tensor = output[0] if isinstance(output, tuple) else output
            assert isinstance(tensor, Tensor)
            moved = tensor + rows * ~special[:, None]
            return (moved, *output[1:]) if isinstance(output, tuple) else moved

        handles.append(lm.model.get_submodule(name).register_forward_hook(hook))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def modules(sae: CrossLayerSae) -> dict[int, str]:
    """The modules whose outputs are what the SAE predicts, in a model without gains after them."""
    ending = ".mlp" if sae.architecture == "cross_layer_transcoder" else ""
    return {number: f"model.layers.{number}{ending}" for number in sae.layer_numbers}


@kinds
@pytest.mark.parametrize("feature", [3, LATENTS + 5, 2 * LATENTS + 7])
def test_adding_a_feature_changes_every_layer_that_it_writes_to(tiny_lm, kind, feature):
    sae = small(kind)
    _, special = read(tiny_lm, sae)
    names = modules(sae)
    change = {names[to]: 2.5 * rows[0] for to, rows in sae.writes([feature]).items()}
    assert len(change) == 3 - feature // LATENTS
    with added_by_hand(tiny_lm, change, special):
        wanted = logits(tiny_lm)
    with steering(tiny_lm, sae, 0, [Intervention(f"feature:{feature}", "add", 2.5)]):
        got = logits(tiny_lm)
    torch.testing.assert_close(got, wanted, atol=1e-4, rtol=1e-4)
    assert not torch.allclose(got, logits(tiny_lm))


@kinds
def test_a_latent_is_read_once_at_its_own_layer(tiny_lm, kind):
    """What `ablate` takes away downstream is what the latent was at the layer that it is of."""
    sae = small(kind)
    x, special = read(tiny_lm, sae)
    z = dense(sae, x)[:, :LATENTS]
    feature = int((z > 0).float().mean(0).argmax())
    names = modules(sae)
    change = {names[to]: -z[:, feature, None] * rows for to, rows in sae.writes([feature]).items()}
    with added_by_hand(tiny_lm, change, special):
        wanted = logits(tiny_lm)
    with steering(tiny_lm, sae, 0, [parse_intervention(f"{feature}=ablate")]):
        got = logits(tiny_lm)
    torch.testing.assert_close(got, wanted, atol=1e-4, rtol=1e-4)


@kinds
def test_features_of_several_layers_and_conditions(tiny_lm, kind):
    sae = small(kind)
    plain = logits(tiny_lm)
    both = [
        Intervention("feature:3", "add", 2.0),
        Intervention(f"feature:{LATENTS + 5}", "add", 1.0),
    ]
    with steering(tiny_lm, sae, 0, both):
        together = logits(tiny_lm)
    for one in both:
        with steering(tiny_lm, sae, 0, [one]):
            assert not torch.allclose(logits(tiny_lm), together)
    never = parse_intervention(f"{LATENTS + 5}=+2 ?3>1000000")
    with steering(tiny_lm, sae, 0, [never]):
        torch.testing.assert_close(logits(tiny_lm), plain)
    always = parse_intervention(f"{LATENTS + 5}=+2 ?3>-1")
    with steering(tiny_lm, sae, 0, [always]), pytest.raises(AssertionError):
        torch.testing.assert_close(logits(tiny_lm), plain)
    outside = [Intervention(f"feature:{3 * LATENTS}", "add", 1.0)]
    with (
        pytest.raises(UserError, match="not a feature of this SAE"),
        steering(tiny_lm, sae, 0, outside),
    ):
        pass


@kinds
def test_inspect_and_watching_read_all_layers(tiny_lm, kind):
    sae = small(kind)
    x, special = read(tiny_lm, sae)
    z = dense(sae, x) * ~special[:, None]
    loaded = join("across", tiny_lm, sae)
    assert loaded.place in ("mlp_in.0-2", "resid_post.0-2")
    found = inspect(loaded, TEXT, top=12)
    best = z.amax(0).topk(12)
    assert [one["feature"] for one in found["features"]] == best.indices.tolist()
    for one in found["features"]:
        torch.testing.assert_close(torch.tensor(one["acts"]), z[:, one["feature"]])
    features = [2, LATENTS + 1, 2 * LATENTS + 9]
    with watching(loaded, features) as watched:
        watched.enable()
        logits(tiny_lm)
        torch.testing.assert_close(watched.found[0], z[:, features], atol=1e-5, rtol=1e-5)
    with pytest.raises(UserError, match="cannot be attached to one"):
        sae.attach(tiny_lm)


@pytest.mark.slow
@kinds
def test_an_index_numbers_features_over_all_layers(tiny_lm, workspace: Workspace, kind) -> None:
    sae = small(kind, (0, 2))
    sae.save(workspace.make_sae_dir("across", "across"))
    config = CaptureConfig(
        ModelSpec("tiny"),
        DatasetSpec("list"),
        tuple(sae.layers),
        dtype="fp32",
        shard_size=5,
        name="run",
    )
    Capture(tiny_lm, TextDataset(TEXTS, None), config).run(workspace, NullProgress(), None)
    index = IndexConfig("across", run_id="run", device="cpu")
    check_index(workspace, index)
    result = build_index(workspace, index, lm=tiny_lm)
    assert result.features == 2 * LATENTS
    store = FeatureStore(workspace.index_path("across"), "across", None)
    meta = store.meta()
    assert (meta.layers, meta.first_features) == (sae.layers, (0, LATENTS))
    detail = store.detail(LATENTS + 1)
    assert detail.layer == sae.layers[1]
    written = sae.writes([LATENTS + 1])
    assert [one.layer for one in detail.written] == [sae.target_layers[1]]
    torch.testing.assert_close(detail.written[0].norm, float(written[2].norm()))
    assert (
        store.find(parse_query("layer:2")).tolist() == store.ids()[store.ids() >= LATENTS].tolist()
    )
    assert store.detail(LATENTS - 1).layer == sae.layers[0]
    torch.testing.assert_close(detail.decoder_norm, float(sae.decoder_rows[LATENTS + 1].norm()))
    assert detail.encoder_decoder_cosine is None
    assert detail.promoted
    strongest: Tensor = torch.zeros(2 * LATENTS)
    for text in TEXTS:
        encoding = encode_batch(tiny_lm.tokenizer, [text])
        points = {n: tiny_lm.layers.resolve(sae.layers[at]) for at, n in enumerate((0, 2))}
        found = run_to(tiny_lm, list(points.values()), encoding.input_ids, encoding.attention_mask)
        rows = {n: found[point][0][~encoding.special[0]] for n, point in points.items()}
        strongest = torch.maximum(strongest, dense(sae, rows).amax(0))
    got = {row.feature: row.max_act for row in store.rows(range(2 * LATENTS))}
    for feature, value in enumerate(strongest.tolist()):
        assert got[feature] == pytest.approx(value, abs=1e-4)


def test_what_cannot_be_done_is_said_in_one_sentence(tiny_lm, workspace: Workspace) -> None:
    sae = small("clt", (0, 2), model="tiny")
    sae.save(workspace.make_sae_dir("across", "across"))
    config = CaptureConfig(
        ModelSpec("tiny"), DatasetSpec("list"), ("mlp_in.0",), dtype="fp32", name="run"
    )
    Capture(tiny_lm, TextDataset(TEXTS, None), config).run(workspace, NullProgress(), None)
    with pytest.raises(NotFoundError, match=r"mlp_in\.2"):
        check_index(workspace, IndexConfig("across", run_id="run"))
    with pytest.raises(UserError, match="does not say which run it belongs to") as error:
        check_index(workspace, IndexConfig("across"))
    assert "or texts with --dataset" in error.value.hint
    with pytest.raises(NotFoundError, match=r"mlp_in\.2"):
        evaluate_sae(workspace, EvaluateConfig("across", run_id="run"))
    two = replace(config, name="both", layers=("mlp_in.0", "mlp_in.2"))
    Capture(tiny_lm, TextDataset(TEXTS, None), two).run(workspace, NullProgress(), None)
    check_evaluate(workspace, EvaluateConfig("across", run_id="both"))
    with pytest.raises(NotFoundError, match=r"mlp_out\.0"):  # what it predicts
        evaluate_sae(workspace, EvaluateConfig("across", run_id="both"))
    wider = small("crosscoder", (0, 1, 2, 3))
    with pytest.raises(NotFoundError):
        join("wider", tiny_lm, wider)


def test_a_transcoder_changes_what_the_mlp_adds(tiny_lm: LanguageModel, tmp_path: Path) -> None:
    """Steering adds a transcoder's decoder rows to the layer that it predicts."""
    from mi_crow.mechanistic.sae import SaeMetadata, Transcoder
    from mi_crow.mechanistic.steering.parts import at_its_layers
    from mi_crow.mechanistic.steering.steer import SteeringParts, steering_with

    sae = Transcoder(LATENTS, 32, 32, k=4, seed=2)
    sae.metadata = SaeMetadata(point="mlp_in.1", other={"target_layer": "mlp_out.1"})
    sae.eval().requires_grad_(False)
    loaded = join("t", tiny_lm, sae)
    special = encode_batch(tiny_lm.tokenizer, [TEXT]).special[0]
    with added_by_hand(tiny_lm, {"model.layers.1.mlp": 3 * sae.W_dec[5]}, special):
        wanted = logits(tiny_lm)
    with steering_with(
        tiny_lm, SteeringParts(at_its_layers(loaded)), [Intervention("feature:5", "add", 3.0)]
    ):
        torch.testing.assert_close(logits(tiny_lm), wanted, atol=1e-4, rtol=1e-4)
