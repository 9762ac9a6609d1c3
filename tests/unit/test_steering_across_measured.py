"""SAEs over several layers measured: output scores, sweeps, searches, contrasts and checks."""

from dataclasses import replace

import pytest
import torch

from mi_crow.errors import UserError
from mi_crow.mechanistic.explain.checking import check_feature
from mi_crow.mechanistic.explain.contrast import contrast
from mi_crow.mechanistic.features.beside.output_scores import read_scores
from mi_crow.mechanistic.sae import CrossLayerSae
from mi_crow.mechanistic.sae.cross_layer.record import BASE, TUNED, ModelRead
from mi_crow.mechanistic.steering.inspection import inspect
from mi_crow.mechanistic.steering.interventions import Intervention
from mi_crow.mechanistic.steering.loading import LoadedSae, join
from mi_crow.mechanistic.steering.measure.aims.topic_vector import point_of
from mi_crow.mechanistic.steering.measure.arms import Arm
from mi_crow.mechanistic.steering.measure.auto import run_auto
from mi_crow.mechanistic.steering.measure.checks import check_auto
from mi_crow.mechanistic.steering.measure.config import (
    AutoConfig,
    Judging,
    ScoresConfig,
    SweepConfig,
    Trial,
)
from mi_crow.mechanistic.steering.measure.indexed import Indexed
from mi_crow.mechanistic.steering.measure.output_scores import output_score, score_outputs
from mi_crow.mechanistic.steering.measure.setup import make_bench
from mi_crow.mechanistic.steering.measure.sweep import run_sweep
from mi_crow.mechanistic.steering.steer import steering
from mi_crow.store import Workspace
from tests.helpers.cross_layer_fixture import LATENTS, shared, small
from tests.helpers.index_fixture import TOPICS, make_index
from tests.helpers.steering_fixture import TEXT

KINDS = ("clt", "crosscoder", "shared")
kinds = pytest.mark.parametrize("kind", KINDS)
TRIAL = Trial(prompts=("The ferry", "Knead it"), n=4, max_new_tokens=5, documents=0)


def made(kind: str) -> CrossLayerSae:
    return shared((0, 1, 2)) if kind == "shared" else small(kind)


@pytest.fixture
def of_kind(workspace: Workspace, tiny_lm, tiny_model_dir):
    """The SAE `across` of a kind with a made-up index, loaded."""

    def build(kind: str) -> LoadedSae:
        sae = made(kind)
        sae.metadata = replace(sae.metadata, model_name=str(tiny_model_dir))
        sae.save(workspace.make_sae_dir("across", "across"))
        make_index(workspace, "across", n_features=sae.n_latents)
        return join("across", tiny_lm, sae)

    return build


@kinds
def test_a_feature_is_scored_where_steering_moves_it(of_kind, workspace, kind):
    loaded = of_kind(kind)
    config = ScoresConfig("across", prompts=("The ferry",), batch_size=50, device="cpu")
    score_outputs(workspace, config, None, loaded)
    held = read_scores(workspace.sae_dir("across"))
    assert held is not None
    promoted = Indexed.open(workspace, "across").promoted()
    for feature in {7, 23, (LATENTS + 5) % loaded.sae.n_latents}:
        add = Intervention(f"feature:{feature}", "add", config.strength, "norm")
        with steering(loaded.lm, loaded.sae, 0, [add]):
            output, _ = loaded.lm.inference.execute_inference(["The ferry"])
        told = output.logits[:, -1].float().softmax(-1)
        wanted = output_score(told, torch.tensor([promoted[feature].tolist()]))
        assert float(held[0][feature]) == pytest.approx(float(wanted), rel=1e-4)


@kinds
def test_a_check_and_a_measurement_read_a_feature_as_inspect_does(of_kind, workspace, kind):
    loaded = of_kind(kind)
    seen = inspect(loaded, TEXT, top=1)["features"][0]
    feature, acts = seen["feature"], seen["acts"]
    found = check_feature(loaded, feature, [TEXT])
    assert sorted(one.activation for one in found.fired) == pytest.approx(
        sorted(act for act in acts if act > 0), rel=1e-4
    )
    indexed = Indexed.open(workspace, "across")
    bench = make_bench(
        workspace, "across", indexed, Judging("sailing"), feature, TRIAL, "cpu", loaded
    )
    plain = bench.read(Arm(()), TRIAL, ["The ferry"], 1, 5)
    told = inspect(loaded, f"The ferry{plain.texts[0]}", top=loaded.sae.n_latents)
    of_text = next((one["acts"] for one in told["features"] if one["feature"] == feature), [0.0])
    after = of_text[len(of_text) - len(plain.token_ids[0]) :]
    assert plain.activation == pytest.approx(max(after) / bench.greatest, rel=1e-3)


@kinds
def test_texts_are_told_apart_by_features_of_all_layers(of_kind, kind):
    loaded = of_kind(kind)
    sides = [
        [f"The {a} was near the {b}." for a in TOPICS[topic] for b in TOPICS[topic][:2]]
        for topic in ("cooking", "sailing")
    ]
    found = contrast(loaded, *sides, top=5)
    best = found.features[0]
    own = [check_feature(loaded, best.feature, [text]).fired for text in sides[0] + sides[1]]
    peaks = [max((one.activation for one in fired), default=0.0) for fired in own]
    first, second = peaks[: len(sides[0])], peaks[len(sides[0]) :]
    pairs = [(a > b) + (a == b) / 2 for a in first for b in second]
    auroc = sum(pairs) / len(pairs)
    assert (auroc - 0.5) * (best.auroc_chosen - 0.5) > 0
    assert min(best.auroc, best.auroc_chosen) - 1e-6 <= auroc <= 1
    assert abs(auroc - 0.5) > 0.2


def test_the_vector_of_a_feature_is_made_at_the_layer_that_it_is_said_to_be_of(of_kind):
    loaded = of_kind("clt")
    assert point_of(loaded, LATENTS + 5).point == "mlp_out.1"
    loaded = join("across", loaded.lm, made("shared"))
    told = inspect(loaded, TEXT, top=LATENTS)["features"]
    assert len({one["layer"] for one in told}) > 1
    for one in told:
        assert point_of(loaded, one["feature"]).point == one["layer"]


@pytest.mark.slow
@kinds
def test_a_stack_on_several_layers_is_measured_and_searched(of_kind, workspace, kind):
    loaded = of_kind(kind)
    stack = (Intervention("feature:3", "add", 0.5, "norm").as_json(),)
    judging = Judging(label="sailing")
    config = SweepConfig("across", stack, (1.0, 2.0), judging=judging, trial=TRIAL, device="cpu")
    result = run_sweep(workspace, config, loaded=loaded)
    assert len(result["arms"]) == 2
    for arm in result["arms"]:
        assert arm["kl"] > 0
        assert isinstance(arm["share_random"], float)
        assert arm["activation"] is not None
    search = AutoConfig(
        "across",
        label="sailing",
        recipes=("floor", "means"),
        tries=1,
        development=2,
        most_ratio=50.0,
        trial=TRIAL,
        device="cpu",
    )
    found = run_auto(workspace, search, None, loaded)
    assert set(found["tried"]) == {"floor", "means"}


def test_a_search_on_two_models_is_refused_before_it_starts(workspace):
    sae = shared((0, 1), (ModelRead(BASE, "a"), ModelRead(TUNED, "b")))
    sae.save(workspace.make_sae_dir("two", "two"))
    with pytest.raises(UserError, match="reads two models"):
        check_auto(workspace, AutoConfig("two", feature=3))
