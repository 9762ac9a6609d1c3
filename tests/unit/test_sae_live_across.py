"""SAEs over several layers of the running model: the tokens of a captured run, resumed, saved."""

from dataclasses import asdict, replace
from itertools import islice
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import torch

from mi_crow.datasets import TextDataset
from mi_crow.errors import CancelledError, NotFoundError, UserError
from mi_crow.jobs.checks import check_train
from mi_crow.language_model import LanguageModel
from mi_crow.language_model.capture.job import capture_run
from mi_crow.language_model.capture.live_layer import LiveLayer
from mi_crow.language_model.capture.run import Capture
from mi_crow.language_model.config import CaptureConfig, DatasetSpec, LiveTexts, ModelSpec
from mi_crow.mechanistic.features import FeatureStore, IndexConfig, build_index
from mi_crow.mechanistic.sae import CrossLayerSae, EvaluateConfig, SaeTrainingConfig, load_sae
from mi_crow.mechanistic.sae.config import CLT, CROSSCODER, TrainConfig
from mi_crow.mechanistic.sae.cross_layer.origins import FILE
from mi_crow.mechanistic.sae.cross_layer.two_models import TwoModelCrosscoder
from mi_crow.mechanistic.sae.evaluation.evaluate import evaluate_sae
from mi_crow.mechanistic.sae.train import live as live_module
from mi_crow.mechanistic.sae.train.across.streamed import LiveLayers, streamed_layers
from mi_crow.mechanistic.sae.train.across.tokens import open_models
from mi_crow.mechanistic.sae.train.run import train_run
from mi_crow.progress import NullProgress
from mi_crow.store import Workspace
from mi_crow.store.runs.joined import JoinedTokens
from mi_crow.store.runs.reader import RunReader
from tests.helpers.progress import Watched
from tests.helpers.tiny_models import TEXTS, save_tiny_llama

MANY = [f"{number}: {text}" for number in range(8) for text in TEXTS]
LAYERS = {
    CROSSCODER: ("resid_post.2", "resid_post.0"),
    CLT: ("mlp_in.0", "mlp_in.1", "mlp_in.2"),
}
TRAINING = SaeTrainingConfig(steps=12, batch_size=64, checkpoint_every=4, log_every=4)
EXACT = "donot_use_mm_for_euclid_dist"
every = pytest.mark.parametrize("family", LAYERS)


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live_module, "_LEAST_BLOCK_TOKENS", 700)


@pytest.fixture
def config(tiny_model_dir: Path, tmp_path: Path, family: str) -> TrainConfig:
    texts = tmp_path / "texts.txt"
    texts.write_text("\n\n".join(MANY))
    layers = LAYERS[family]
    return TrainConfig(
        "",
        layers[0],
        "batchtopk",
        n_latents=48,
        k=5,
        stream=CaptureConfig(ModelSpec(str(tiny_model_dir)), DatasetSpec(str(texts)), layers),
        family=family,
        layers=layers,
        training=TRAINING,
        device="cpu",
        name="sae",
    )


def test_rows_are_those_of_a_run_side_by_side(tiny_lm: LanguageModel, workspace: Workspace) -> None:
    layers = ("resid_post.0", "resid_post.2")
    settings = CaptureConfig(ModelSpec("tiny"), DatasetSpec("list"), layers, dtype="fp32")
    run = Capture(tiny_lm, TextDataset(MANY), settings).run(workspace, NullProgress())
    stored = JoinedTokens([RunReader(workspace.run_dir(run.run_id), name) for name in layers])
    live = LiveLayers(LiveLayer(tiny_lm, settings, NullProgress()), TextDataset(MANY), 0)
    assert (live.width, live.widths) == (stored.width, stored.widths)
    known = stored.sample(10**6, 0).split(stored.widths, dim=1)
    for x in islice(live.batches(64, 0), 3):
        nearest = torch.zeros(())
        for place, part in enumerate(x.split(live.widths, dim=1)):
            plain = known[place] / stored.scales[place]
            distance = torch.cdist(part / live.scales[place], plain, compute_mode=EXACT)
            nearest = nearest + distance
        assert float(nearest.amin(1).max()) < 1e-3  # one token at both layers
    norms = torch.linalg.vector_norm(live.sample(10**6, 0), dim=1)
    assert live.median_norm() == pytest.approx(float(norms.median()), rel=0.1)
    assert float(norms.pow(2).median()) == pytest.approx(live.width, rel=0.5)
    limit = live.median_norm()
    few = next(iter(live.batches(64, 0, max_norm=limit)))
    assert float(few.norm(dim=1).max()) <= limit * 1.0001
    assert live.median_largest_norm() == pytest.approx(stored.median_largest_norm(), rel=0.1)


@every
def test_it_trains_without_a_run(workspace: Workspace, config: TrainConfig) -> None:
    result = train_run(workspace, config)
    assert result.tokens == 12 * 64
    assert list(workspace.activations_dir.glob("*")) == []
    sae = load_sae(workspace.sae_dir("sae"))
    assert isinstance(sae, CrossLayerSae)
    assert sae.metadata.run_id is None
    assert len(sae.layers) == len(config.layers)
    assert [*sae.layers] == sorted(sae.layers)


@pytest.mark.parametrize("family", [CROSSCODER, pytest.param(CLT, marks=pytest.mark.slow)])
def test_a_stopped_training_resumes_bit_for_bit(workspace: Workspace, config: TrainConfig) -> None:
    train_run(workspace, replace(config, name="straight"))
    folder = workspace.make_sae_dir("stopped", "")
    for looks in (5, 4):
        with pytest.raises(CancelledError):
            train_run(workspace, config, Watched(looks=looks), folder)
    train_run(workspace, config, sae_dir=folder)
    first, second = (load_sae(workspace.sae_dir(name)) for name in ("straight", "stopped"))
    assert isinstance(first, CrossLayerSae)
    assert isinstance(second, CrossLayerSae)
    own, other = first.weights(), second.weights()
    assert own.keys() == other.keys()
    for name, weight in own.items():
        assert torch.equal(weight, other[name]), name


@pytest.mark.parametrize(
    ("family", "layers", "says"),
    [
        (CLT, ("resid_post.0", "resid_post.1"), "reads the inputs of MLPs"),
        (CROSSCODER, ("resid_post.0", "mlp_in.0"), "are of the same block"),
        (CROSSCODER, ("resid_post.0", "resid_post.77"), "77"),
    ],
)
def test_layers_that_do_not_fit_are_refused(
    workspace: Workspace, config: TrainConfig, layers: tuple[str, ...], says: str
) -> None:
    assert config.stream is not None
    stream = replace(config.stream, layers=layers)
    wrong = replace(config, layer=layers[0], layers=layers, stream=stream)
    with pytest.raises((UserError, NotFoundError), match=says):
        train_run(workspace, wrong)
    assert list(workspace.saes_dir.glob("*")) == []


# Two models on a stream.

two = pytest.mark.parametrize("family", [CROSSCODER])


@pytest.fixture
def both(config: TrainConfig, tiny_tuned_dir: Path) -> TrainConfig:
    return replace(config, tuned_model=str(tiny_tuned_dir))


@two
def test_each_row_is_one_token_in_both_models(
    workspace: Workspace, both: TrainConfig, tiny_model_dir: Path, tiny_tuned_dir: Path
) -> None:
    assert both.stream is not None
    for name, model in (("base", tiny_model_dir), ("tuned", tiny_tuned_dir)):
        spec = ModelSpec(str(model), device="cpu")
        capture = replace(both.stream, model=spec, dtype="fp32", name=name)
        capture_run(workspace, capture)
    stored = open_models(workspace, "base", "tuned", both.layers)
    live = streamed_layers(both, both.stream, NullProgress())
    assert live.roles == stored.roles
    assert [live.name_of(one) for one in live.reads] == [
        *("resid_post.0", "resid_post.2"),
        *("resid_post.0", "resid_post.2"),
    ]
    assert live.source.widths == stored.source.widths
    known = stored.source.sample(10**6, 0).split(stored.source.widths, dim=1)
    for x in islice(live.source.batches(64, 0), 3):
        far = torch.zeros(())
        for place, part in enumerate(x.split(live.source.widths, dim=1)):
            plain = known[place] / stored.source.scales[place]
            scaled = part / live.source.scales[place]
            far = far + torch.cdist(scaled, plain, compute_mode=EXACT)
        assert float(far.amin(1).max()) < 1e-3  # one token at all layers of both


@pytest.mark.slow
@two
def test_a_stopped_training_of_two_models_resumes_bit_for_bit(
    workspace: Workspace, both: TrainConfig, tiny_model_dir: Path, tiny_tuned_dir: Path
) -> None:
    check_train(workspace, both)
    train_run(workspace, replace(both, name="straight"))
    folder = workspace.make_sae_dir("stopped", "")
    for looks in (5, 4):
        with pytest.raises(CancelledError):
            train_run(workspace, both, Watched(looks=looks), folder)
    train_run(workspace, both, sae_dir=folder)
    assert list(workspace.activations_dir.glob("*")) == []
    first, second = (load_sae(workspace.sae_dir(name)) for name in ("straight", "stopped"))
    assert isinstance(first, TwoModelCrosscoder)
    assert first.layers == tuple(
        f"{role}:resid_post.{number}" for role in ("base", "tuned") for number in (0, 2)
    )
    assert [(one.name, one.run_id) for one in first.models.values()] == [
        (str(tiny_model_dir), None),
        (str(tiny_tuned_dir), None),
    ]
    assert first.metadata.model_name == str(tiny_tuned_dir)
    for name, weight in first.weights().items():
        assert torch.equal(weight, second.weights()[name]), name
    tables = [pq.read_table(workspace.sae_dir(name) / FILE) for name in ("straight", "stopped")]
    assert tables[0].equals(tables[1])
    assert tables[0]["origin"].null_count < len(tables[0])


@pytest.mark.slow
@two
def test_it_is_indexed_and_evaluated_with_both_models(
    workspace: Workspace, both: TrainConfig, tiny_model_dir: Path, tiny_tuned_dir: Path
) -> None:
    assert both.stream is not None
    one_layer = replace(
        both,
        layer="resid_post.2",
        layers=("resid_post.2",),
        stream=replace(both.stream, layers=("resid_post.2",)),
    )
    train_run(workspace, one_layer)
    texts = LiveTexts(both.stream.dataset)
    build_index(workspace, IndexConfig("sae", live=texts, device="cpu"))
    assert FeatureStore.open(workspace, "sae").meta().model_id == str(tiny_tuned_dir)
    with pytest.raises(UserError, match="does not say which run"):
        evaluate_sae(workspace, EvaluateConfig("sae", device="cpu"))
    for name, model in (("base", tiny_model_dir), ("tuned", tiny_tuned_dir)):
        spec = ModelSpec(str(model), device="cpu")
        stream = replace(one_layer.stream or both.stream, model=spec, name=name, dtype="fp32")
        capture_run(workspace, stream)
    with pytest.raises(UserError, match="which run of the tuned model"):
        evaluate_sae(workspace, EvaluateConfig("sae", "base", device="cpu"))
    found = evaluate_sae(workspace, EvaluateConfig("sae", "base", device="cpu", tuned_run="tuned"))
    assert [one["layer"] for one in found["layers"]] == ["base:resid_post.2", "tuned:resid_post.2"]
    assert [one["model"] for one in found["models"]] == ["base", "tuned"]
    origins = workspace.sae_dir("sae") / FILE
    wanted = pq.read_table(origins)
    origins.unlink()
    live = EvaluateConfig("sae", live=texts, device="cpu")
    dataset = {"run_id": None, "dataset": asdict(texts.dataset)}
    assert evaluate_sae(workspace, live) == found | dataset
    assert pq.read_table(origins).equals(wanted)
    named = replace(live, live=replace(texts, model=ModelSpec(str(tiny_model_dir))))
    with pytest.raises(UserError, match="is the base model of SAE"):
        evaluate_sae(workspace, named)


@every
@pytest.mark.slow
def test_texts_are_measured_as_a_run_of_them_is(workspace: Workspace, config: TrainConfig) -> None:
    train_run(workspace, config)
    sae, stream = load_sae(workspace.sae_dir("sae")), config.stream
    assert isinstance(sae, CrossLayerSae)
    assert stream is not None
    layers = tuple(dict.fromkeys((*sae.layers, *sae.target_layers)))
    spec = replace(stream.model, device="cpu")
    run = replace(stream, model=spec, layers=layers, dtype="fp32", name="run")
    capture_run(workspace, run)
    wanted = evaluate_sae(workspace, EvaluateConfig("sae", "run", device="cpu"))
    live = EvaluateConfig("sae", live=LiveTexts(stream.dataset), device="cpu")
    dataset = {"run_id": None, "dataset": asdict(stream.dataset)}
    assert evaluate_sae(workspace, live) == wanted | dataset


@two
def test_tuned_models_that_do_not_fit_are_refused(
    workspace: Workspace, both: TrainConfig, tiny_model_dir: Path, tmp_path: Path
) -> None:
    assert both.stream is not None
    for changes, says in (
        ({"tuned_model": str(tiny_model_dir)}, "was given for both models"),
        ({"tuned_model": None, "tuned_run": "chat"}, "--tuned-run is for a training on runs"),
        ({"tuned_model": None, "tuned_revision": "main"}, "is of a tuned model"),
        ({"stream": None}, "--tuned-model is for --stream"),
        ({"family": "sae", "layers": ()}, "--tuned-model is for crosscoders"),
    ):
        stream = (
            {"stream": replace(both.stream, layers=(both.layer,))} if "layers" in changes else {}
        )
        with pytest.raises(UserError, match=says):
            replace(both, **stream, **changes)
    with pytest.raises(UserError, match="not found"):
        check_train(workspace, replace(both, tuned_model=str(tmp_path / "gone")))
    other = replace(both, tuned_model=str(save_tiny_llama(tmp_path / "other", vocabulary=300)))
    with pytest.raises(UserError, match="have different tokenizers"):
        train_run(workspace, other)
    assert list(workspace.saes_dir.glob("*")) == []
