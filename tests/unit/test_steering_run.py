"""What the commands add to steering: maxima from the index, names, the shapes of `--json`."""

import math

import pytest

from mi_crow.errors import NotFoundError, UserError
from mi_crow.mechanistic.attribution.run import load_together
from mi_crow.mechanistic.concepts.annotations import Annotations
from mi_crow.mechanistic.features.queries import FeatureStore
from mi_crow.mechanistic.sae import SaeMetadata, TopKSae, load_sae
from mi_crow.mechanistic.sae.weights_hash import WeightsFile
from mi_crow.mechanistic.steering.fits import feature_maxima
from mi_crow.mechanistic.steering.interventions import Intervention, parse_intervention
from mi_crow.mechanistic.steering.known import KnownFeatures
from mi_crow.mechanistic.steering.ranking import ranking_of
from mi_crow.mechanistic.steering.readings import read_generation, watching
from mi_crow.mechanistic.steering.run import (
    concept_names,
    inspect_several,
    inspect_text,
    steer_loaded,
    steer_prompt,
)
from tests.helpers.index_fixture import make_index
from tests.helpers.session_fixture import SAE_ID, add_tiny_sae
from tests.helpers.steering_fixture import LATENTS, TEXT, tiny_sae


@pytest.fixture
def home(workspace, tiny_model_dir):
    add_tiny_sae(workspace, tiny_model_dir)
    return workspace


@pytest.fixture
def indexed(home, tiny_model_dir):
    """The same with an index, made up: what counts is where a maximum comes from."""
    make_index(home, SAE_ID, n_features=LATENTS)
    tiny_sae(model=str(tiny_model_dir)).save(home.sae_dir(SAE_ID))
    return home


def steer(home, *changes: str, **options):
    stack = [parse_intervention(change) for change in changes]
    options = {"device": "cpu", "max_new_tokens": 8, "seed": 1} | options
    return steer_prompt(home, SAE_ID, "The ferry", stack, **options)


def test_a_steered_prompt_has_the_documented_keys(home):
    found = steer(home, "3=+20", "4=x0")
    assert set(found) >= {"baseline", "steered", "interventions", "metrics"}
    assert found["baseline"] != found["steered"]
    assert [set(one) for one in found["interventions"]] == [
        {"target", "op", "value", "unit", "scope", "sae"}
    ] * 2
    assert [(one["target"], one["sae"]) for one in found["interventions"]] == [
        ("feature:3", SAE_ID),
        ("feature:4", SAE_ID),
    ]
    assert found["sae_id"] == SAE_ID
    speed, costs = {"tokens", "seconds", "tokens_s"}, {"kl", "perplexity", "perplexity_ratio"}
    assert set(found["metrics"]) == speed | costs


def test_an_inspected_text_has_the_documented_keys(home):
    found = inspect_text(home, SAE_ID, TEXT, top=4, device="cpu")
    assert set(found) >= {"tokens", "features"}
    assert [set(row) for row in found["features"]] == [
        {
            *("feature", "concept", "proposed", "label", "auroc", "max_act", "share", "density"),
            *("count", "first", "acts"),
        }
    ] * 4
    assert found["order"] == "raw"  # there is no index


def test_features_stand_by_their_share_of_the_maximum_times_surprise(indexed):
    found = inspect_text(indexed, SAE_ID, TEXT, top=LATENTS, device="cpu")
    known = {row.feature: row for row in FeatureStore.open(indexed, SAE_ID).rows(range(LATENTS))}
    assert found["order"] == "meaning"

    def meaning(feature: int, act: float) -> float:
        row = known[feature]
        return (act / row.max_act if row.max_act else float(act > 0)) * -math.log(
            max(row.density, 1e-9)
        )

    scores = [meaning(row["feature"], sum(row["acts"])) for row in found["features"]]
    assert scores == pytest.approx(sorted(scores, reverse=True), rel=1e-4)
    assert len(scores) > 20
    for pairs in found["per_token"]:
        scores = [meaning(feature, act) for feature, act in pairs]
        assert scores == pytest.approx(sorted(scores, reverse=True), rel=1e-4)
    for row in found["features"]:
        assert row["density"] == pytest.approx(known[row["feature"]].density)
        if known[row["feature"]].max_act:
            assert row["share"] == pytest.approx(row["max_act"] / known[row["feature"]].max_act)


def test_features_can_be_ordered_cut_and_kept_to_the_named(indexed):
    def ordered(*ranking) -> list[dict]:
        by = ranking_of(*ranking)
        return inspect_text(indexed, SAE_ID, TEXT, LATENTS, "cpu", ranking=by)["features"]

    every = ordered("raw", None, False)
    acts = [row["max_act"] for row in every]
    assert acts == sorted(acts, reverse=True)
    counts = [row["count"] for row in ordered("count", None, False)]
    assert counts == sorted(counts, reverse=True)
    assert counts[0] == max(sum(act > 0 for act in row["acts"]) for row in every)
    firsts = [row["first"] for row in ordered("first", None, False)]
    assert firsts == sorted(firsts)
    middle = sorted(row["density"] for row in every)[len(every) // 2]
    cut = ordered("meaning", middle, False)
    assert 0 < len(cut) < len(every)
    assert all(row["density"] <= middle for row in cut)
    assert ordered(None, None, True) == []
    feature = every[3]["feature"]
    annotations = Annotations(indexed.annotations_path)
    annotations.set_concept(SAE_ID, feature, "harbours")
    annotations.close()
    [only] = ordered(None, None, True)
    assert (only["feature"], only["concept"]) == (feature, "harbours")


def test_an_order_that_needs_an_index_says_how_to_build_it(home):
    with pytest.raises(NotFoundError, match="has no index") as caught:
        inspect_text(home, SAE_ID, TEXT, device="cpu", ranking=ranking_of("share", None, False))
    assert f"mi-crow index --sae {SAE_ID}" in caught.value.sentence
    with pytest.raises(UserError, match="order 'loudest' is not known"):
        ranking_of("loudest", None, False)


def test_several_saes_read_the_text_once(home, tiny_model_dir):
    add_tiny_sae(home, tiny_model_dir, "other")
    loaded = load_together(home, [SAE_ID, "other"], "cpu")
    passes = []
    handle = loaded[0].lm.model.register_forward_pre_hook(lambda *_: passes.append(1))
    found = inspect_several(KnownFeatures(home), loaded, TEXT)
    handle.remove()
    assert len(passes) == 1
    assert [one["sae_id"] for one in found] == [SAE_ID, "other"]
    alone = inspect_text(home, SAE_ID, TEXT, device="cpu")
    assert found[0]["features"] == alone["features"]
    assert all(one is None or one <= 1 for one in found[0]["explained"])


def test_max_units_take_the_maximum_of_the_index(indexed):
    [row] = FeatureStore.open(indexed, SAE_ID).rows([3])
    in_maxima, in_units = steer(indexed, "3=+2max"), steer(indexed, f"3=+{2 * row.max_act:.9g}")
    assert in_maxima["steered"] == in_units["steered"]
    assert in_maxima["metrics"]["kl"] == pytest.approx(in_units["metrics"]["kl"], rel=1e-3)
    assert in_maxima["metrics"]["kl"] > 0


def test_max_units_without_an_index_say_how_to_build_it_before_a_model_loads(workspace):
    sae = TopKSae(8, 4, k=2)
    sae.metadata = SaeMetadata(model_name="/no/such/model", layer="model.layers.1")
    sae.save(workspace.make_sae_dir(SAE_ID, SAE_ID))
    with pytest.raises(UserError) as caught:
        steer(workspace, "3=+0.8max")
    assert f"mi-crow index --sae {SAE_ID}" in caught.value.sentence
    with pytest.raises(UserError, match="/no/such/model"):
        steer(workspace, "3=+8")


def test_only_features_in_max_units_need_the_index(home):
    changes = ["3=+8", "4=x0", "5=1"]
    assert feature_maxima(home, SAE_ID, [parse_intervention(one) for one in changes]) == {}


def test_a_feature_without_a_maximum_is_told(indexed):
    rows = FeatureStore.open(indexed, SAE_ID).page(limit=LATENTS)
    dead = next(row.feature for row in rows if not row.fires)
    with pytest.raises(UserError, match=f"feature {dead} never fires"):
        feature_maxima(indexed, SAE_ID, [parse_intervention(f"{dead}=+1max")])
    with pytest.raises(NotFoundError, match="feature 999 "):
        feature_maxima(indexed, SAE_ID, [parse_intervention("999=+1max")])


@pytest.mark.parametrize(
    ("metadata", "sentence"),
    [
        (SaeMetadata(), "does not say its model and layer"),
        (SaeMetadata(model_name="tiny"), "does not say its model and layer"),
        (SaeMetadata(model_name="tiny", layer="model.layers.1"), "reads 8 inputs"),
        (SaeMetadata(model_name="tiny", layer="model.layers.9"), "not found"),
    ],
)
def test_an_sae_that_does_not_belong_to_its_model_is_refused(
    workspace, tiny_model_dir, metadata, sentence
):
    from dataclasses import replace

    sae = TopKSae(16, 8, k=2)
    sae.metadata = replace(metadata, model_name=metadata.model_name and str(tiny_model_dir))
    sae.save(workspace.make_sae_dir("wrong", "wrong"))
    with pytest.raises(UserError, match=sentence):
        inspect_text(workspace, "wrong", TEXT, device="cpu")


def test_the_most_confident_name_counts_and_reading_names_makes_no_file(home):
    assert concept_names(home, SAE_ID) == {}
    assert not home.annotations_path.exists()
    from mi_crow.mechanistic.concepts.annotations import Annotations

    annotations = Annotations(home.annotations_path)
    annotations.set_concept(SAE_ID, 3, "ferries", confidence=0.9)
    annotations.set_concept(SAE_ID, 3, "gulls", confidence=0.4)
    annotations.set_concept("another", 4, "bread")
    annotations.close()
    assert concept_names(home, SAE_ID) == {3: "ferries"}


def test_a_feature_of_another_sae_or_of_other_weights_is_refused(home):
    def refusal(one: Intervention) -> str:
        with pytest.raises(UserError) as caught:
            steer_prompt(home, SAE_ID, "The ferry", [one], device="cpu", max_new_tokens=2)
        return caught.value.sentence

    one = Intervention("feature:3", "add", 20.0)
    assert "SAE 'another' not found" in refusal(one.in_sae("another"))
    weights = WeightsFile.of(home.sae_dir(SAE_ID))
    assert weights is not None
    told = one.in_sae(SAE_ID, weights.sha256())
    steer_prompt(home, SAE_ID, "The ferry", [told], device="cpu", max_new_tokens=2)
    other = tiny_sae(model=str(load_sae(home.sae_dir(SAE_ID)).metadata.model_name))
    other.W_dec.mul_(2)
    other.save(home.sae_dir(SAE_ID))  # the same id, other weights
    assert "had other weights" in refusal(told)
    assert weights.sha256() is None


def test_a_continuation_that_the_context_ends_says_so(home):
    long = "The ferry left the harbour. " * 4
    found = steer_prompt(home, SAE_ID, long, [], device="cpu", max_new_tokens=60, seed=1)
    assert found["shortened_to"] == found["context_length"] - found["prompt_tokens"] < 60
    assert steer(home)["shortened_to"] is None


def test_samples_come_with_what_the_features_do_on_each_token(indexed):
    found = steer(indexed, "3=floor 1max@feedback 0.9 0.5", "5=+40", n=3)
    assert [one["target"] for one in found["promoted"]] == found["targets"]
    assert all(one["logits"] == sorted(one["logits"], reverse=True) for one in found["promoted"])
    told = found["samples"][0]["steered"]["promoted_log_p"]
    assert [len(own) for own in told["plain"]] == [5, 5]
    assert sum(told["steered"][1]) > sum(told["plain"][1])  # what a hard push promotes is likelier
    assert found["targets"] == ["feature:3", "feature:5"]
    assert len(found["samples"]) == 3
    assert len({one["steered"]["text"] for one in found["samples"]}) > 1
    assert found["samples"][0]["baseline"]["text"] == found["baseline"]
    for one in found["samples"]:
        for side in ("baseline", "steered"):
            reading = one[side]
            assert len(reading["tokens"]) == 8
            assert [len(acts) for acts in reading["acts"]] == [8, 8]
        memory, none = one["steered"]["memory"]
        factor = one["steered"]["factor"][0]
        assert none is None
        assert all(
            k == pytest.approx(max(1 - m / 0.5, 0)) for m, k in zip(memory, factor, strict=True)
        )


def test_the_features_of_a_group_are_read_each_and_share_a_feedback(indexed):
    found = steer(indexed, "3+0.5*7=floor 1max@feedback 0.9 0.5")
    assert found["targets"] == ["feature:3", "feature:7"]
    one = found["samples"][0]["steered"]
    assert [len(acts) for acts in one["acts"]] == [8, 8]
    assert one["memory"][0] == one["memory"][1] is not None


def test_a_text_is_read_in_the_plain_model(home):
    """Teacher forced without interventions, whatever the stack did to write it."""
    from mi_crow.mechanistic.steering.loading import load_for_work

    stack = [parse_intervention("3=+20")]
    loaded = load_for_work(home, SAE_ID, "cpu")
    found = steer_loaded(home, loaded, "The ferry", stack, max_new_tokens=8, seed=1)
    text = found["samples"][0]["steered"]
    generation = loaded.lm.generate("The ferry", 8, seed=1)
    with watching(loaded, [3]) as watched:
        (plain,) = read_generation(loaded.lm, watched, generation)
    assert found["samples"][0]["baseline"] == {"text": generation.text, **plain}
    assert text["kl"] == pytest.approx(found["metrics"]["kl"])
    ratio = text["perplexity"] / plain["perplexity"]
    assert found["metrics"]["perplexity_ratio"] == pytest.approx(ratio)
    assert not loaded.lm.layers.get_hooks()
