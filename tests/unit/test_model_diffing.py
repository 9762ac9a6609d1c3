"""Crosscoders over two models on the same texts: trained, told apart, indexed, steered."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from mi_crow.datasets import TextDataset
from mi_crow.errors import CancelledError, CorruptDataError, NotFoundError, UserError
from mi_crow.jobs.checks import check_evaluate, check_train
from mi_crow.language_model import LanguageModel
from mi_crow.language_model.capture.run import Capture
from mi_crow.language_model.config import CaptureConfig, DatasetSpec, ModelSpec
from mi_crow.mechanistic.explain.checking import check_feature
from mi_crow.mechanistic.explain.contrast import contrast
from mi_crow.mechanistic.features import FeatureStore, IndexConfig, build_index
from mi_crow.mechanistic.features.query_language import parse_query
from mi_crow.mechanistic.sae import EvaluateConfig, SaeTrainingConfig, load_sae
from mi_crow.mechanistic.sae.config import TrainConfig
from mi_crow.mechanistic.sae.cross_layer.latent_scaling import latent_scaling, origins
from mi_crow.mechanistic.sae.cross_layer.origins import FILE, ORIGINS
from mi_crow.mechanistic.sae.cross_layer.two_models import TwoModelCrosscoder
from mi_crow.mechanistic.sae.evaluation.evaluate import evaluate_sae
from mi_crow.mechanistic.sae.train.across.tokens import open_models
from mi_crow.mechanistic.sae.train.run import train_run
from mi_crow.mechanistic.steering.inspection import inspect
from mi_crow.mechanistic.steering.interventions import parse_intervention
from mi_crow.mechanistic.steering.loading import join, load_for_work
from mi_crow.mechanistic.steering.readings import watching
from mi_crow.mechanistic.steering.steer import steering
from mi_crow.progress import NullProgress
from mi_crow.store import Workspace
from mi_crow.store.runs.manifest import RunManifest
from mi_crow.store.workspace import read_sae_summary
from tests.helpers.near_session import NearSession
from tests.helpers.progress import Watched
from tests.helpers.steering_fixture import TEXT, logits
from tests.helpers.tiny_models import TEXTS
from tests.helpers.two_model_runs import known_features, write_two_runs

CONFIG = TrainConfig(
    "base",
    "resid_post.0",
    "batchtopk",
    n_latents=48,
    k=5,
    family="crosscoder",
    layers=("resid_post.0",),
    tuned_run="tuned",
    training=SaeTrainingConfig(
        steps=12, batch_size=32, checkpoint_every=4, log_every=4, dead_tokens=64
    ),
    device="cpu",
    name="sae",
)


def trained(workspace: Workspace, config: TrainConfig = CONFIG) -> TwoModelCrosscoder:
    train_run(workspace, config)
    sae = load_sae(workspace.sae_dir(config.name or ""))
    assert isinstance(sae, TwoModelCrosscoder)
    return sae


# Which model a latent is of.


@pytest.mark.slow
@pytest.mark.parametrize(("arch", "seed"), [("batchtopk", 0), ("batchtopk", 1), ("topk", 0)])
def test_known_features_are_told_apart(workspace: Workspace, arch: str, seed: int) -> None:
    """Of features that are known to be of both models or of one, at least 95 %."""
    known = known_features(seed=seed)
    write_two_runs(workspace, known)
    training = SaeTrainingConfig(steps=800, batch_size=512, lr=3e-3, seed=seed)
    config = replace(CONFIG, arch=arch, n_latents=64, k=3, training=training)
    sae = trained(workspace, config)
    table = pq.read_table(workspace.sae_dir("sae") / FILE)
    assert table["feature"].to_pylist() == list(range(64))
    said = table["origin"].to_pylist()
    # The tuned model's activations are twice as long.
    rows = torch.cat([sae.decoder_at(0), sae.decoder_at(1) / 2], dim=1)
    wanted = torch.cat([known.base, known.tuned], dim=1)
    cosines = torch.nn.functional.cosine_similarity(wanted[:, None], rows[None], dim=2)
    right = [
        said[latent] == origin
        for latent, origin in zip(cosines.argmax(1).tolist(), known.origin, strict=True)
    ]
    assert sum(right) / len(right) >= 0.95
    # And of what is said to be of one model, hardly anything is of both.
    alone = [latent for latent, origin in enumerate(said) if origin in ("base", "tuned")]
    owners = [known.origin[place] for place in cosines.argmax(0)[alone].tolist()]
    wrong = sum(said[one] != owner for one, owner in zip(alone, owners, strict=True))
    assert wrong <= 0.05 * len(alone)


def test_latent_scaling_is_the_least_squares_of_its_definition(workspace: Workspace) -> None:
    write_two_runs(workspace, known_features(), tokens=400)
    sae = trained(workspace, replace(CONFIG, n_latents=40, k=6))
    tokens = open_models(workspace, "base", "tuned", ("resid_post.0",)).source
    found = latent_scaling(sae, tokens, NullProgress(), 10**6)
    rows = next(tokens.batches(tokens.count(), 0))
    units = torch.tensor(tokens.scales).repeat_interleave(32)
    z = sae.encode(rows / units)
    rebuilt = sae(rows / units).reconstruction * units
    decoders = [sae.decoder_at(place) * tokens.scales[place] for place in (0, 1)]
    checked = 0
    for latent in range(40):
        f = z[:, latent]
        assert found.fires[latent] == int((f > 0).sum())
        norms = [float(one[latent].norm()) for one in decoders]
        assert found.norm_base[latent] == pytest.approx(norms[0], rel=1e-4)
        if not float(f.sum()):
            assert found.origin[latent] == -1
            assert np.isnan(found.nu_error[latent])
            continue
        checked += 1
        own = int(norms[1] >= norms[0])
        design = (f[:, None] * decoders[own][latent]).reshape(-1, 1).double()
        betas: dict[str, list[float]] = {"reconstruction": [], "error": []}
        for place in (0, 1):
            part = rebuilt[:, 32 * place :][:, :32]
            x = rows[:, 32 * place :][:, :32]
            without = part - f[:, None] * decoders[place][latent]
            for what, y in (("reconstruction", part), ("error", x - without)):
                solved = torch.linalg.lstsq(design, y.reshape(-1, 1).double()).solution
                betas[what].append(float(solved))
        for what, both in betas.items():
            for role, beta in zip(("base", "tuned"), both, strict=True):
                measured = getattr(found, f"beta_{what}_{role}")[latent]
                assert measured == pytest.approx(beta, abs=2e-4, rel=1e-3)
            nu = both[1 - own] / both[own]
            assert getattr(found, f"nu_{what}")[latent] == pytest.approx(nu, abs=1e-3, rel=1e-2)
        relative = ((norms[1] - norms[0]) / max(norms) + 1) / 2
        assert found.relative_norm[latent] == pytest.approx(relative, abs=1e-5)
    assert checked > 20


def test_origins_follow_norms_and_scaling() -> None:
    nan = float("nan")
    cases = [
        (0.5, 1.0, 1.0, "shared"),
        (0.05, 0.1, 0.0, "base"),
        (0.97, 0.1, 0.1, "tuned"),
        (0.97, 0.9, 0.0, "shared"),  # latent decoupling
        (0.97, 0.0, 0.6, "shared"),  # complete shrinkage
        (0.8, 0.5, 0.5, "unclear"),
        (0.97, nan, nan, "unclear"),
        (nan, nan, nan, None),
    ]
    norms, rebuilt, error, wanted = zip(*cases, strict=True)
    found = origins(np.array(norms), np.array(rebuilt), np.array(error))
    assert [ORIGINS[place] if place >= 0 else None for place in found] == list(wanted)


# What is refused.


def test_runs_that_do_not_go_together_are_refused(workspace: Workspace) -> None:
    write_two_runs(workspace, known_features(), tokens=200)
    folder = workspace.run_dir("tuned")

    def refused(says: str, error: type[Exception] = UserError, **changes: Any) -> None:
        with pytest.raises(error, match=says):
            train_run(workspace, replace(CONFIG, **changes))
        assert not [*workspace.saes_dir.glob("*")]

    refused("run 'other' not found", NotFoundError, tuned_run="other")
    manifest = RunManifest.load(folder)
    replace(manifest, tokenizer_hash="another").save(folder)
    with pytest.raises(UserError, match="whose tokenizer is not that of 'm'"):
        check_train(workspace, CONFIG)
    refused("whose tokenizer is not that of 'm'")
    manifest.save(folder)
    check_train(workspace, CONFIG)
    path = folder / "tokens" / "part-000-00000.parquet"
    table = pq.read_table(path)
    ids = table["token_ids"].to_pylist()
    ids[1][3] += 1
    column = table.schema.get_field_index("token_ids")
    of_kind = table.schema.field(column)
    changed = table.set_column(column, of_kind, [pa.array(ids, of_kind.type)])
    pq.write_table(changed, path)
    for part in manifest.parts:
        part.files.clear()
    manifest.save(folder)
    refused("runs 'base' and 'tuned' do not hold the same tokens")
    pq.write_table(table, path)
    assert trained(workspace).layers == ("base:resid_post.0", "tuned:resid_post.0")


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"family": "sae"}, "--tuned-run is for crosscoders"),
        ({"family": "clt"}, "--tuned-run is for crosscoders"),
        ({"tuned_run": "base"}, "run 'base' was given for both models"),
        ({"tuned_run": None}, "a crosscoder is of several layers"),
    ],
)
def test_settings_that_do_not_fit_are_refused(changes: dict[str, Any], says: str) -> None:
    with pytest.raises(UserError, match=says):
        replace(CONFIG, **changes)


# Two small models.


@pytest.fixture
def tuned_lm(tiny_tuned_dir: Path) -> LanguageModel:
    return LanguageModel.from_huggingface(tiny_tuned_dir, device="cpu")


@pytest.fixture
def captured(workspace: Workspace, tiny_lm: LanguageModel, tuned_lm: LanguageModel) -> Workspace:
    """A workspace with a run of each model over the same texts."""
    texts = [text + ending for ending in ("", " And so on.", " Again?") for text in TEXTS]
    layers = ("resid_post.0", "resid_post.2")
    for name, lm in (("base", tiny_lm), ("tuned", tuned_lm)):
        spec = ModelSpec(str(lm.model_id))
        config = CaptureConfig(
            spec, DatasetSpec("list"), layers, dtype="fp32", shard_size=5, name=name
        )
        Capture(lm, TextDataset(texts, None), config).run(workspace, NullProgress(), None)
    return workspace


@pytest.mark.slow
def test_it_says_which_inputs_it_has(captured: Workspace) -> None:
    sae = trained(captured, replace(CONFIG, layers=("resid_post.2", "resid_post.0")))
    assert sae.layers == tuple(
        f"{role}:resid_post.{number}" for role in ("base", "tuned") for number in (0, 2)
    )
    assert sae.number_of("tuned:resid_post.0") == 2
    with pytest.raises(NotFoundError, match=r"no input 'tuned:resid_post\.1'"):
        sae.number_of("tuned:resid_post.1")
    assert {role: Path(model.name).name for role, model in sae.models.items()} == {
        "base": "tiny-llama",
        "tuned": "tiny-tuned",
    }
    meta = sae.metadata
    assert Path(meta.model_name).name == "tiny-tuned"
    assert (meta.run_id, meta.hook_name) == ("base", "resid_post.0,2")
    summary = read_sae_summary(captured.sae_dir("sae"))
    assert summary.layers == sae.layers
    assert [(role, run) for role, _, run in summary.models] == [
        ("base", "base"),
        ("tuned", "tuned"),
    ]
    x = {number: torch.randn(3, 32) for number in range(4)}
    output = sae(x)
    assert output.reconstruction.keys() == x.keys()
    with pytest.raises(UserError, match="also reads layer 3"):
        sae.encode({number: x[number] for number in range(3)})
    broken = replace(sae.record, models=sae.record.models[:1])
    with pytest.raises(CorruptDataError, match="which layers each of two models has"):
        broken.checked("a test")


@pytest.mark.slow
def test_a_stopped_training_resumes_bit_for_bit(captured: Workspace) -> None:
    whole = trained(captured, replace(CONFIG, name="whole"))
    folder = captured.make_sae_dir("sae", "sae")
    with pytest.raises(CancelledError) as caught:
        train_run(captured, CONFIG, Watched(looks=6), folder)
    assert caught.value.resumable
    train_run(captured, CONFIG, NullProgress(), folder)
    resumed = load_sae(folder)
    for name, tensor in whole.weights().items():
        assert torch.equal(tensor, resumed.weights()[name])
    tables = [pq.read_table(captured.sae_dir(name) / FILE) for name in ("whole", "sae")]
    assert tables[0].equals(tables[1])


@pytest.mark.slow
def test_it_is_steered_by_adding_and_read_with_both_models(
    captured: Workspace, tiny_lm: LanguageModel, tuned_lm: LanguageModel
) -> None:
    sae = trained(captured, replace(CONFIG, layers=("resid_post.0", "resid_post.2")))
    sae.metadata = replace(sae.metadata, outlier_norm=None)
    for lm, role in ((tuned_lm, "tuned"), (tiny_lm, "base")):
        loaded = join("sae", lm, sae)
        assert loaded.other is not None
        found = inspect(loaded, TEXT, top=3)
        strongest = found["features"][0]
        # By hand: both models on the same tokens.
        seen = [activations_of(one) for one in (tiny_lm, tuned_lm)]
        z = sae.encode(torch.cat([*seen[0], *seen[1]], dim=-1))
        acts = torch.tensor(strongest["acts"])
        ordinary = ~torch.tensor(found["special"])
        expected = z[0, :, strongest["feature"]] * ordinary
        torch.testing.assert_close(acts, expected, atol=1e-4, rtol=1e-4)
        assert float(acts.max()) > 0
        with watching(loaded, [strongest["feature"]]) as watched:
            watched.enable()
            logits(lm)
            torch.testing.assert_close(watched.found[0, :, 0], acts, atol=1e-4, rtol=1e-4)
        plain = logits(lm)
        add = parse_intervention(f"{strongest['feature']}=+2")
        with steering(lm, sae, 0, [add]):
            assert not torch.allclose(logits(lm), plain)
            block = activations_of(lm, steered=True)
        wanted = sae.decoder_at(min(sae.points_of(role)))[strongest["feature"]]
        moved = (block[0] - activations_of(lm)[0])[0, -1]
        torch.testing.assert_close(moved, 2 * wanted, atol=1e-3, rtol=1e-3)
        for refused in (f"{strongest['feature']}=ablate", "3=+2 ?3>1"):
            with (
                pytest.raises(UserError, match="reads two models"),
                steering(lm, sae, 0, [parse_intervention(refused)]),
            ):
                pass
        # A check reads both models too, and so does a contrast.
        fired = check_feature(loaded, strongest["feature"], [TEXT]).fired
        assert max(one.activation for one in fired) == pytest.approx(float(acts.max()), rel=1e-3)
        sides = [[f"{TEXT} {n} {word}" for n in range(8)] for word in ("sea", "bread")]
        assert contrast(loaded, *sides, top=3).features


def activations_of(lm: LanguageModel, steered: bool = False) -> list[torch.Tensor]:
    """Of blocks 0 and 2 on TEXT, `steered` with the hooks that there are."""
    found: dict[int, torch.Tensor] = {}

    def keep(number: int) -> Any:
        def hook(_: object, __: object, output: Any) -> None:
            found[number] = (output[0] if isinstance(output, tuple) else output).detach().clone()

        return lm.model.get_submodule(f"model.layers.{number}").register_forward_hook(hook)

    handles = [keep(number) for number in (0, 2)]
    logits(lm)
    for handle in handles:
        handle.remove()
    return [found[number] for number in (0, 2)]


@pytest.mark.slow
def test_a_session_opens_one_of_a_layer_of_each_model(captured: Workspace) -> None:
    trained(captured)
    session = NearSession(captured)
    found = session.call("load", sae_id="sae", device="cpu")
    assert (Path(found["model_id"]).name, found["layer"]) == ("tiny-tuned", "resid_post.0")
    session.call("inspect", text=TEXT, sae_id="sae")
    [causes] = session.call("attribute", text=TEXT, sae_id="sae")["saes"]
    assert causes["check"]["rank_correlation"] > 0.5
    assert {one["layer"].partition(":")[0] for one in causes["causes"]} <= {"base", "tuned"}
    steps = {"prompt": TEXT, "max_new_tokens": 2, "sae_id": "sae"}
    assert session.call("generate", **steps, interventions=[added("3=+8")])["steered"]
    with pytest.raises(UserError, match="reads two models: how active") as caught:
        session.call("generate", **steps, interventions=[added("3=floor 0.3norm")])
    assert "add them" in caught.value.hint
    assert session.call("inspect", text=TEXT, sae_id="sae")["features"]


def added(text: str) -> dict[str, Any]:
    return parse_intervention(text).in_sae("sae").as_json()


@pytest.mark.slow
def test_its_index_says_which_model_each_feature_is_of(
    captured: Workspace, tuned_lm: LanguageModel
) -> None:
    sae = trained(captured)
    check_evaluate(captured, EvaluateConfig("sae"))
    evaluation = evaluate_sae(captured, EvaluateConfig("sae", device="cpu", documents=4))
    both = {one["model"]: one for one in evaluation["models"]}
    assert both["tuned"]["ce_original"] == evaluation["ce_original"]
    assert both["base"]["ce_original"] != evaluation["ce_original"]
    assert all(one["kl"] > 0 for one in both.values())
    assert [one["layer"] for one in evaluation["layers"]] == list(sae.layers)
    table = pq.read_table(captured.sae_dir("sae") / FILE).to_pydict()
    said = table["origin"]
    assert sum(evaluation["origins"].values()) == 48
    assert evaluation["origins"]["dead"] == said.count(None)
    with pytest.raises(UserError, match="is of the tuned model of SAE 'sae', not of the base one"):
        build_index(captured, IndexConfig("sae", run_id="tuned", device="cpu"), lm=tuned_lm)
    build_index(captured, IndexConfig("sae", device="cpu"), lm=tuned_lm)
    build_index(captured, IndexConfig("sae", device="cpu", names=False))  # the model as it says
    store = FeatureStore.open(captured, "sae")
    assert store.meta().model_id == sae.metadata.model_name
    shared = [feature for feature, origin in enumerate(said) if origin == "shared"]
    assert shared
    found = store.find(parse_query("origin:shared sort:nu_error"))
    rows = store.rows(found, ["origin", "nu_error"])
    assert sorted(row.feature for row in rows) == shared
    values = [row.more["nu_error"] for row in rows]
    assert values == sorted(values, reverse=True)
    assert {row.more["origin"] for row in rows} == {"shared"}
    assert len(store.find(parse_query("-origin:shared"))) == 48 - len(shared)
    detail = store.detail(shared[0])
    assert detail.models is not None
    assert detail.models.origin == "shared"
    assert detail.models.nu_error == pytest.approx(table["nu_error"][shared[0]])
    (captured.sae_dir("sae") / FILE).write_bytes(b"PAR1 no more")
    with pytest.raises(CorruptDataError, match="is not readable"):
        FeatureStore.open(captured, "sae").find(parse_query("relative_norm>0.1"))
    (captured.sae_dir("sae") / FILE).unlink()
    with pytest.raises(UserError, match="does not say which model"):
        FeatureStore.open(captured, "sae").find(parse_query("origin:base"))


@pytest.mark.slow
def test_two_variants_of_the_sample_model(workspace: Workspace, tmp_path: Path) -> None:
    """Captured, trained, stopped and resumed, indexed and steered, with both models by name."""
    from mi_crow.language_model.capture.job import capture_run

    lm = LanguageModel.from_spec(ModelSpec("sample", device="cpu"))
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, parameter in lm.model.named_parameters():
            if "layers" in name and parameter.ndim == 2:
                noise = torch.randn(parameter.shape, generator=generator)
                parameter += 0.3 * parameter.std() * noise
    folder = tmp_path / "tuned-model"
    lm.model.save_pretrained(folder)
    lm.tokenizer.save_pretrained(folder)
    for run, model in (("base", "sample"), ("tuned", str(folder))):
        spec, texts = ModelSpec(model, device="cpu"), DatasetSpec("sample", limit=60)
        capture_run(workspace, CaptureConfig(spec, texts, ("resid_post.2",), name=run))
    training = SaeTrainingConfig(steps=120, batch_size=512, checkpoint_every=20)
    layers = ("resid_post.2",)
    config = replace(CONFIG, layer=layers[0], layers=layers, n_latents=384, k=16, training=training)
    made = workspace.make_sae_dir("sae", "sae")
    with pytest.raises(CancelledError):
        train_run(workspace, config, Watched(looks=40), made)
    result = train_run(workspace, config, NullProgress(), made)
    assert result.fvu < 0.4
    build_index(workspace, IndexConfig("sae", device="cpu", names=False))
    store = FeatureStore.open(workspace, "sae")
    shared = store.find(parse_query("origin:shared sort:density"))
    assert len(shared) > 300
    loaded = load_for_work(workspace, "sae", "cpu")
    assert loaded.lm.model_id == str(folder)
    plain = logits(loaded.lm)
    with steering(loaded.lm, loaded.sae, 0, [parse_intervention(f"{shared[0]}=+20")]):
        assert not torch.allclose(logits(loaded.lm), plain, atol=0.1)
