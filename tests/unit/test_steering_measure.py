"""Measured steering: judges, figures, sweeps, the search for a recipe; resumed, refused, kept."""

import json
import math
from dataclasses import replace
from typing import cast

import numpy as np
import pytest
import torch

from mi_crow.cli.entry import as_commands, run_command_line
from mi_crow.errors import CancelledError, NotFiniteError, NotFoundError, UserError
from mi_crow.mechanistic.concepts.annotations import Annotations
from mi_crow.mechanistic.features.beside.output_scores import read_scores
from mi_crow.mechanistic.features.queries import FeatureStore
from mi_crow.mechanistic.steering.effects import corpus_loss, teacher_forced, write_now
from mi_crow.mechanistic.steering.interventions import parse_intervention
from mi_crow.mechanistic.steering.loading import load_for_work
from mi_crow.mechanistic.steering.measure.aims.allies import allies_of
from mi_crow.mechanistic.steering.measure.aims.rivals import rivals_of
from mi_crow.mechanistic.steering.measure.aims.topic_vector import topic_vector
from mi_crow.mechanistic.steering.measure.arms import Arm, arms_of, best_of, front
from mi_crow.mechanistic.steering.measure.auto import run_auto
from mi_crow.mechanistic.steering.measure.bench import Bench
from mi_crow.mechanistic.steering.measure.config import (
    AutoConfig,
    Judging,
    ScoresConfig,
    SweepConfig,
    Trial,
)
from mi_crow.mechanistic.steering.measure.controls import matched_features
from mi_crow.mechanistic.steering.measure.indexed import Indexed
from mi_crow.mechanistic.steering.measure.judges import judge_of
from mi_crow.mechanistic.steering.measure.output_scores import output_score, score_outputs
from mi_crow.mechanistic.steering.measure.recipes import Aim, recipes_named
from mi_crow.mechanistic.steering.measure.results import (
    Measurement,
    list_measurements,
    read_measurement,
)
from mi_crow.mechanistic.steering.measure.search import Search, next_strength
from mi_crow.mechanistic.steering.measure.stacks import stack_named
from mi_crow.mechanistic.steering.measure.sweep import run_sweep
from mi_crow.mechanistic.steering.measure.text_figures import distinct, repetition
from mi_crow.mechanistic.steering.measure.texts import IndexedTexts
from mi_crow.mechanistic.steering.steer import steering
from mi_crow.mechanistic.vectors.activations import activations_on
from mi_crow.mechanistic.vectors.stored import load_vector
from mi_crow.progress import NullProgress
from tests.helpers.index_fixture import TOPICS, make_index
from tests.helpers.progress import Watched
from tests.helpers.session_fixture import SAE_ID, add_tiny_sae
from tests.helpers.steering_fixture import LATENTS, tiny_sae

TRIAL = Trial(prompts=("The ferry", "Knead it"), n=4, max_new_tokens=6, documents=2)


@pytest.fixture
def home(workspace, tiny_model_dir):
    """The tiny model's SAE with a made-up index of 48 documents."""
    add_tiny_sae(workspace, tiny_model_dir)
    make_index(workspace, SAE_ID, n_features=LATENTS)
    tiny_sae(model=str(tiny_model_dir)).save(workspace.sae_dir(SAE_ID))
    return workspace


@pytest.fixture
def store(home):
    return FeatureStore.open(home, SAE_ID)


JUDGE = ("--endpoint", "http://[::1]:1/v1", "--judge-model", "m")


def sweep_config(**options):
    stack = (parse_intervention("3=floor 1norm").as_json(),)
    options = {
        "interventions": stack,
        "judging": Judging(label="sailing"),
        "trial": TRIAL,
        "device": "cpu",
    } | options
    return SweepConfig(SAE_ID, **options)


def test_phrases_that_come_again_are_counted():
    assert repetition([[1, 2, 3, 4, 5, 6]]) == 0
    assert repetition([[1, 2, 3, 4] * 3]) == pytest.approx(1 - 4 / 9)
    assert repetition([[1]]) == 0
    assert distinct([[1, 2, 1, 2, 1]]) == pytest.approx(2 / 4)


def test_the_front_and_the_best_go_by_hits_and_perplexity():
    points = [(0.5, 1.2), (0.6, 1.4), (0.4, 1.3), (0.9, 2.0), (0.6, 1.3)]
    assert front(points) == [True, False, False, True, True]
    assert best_of(points, 1.5) == 4
    assert best_of(points, 1.25) == 0
    assert best_of(points, 1.1) is None


def test_strengths_are_sought_where_the_ratio_should_be_met():
    tried: list[tuple[float, float]] = []
    for strength in iter(lambda: next_strength(tried, 1.5), None):
        tried.append((strength, 1 + strength**2))  # fits up to 0.7071
    assert max(s for s, ratio in tried if ratio <= 1.5) == pytest.approx(0.69, abs=0.04)
    falling = [(0.3, 9.0)]
    while (strength := next_strength(falling, 1.5)) is not None:
        falling.append((strength, 9.0))
    assert 0.01 <= falling[-1][0] < 0.02
    rising = [(0.3, 1.0)]
    while (strength := next_strength(rising, 1.5)) is not None:
        rising.append((strength, 1.0))
    assert 3 < rising[-1][0] <= 6


def test_what_a_change_costs_says_how_far_the_limit_is():
    def ratio(strength: float) -> float:
        return math.exp(11 * strength**2)  # 1.5 at 0.192

    at = [(first, ratio(first)) for first in (0.4, 0.16)]
    for told in (at[:1], at[1:], at):
        assert next_strength(told, 1.5) == pytest.approx(0.192, abs=0.001)
    assert next_strength([(0.9, 1e9)], 1.5) == pytest.approx(0.3)  # a step is not too far
    assert next_strength([(0.9, math.inf)], 1.5) == pytest.approx(0.3)


def test_a_judge_goes_by_words(store):
    texts = IndexedTexts(store)
    sailing = ["The anchor and the keel", "such a mast since the tide"]
    weather = ["Nobody had seen such thunder", "frost and drizzle on Sunday"]
    by_label = judge_of(Judging(label="sailing"), None, texts, 30)
    assert by_label.hits([*sailing, *weather]) == [True, True, False, False]
    assert by_label.hits_heldout == 1
    assert by_label.false_alarms == 0
    by_pattern = judge_of(Judging(pattern="ANCHOR|mast"), None, texts, 30)
    assert by_pattern.hits([*sailing, *weather]) == [True, True, False, False]
    # Feature 12 fires on the first word of sailing.
    word = TOPICS["sailing"][0]
    by_topic = judge_of(Judging(), 12, texts, 30)
    assert by_topic.hits([f"the {word} {word} {word}", weather[1]]) == [True, False]
    assert by_topic.share([]) == 0
    with pytest.raises(UserError, match="not a valid regular expression"):
        judge_of(Judging(pattern="("), None, texts, 30)
    with pytest.raises(NotFoundError, match="label 'sailin' is not in the index"):
        judge_of(Judging(label="sailin"), None, texts, 30)
    with pytest.raises(UserError, match="several judges"):
        Judging(label="a", pattern="b")


def test_a_control_fires_as_often_and_is_another(store):
    living = [row.feature for row in store.rows(store.ids("density")) if row.fires]
    found = matched_features(store, living[:3], seed=1)
    assert list(found) == sorted(living[:3])
    assert not set(found.values()) & set(found)
    assert len(set(found.values())) == 3
    assert found == matched_features(store, living[:3], seed=1)
    densities = {row.feature: row.density for row in store.rows(living)}
    (rarest, other), *_ = matched_features(store, [living[-1]], seed=0).items()
    assert densities[other] < densities[living[0]] or len(living) < 26
    assert rarest == living[-1]


def test_a_control_adds_as_much_where_it_fires(store):
    """Of features that fire about as often those that are as strong, not of all decoder rows of
    norm 1."""
    rows = store.connection.rows(
        "SELECT feature, density, mean_act * coalesce(decoder_norm, 1.0) FROM idx.features "
        "WHERE fires > 0 ORDER BY feature"
    )
    numbers, log = [row[0] for row in rows], np.log([row[1:] for row in rows])
    apart = np.abs(log[:, None] - log[None]).sum(axis=2)
    for place, number in enumerate(numbers):
        (other,) = matched_features(store, [number], seed=place).values()
        limit = np.sort(apart[place])[min(24, len(numbers) - 1)]
        assert apart[place, numbers.index(other)] <= limit
    assert len(numbers) > 26


def test_rivals_are_strong_where_the_feature_is_not(store):
    # Features 12 to 17 fire on words of sailing, 0 to 5 on words of cooking.
    rivals = rivals_of(store, 12)
    assert rivals
    assert 12 not in rivals
    assert not set(rivals) & set(range(13, 18))


def test_the_figures_are_those_of_the_texts(home, store):
    loaded = load_for_work(home, SAE_ID, "cpu")
    texts = IndexedTexts(store)
    judge = judge_of(Judging(label="sailing"), 3, texts, 30)
    bench = Bench(home, loaded, judge, 3, 2.0, texts.heldout_tokens(3))
    arm = Arm((parse_intervention("3=+2norm"),))
    found = bench.figures(arm, TRIAL, TRIAL.prompts, 4, 5)
    with bench.steered(arm):
        written = write_now(
            loaded.lm, TRIAL.prompts, n=4, max_new_tokens=6, temperature=0.8, seed=5
        )
    assert found["texts"] == written.texts[:3]
    nats, tokens = 0.0, 0
    for generation in written.generations:
        for log_p, targets, real in teacher_forced(loaded.lm, generation):
            chosen = log_p.gather(-1, targets[..., None])[..., 0]
            nats, tokens = nats - float(chosen[real].sum()), tokens + int(real.sum())
    assert found["perplexity"] == pytest.approx(math.exp(nats / tokens), rel=1e-4)
    assert found["share"] == judge.share(written.texts)
    assert found["kl"] > 0.01
    nothing = bench.figures(Arm((parse_intervention("3=+0"),)), TRIAL, TRIAL.prompts, 4, 5)
    assert nothing["perplexity_ratio"] == pytest.approx(1)
    assert nothing["kl"] == pytest.approx(0, abs=1e-6)
    assert nothing["ce_added"] == 0
    # The loss is the plain one outside the block.
    with bench.steered(arm):
        steered = corpus_loss(loaded.lm, bench.tokens)
    assert found["ce_added"] == pytest.approx(steered - corpus_loss(loaded.lm, bench.tokens))
    # What the plain model said while they were written is what it says of them again.
    for one in (Arm(arm.interventions, plausible=0.01), Arm(())):
        whole, quick = (
            bench.read(one, TRIAL, TRIAL.prompts, 4, 5, whole=whole) for whole in (True, False)
        )
        assert quick.texts == whole.texts
        assert quick.nats.tolist() == pytest.approx(whole.nats.tolist(), rel=1e-4)
        assert quick.perplexity == pytest.approx(whole.perplexity, rel=1e-4)
    # Within its own plausible set the plain model takes no unlikely token.
    loose = bench.baseline(TRIAL, TRIAL.prompts, 4, 5, None)
    tight = bench.baseline(TRIAL, TRIAL.prompts, 4, 5, 0.9)
    assert tight.perplexity < loose.perplexity


@pytest.mark.slow
def test_a_sweep_that_was_stopped_goes_on_where_it_was(home):
    config = sweep_config(plausible=(0.0, 0.2))
    names = [arm.name for arm in arms_of(config, config.stack())]
    assert len(names) == 2
    assert "plausible 0.2" in names[-1]
    loaded = load_for_work(home, SAE_ID, "cpu")
    first = Watched(checkpoints=1)
    with pytest.raises(CancelledError):
        run_sweep(home, config, first, loaded)
    assert first.checkpoints == names[:1]
    assert list_measurements(home) == []
    second = Watched()
    result = run_sweep(home, config, second, loaded)
    assert second.checkpoints == names[1:]
    assert [arm["name"] for arm in result["arms"]] == names
    for arm in result["arms"]:
        assert math.isfinite(arm["perplexity_ratio"])
        assert {"share_random", "random", "front", "kl", "ce_added"} <= set(arm)
    assert read_measurement(home, result["measurement"]) == json.loads(json.dumps(result))
    named = stack_named(home, result["measurement"])
    assert named.interventions[0]["op"] == "floor"


@pytest.mark.slow
def test_the_search_reports_every_recipe_on_other_prompts(home):
    config = AutoConfig(
        SAE_ID,
        label="sailing",
        recipes=("floor", "plausible"),
        tries=2,
        development=4,
        most_ratio=50.0,
        trial=Trial(n=4, max_new_tokens=6, documents=0),
        preset="sail",
        device="cpu",
    )
    loaded = load_for_work(home, SAE_ID, "cpu")
    first = Watched(checkpoints=3)
    with pytest.raises(CancelledError):
        run_auto(home, config, first, loaded)
    second = Watched()
    result = run_auto(home, config, second, loaded)
    assert len(first.checkpoints) == 3
    assert not set(first.checkpoints) & set(second.checkpoints)
    assert not set(result["prompts"]) & set(result["development_prompts"])
    assert {arm["recipe"] for arm in result["arms"]} == {"floor", "plausible"}
    effects = [arm["development"]["effect"] for arm in result["arms"]]
    assert effects == sorted(effects, reverse=True)
    assert result["recipe"] == result["arms"][0]["recipe"]
    assert result["interventions"] == result["arms"][0]["interventions"]
    annotations = Annotations(home.annotations_path)
    saved = annotations.preset("sail")
    assert list(saved.interventions) == result["interventions"]
    assert saved.plausible == result["plausible"]
    assert stack_named(home, "sail").interventions == tuple(result["interventions"])


def test_an_arm_without_finite_predictions_is_refused_and_the_sweep_goes_on(home):
    config = sweep_config(
        interventions=(parse_intervention("3=floor 1e29norm").as_json(),),
        strengths=(1e-29, 1e9),
        trial=replace(TRIAL, documents=0),
    )
    loaded = load_for_work(home, SAE_ID, "cpu")
    result = run_sweep(home, config, None, loaded)
    assert len(result["arms"]) == 1
    (refused,) = result["refused"]
    assert "not finite numbers" in refused["refused"]
    assert refused["name"] != result["arms"][0]["name"]
    with pytest.raises(NotFiniteError, match="not finite numbers"):
        run_sweep(home, replace(config, strengths=(1e9,)), None, loaded)


def test_the_strength_that_cost_too_much_on_other_continuations_is_lowered(store, tmp_path):
    recipes = recipes_named(["floor", "add"])

    class Prices:
        """A bench on which strength is effect; on other continuations add costs more."""

        def quick(self, arm, trial, prompts, n, seed):
            (one,) = arm.interventions
            dear = one.op == "add" and n > config.development
            effect = one.value / 10 + (0.2 if one.op == "add" else 0.0)
            ratio = 1 + one.value / 2 + (0.3 if dear else 0.0)
            return {"share": effect, "effect": effect, "perplexity_ratio": ratio}

    config = AutoConfig(SAE_ID, feature=3, tries=4, development=4, most_ratio=1.5)
    measurement = Measurement(tmp_path / "one.json", {})
    search = Search(cast(Bench, Prices()), config, ["a"], measurement, NullProgress())
    built = [(one, arm) for one in recipes if (arm := one.build(Aim(3)))]
    tried, finalists = search.run(built)
    assert [one.recipe.name for one in tried] == ["floor", "add"]
    assert [one.tried.recipe.name for one in finalists] == ["floor"]
    assert finalists[0].row["perplexity_ratio"] <= 1.5


def test_allies_come_with_the_feature_and_rivals_do_not(store):
    # Features 12 to 17 fire on words of sailing.
    allies = dict(allies_of(store, IndexedTexts(store).about(12, 0), 12))
    assert allies[12] == 1.0
    assert set(allies) & set(range(13, 18))
    assert not set(allies) & set(range(6))


def test_the_vector_of_a_topic_leads_from_other_texts_to_its_own(home, store):
    loaded = load_for_work(home, SAE_ID, "cpu")
    name = topic_vector(home, loaded, IndexedTexts(store).about(12, 0), 12)
    held = load_vector(home, name)
    (point,) = held.directions
    sides = [
        activations_on(loaded.lm, [loaded.layer], [one.text for one in some if not one.heldout])
        for some in IndexedTexts(store).about(12, 0)
    ]
    about, others = (one[loaded.layer].rows @ held.directions[point] for one in sides)
    assert about.mean() > others.mean()
    assert held.figure(point, "max") is not None


def test_the_vector_of_a_label_is_made_once(home, store):
    loaded = load_for_work(home, SAE_ID, "cpu")
    sides = IndexedTexts(store).labelled("sailing", 0)
    assert {one.label for one in sides[0]} == {"sailing"}
    assert "sailing" not in {one.label for one in sides[1]}
    name = topic_vector(home, loaded, sides, 12, "sailing")
    made = load_vector(home, name).made["created"]
    assert topic_vector(home, loaded, sides, 12, "sailing") == name
    assert load_vector(home, name).made["created"] == made
    other = topic_vector(home, loaded, IndexedTexts(store).labelled("cooking", 0), 12, "cooking")
    assert other != name


def test_an_output_score_is_the_best_promoted_tokens_probability_weighted_by_rank():
    probabilities = torch.tensor([[0.5, 0.3, 0.15, 0.05], [0.1, 0.2, 0.3, 0.4]])
    promoted = torch.tensor([[3, 1], [2, -1]])
    found = output_score(probabilities, promoted)
    assert found.tolist() == pytest.approx([(1 - 1 / 4) * 0.3, (1 - 1 / 4) * 0.3])


def test_every_feature_has_an_output_score_which_the_table_sorts_by(home, store, capsys):
    config = ScoresConfig(SAE_ID, strength=2.0, prompts=("The ferry",), batch_size=40, device="cpu")
    loaded = load_for_work(home, SAE_ID, "cpu")
    assert all(row.more["output"] is None for row in store.rows([3, 4], ["output"]))

    with pytest.raises(CancelledError):
        score_outputs(home, config, Watched(done=1), loaded)
    held = read_scores(home.sae_dir(SAE_ID))
    assert held is not None
    partly, facts = held
    assert int(facts["done"]) == 40
    result = score_outputs(home, config, None, loaded)
    held = read_scores(home.sae_dir(SAE_ID))
    assert held is not None
    whole, _ = held
    assert result["features"] == LATENTS
    assert partly[:40].tolist() == pytest.approx(whole[:40].tolist(), nan_ok=True)
    # One feature by itself, through the stack that steers.
    feature = result["top"][0]["feature"]
    promoted = Indexed(store, IndexedTexts(store)).promoted()[feature]
    stack = [parse_intervention(f"{feature}=+2norm")]
    with steering(loaded.lm, loaded.sae, loaded.layer, stack):
        output, _ = loaded.lm.inference.execute_inference(["The ferry"])
    told = output.logits[:, -1].float().softmax(-1)
    assert float(output_score(told, torch.tensor([promoted.tolist()]))) == pytest.approx(
        result["top"][0]["output"], rel=1e-4
    )
    # The open index shows them without being opened again.
    best = store.ids("output")[0]
    assert best == feature
    (row,) = store.rows([int(best)], ["output"])
    assert row.more["output"] == pytest.approx(result["top"][0]["output"])
    words = ["--workspace", str(home.root), "--json", "features", "--columns", "feature,output"]
    assert run_command_line([*words, "--sort", "output", "--limit", "1"]) == 0
    assert json.loads(capsys.readouterr().out)[0]["feature"] == feature


@pytest.mark.parametrize(
    ("typed", "command"),
    [
        (["steer", "evaluate", "calm"], "steer evaluate"),
        (["--workspace", "w", "steer", "--auto", "--label", "law"], "steer auto"),
        (["steer", "--feature", "3=+1", "--sweep"], "steer evaluate"),
        (["steer", "--feature", "3=+1", "evaluate the case"], "steer"),
        (["steer", "results"], "steer results"),
        (["--workspace", "demo", "steer", "results"], "steer results"),
        (["--json", "--work", "steer", "steer", "--auto"], "steer auto"),
        (["--workspace=demo", "steer", "results"], "steer results"),
        (["features", "--search", "steer"], "features"),
    ],
)
def test_measuring_is_part_of_steer(typed, command):
    assert command in as_commands(typed)


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("steer", "evaluate"), "give a preset or --feature"),
        (("steer", "evaluate", "calm"), "preset 'calm' not found"),
        (("steer", "evaluate", "--feature", "900=+1"), "'feature:900' is not a feature of SAE"),
        (("steer", "evaluate", "--feature", "3=+1", "--label", "sail"), "label 'sail' is not"),
        (("steer", "evaluate", "--feature", "3=+1", "--strengths", "nan"), "not a number"),
        (("steer", "evaluate", "--feature", "3=+1", "--operations", "scale"), "has no amount"),
        (("steer", "evaluate", "--feature", "3=+1", "--schedules", "soon"), "not a valid schedule"),
        (("steer", "evaluate", "--feature", "3=+1", "--regex", "("), "not a valid regular"),
        (("steer", "evaluate", "--feature", "3=+1", "--prompts", "no.txt"), "cannot be read"),
        (
            (
                "steer",
                "evaluate",
                "--feature",
                "3=+1",
                "--endpoint",
                "ftp://x",
                "--judge-model",
                "m",
            ),
            "'ftp://x' is not a web address",
        ),
        (
            ("steer", "evaluate", "--feature", "3=+1", "--endpoint", "http://localhost:1/v1"),
            "the judge needs the name of its model",
        ),
        (
            (
                "steer",
                "--auto",
                "--feature",
                "3",
                "--endpoint",
                "http://[::1]:1",
                "--judge-model",
                "m",
            ),
            "the judge must know what texts should be about",
        ),
        (("steer", "--auto", "--feature", "3", "--concept", "rain"), "need an --endpoint"),
        (("steer", "--auto"), "give one of a feature, a label and a description"),
        (
            ("steer", "--auto", "--feature", "3", "--recipes", "magic"),
            "recipe 'magic' is not known",
        ),
        (("steer", "--auto", "--feature", "3", "--most-ratio", "1"), "no room to steer"),
        (("steer", "--auto", "--feature", "3", "--prompt", "one"), "one prompt cannot be both"),
        (("steer", "results", "none"), "measurement 'none' not found"),
    ],
)
def test_what_cannot_be_measured_is_refused_before_anything_is_written(
    home, capsys, words, sentence
):
    before = sorted(home.root.rglob("*"))
    assert run_command_line(["--workspace", str(home.root), *words]) == 2
    assert sentence in capsys.readouterr().err
    written = {path for path in sorted(home.root.rglob("*")) if "annotations" not in path.name}
    assert written <= set(before)
