"""How a search chooses: the feature of a label, the finalist, the control beside it."""

from dataclasses import replace
from typing import cast

import numpy as np
import pytest

from mi_crow.errors import UserError
from mi_crow.mechanistic.features.queries import FeatureStore
from mi_crow.mechanistic.steering.interventions import parse_intervention
from mi_crow.mechanistic.steering.measure.aims.detectors import auroc_error, detectors_of
from mi_crow.mechanistic.steering.measure.arms import Arm
from mi_crow.mechanistic.steering.measure.bench import ArmTexts, Bench
from mi_crow.mechanistic.steering.measure.certainty import ratio_error, ratio_room, student
from mi_crow.mechanistic.steering.measure.config import AutoConfig
from mi_crow.mechanistic.steering.measure.controls import control_of_stack
from mi_crow.mechanistic.steering.measure.recipes import Aim, recipes_named
from mi_crow.mechanistic.steering.measure.results import Measurement
from mi_crow.mechanistic.steering.measure.search import (
    Finalist,
    Search,
    Tried,
    bought,
    decided,
)
from mi_crow.progress import NullProgress
from tests.helpers.index_fixture import make_index


@pytest.fixture
def store(workspace):
    make_index(workspace, "fixture-sae")
    return FeatureStore.open(workspace, "fixture-sae")


def readings(nats, lengths):
    tokens = [list(range(n)) for n in lengths]
    perplexity = float(np.exp(sum(nats) / sum(lengths)))
    return ArmTexts([], [""] * len(nats), tokens, np.array(nats), perplexity, 0.0, 0.0)


def searching(quick, tmp_path, enough=None, **options):
    class OneBench:
        """A bench whose figures are given."""

        def quick(self, arm, trial, prompts, n, seed):
            (one,) = arm.interventions
            return quick(one, n)

    config = AutoConfig("sae", feature=3, tries=4, development=4, **options)
    measurement = Measurement(tmp_path / "one.json", {})
    return Search(cast(Bench, OneBench()), config, ["a"], measurement, NullProgress(), enough)


def test_of_features_that_tell_a_label_as_well_the_one_that_changes_its_texts_most_is_first(store):
    rows = store.connection.rows(
        "SELECT feature, s.auroc, decoder_norm * (s.mean_act - avg(o.mean_act)) "
        "FROM idx.feature_labels s JOIN idx.feature_labels o USING (feature) "
        "JOIN idx.features USING (feature) WHERE s.label = 'sailing' AND o.label <> s.label "
        "GROUP BY feature, s.auroc, decoder_norm, s.mean_act"
    )  # the labels have as many documents each
    best = max(auroc for _, auroc, _ in rows)
    inside, total = store.connection.rows(
        "SELECT count(*) FILTER (WHERE label = 'sailing'), count(*) FROM idx.documents "
        "WHERE split = 'train'"
    )[0]
    error = auroc_error(best, inside, total - inside)
    found = detectors_of(store, "sailing", most=100)
    assert set(found) == {feature for feature, auroc, _ in rows if auroc >= best - error}
    assert detectors_of(store, "sailing") == found[:3]
    moved = {feature: apart for feature, _, apart in rows}
    assert list(found) == sorted(found, key=lambda feature: -moved[feature])
    assert detectors_of(store, "no such label") == ()


def test_the_error_of_an_auroc_is_the_published_one():
    # Hanley and McNeil 1982, table 2: 51 of 58 with AUROC .893 have a standard error of .032.
    assert auroc_error(0.893, 51, 58) == pytest.approx(0.032, abs=0.001)
    assert auroc_error(1.0, 10, 10) == 0
    assert auroc_error(0.9, 0, 10) == 0


def test_the_control_of_a_swap_raises_and_takes_away_random_features(store):
    arm = Arm((parse_intervention("3=swap 0.4norm against 12+2*7"),))
    others = control_of_stack(store, [3], [12, 7], seed=1)
    assert list(others) == [3, 12, 7]
    assert len({*others, *others.values()}) >= 5
    assert not {3, 12, 7} & {others[12], others[7]}
    (moved,) = arm.of_other_features(others).interventions
    assert moved.features == ((others[3], 1.0),)
    assert moved.rival_features == ((others[12], 1.0), (others[7], 2.0))
    # Where there are too few others, those that there are.
    living = [row.feature for row in store.rows(store.ids("density")) if row.fires]
    assert 0 < len(control_of_stack(store, [3], living[: len(living) // 2 + 5], 1)) < len(living)
    with pytest.raises(UserError, match="no other living feature"):
        control_of_stack(store, living, [], 1)


def test_the_error_of_a_ratio_is_that_of_its_texts():
    one = readings([20.0, 44.0, 26.0, 30.0], [10, 20, 10, 12])
    assert ratio_error(one, one) == 0
    generator = np.random.default_rng(0)
    lengths = generator.integers(20, 48, 400)

    def drawn(mean):
        return readings(lengths * generator.normal(mean, 0.5, len(lengths)), lengths)

    pairs = [(drawn(2.3), drawn(2.0)) for _ in range(200)]
    logs = [np.log(steered.perplexity / plain.perplexity) for steered, plain in pairs]
    assert ratio_error(*pairs[0]) == pytest.approx(np.std(logs), rel=0.2)


@pytest.mark.parametrize(("prompts", "apart"), [(8, 0.0), (8, 0.1), (8, 0.3), (4, 0.1), (2, 0.0)])
def test_what_other_prompts_may_cost_more_is_exceeded_as_rarely_as_promised(prompts, apart):
    generator = np.random.default_rng(prompts)

    def written(count, n):
        of = np.arange(n) % count
        own = generator.normal(0.3, apart, count)[of]
        pair = generator.normal(1.0, 0.3, n) + own, generator.normal(1.0, 0.3, n)
        both = [readings(each * 40, [40] * n) for each in pair]
        return [replace(one, prompts=[str(number) for number in of]) for one in both]

    def log_ratio(pair):
        return np.log(pair[0].perplexity / pair[1].perplexity)

    missed, rooms = 0, []
    for _ in range(300):
        seen, fresh = written(prompts, 64), written(4, 128)
        rooms.append(ratio_room(seen[0], seen[1], 4))
        missed += log_ratio(fresh) > log_ratio(seen) + rooms[-1]
    assert missed / 300 < 0.09
    known = (apart**2 * (1 / prompts + 1 / 4) + 2 * 0.18 / 64) ** 0.5
    assert np.mean(rooms) < 1.3 * student(max(prompts - 1, 3)) * known


def test_the_quantiles_are_those_of_student():
    # Abramowitz and Stegun 1964, table 26.10.
    for freedom, quantile in ((3, 2.353), (7, 1.895), (30, 1.697), (120, 1.658)):
        assert student(freedom) == pytest.approx(quantile, rel=0.005)


def test_a_strength_whose_ratio_is_not_surely_below_the_limit_is_lowered(tmp_path):
    def quick(one, n):
        return {
            "share": one.value,
            "effect": one.value,
            "perplexity_ratio": 1 + one.value**2,
            "ratio_room": 0.16,
        }

    search = searching(quick, tmp_path, most_ratio=1.5)
    (recipe,) = recipes_named(["floor"])
    arm = recipe.build(Aim(3))
    assert arm is not None
    _, (found,) = search.run([(recipe, arm)])
    ratio = found.row["perplexity_ratio"]
    assert ratio * np.exp(0.16) <= 1.5
    assert ratio > 1.1


def test_of_finalists_that_do_as_much_the_one_that_costs_least_wins():
    def finalist(name, effect, ratio):
        (recipe,) = recipes_named([name])
        row = {"effect": effect, "effect_error": 0.03, "perplexity_ratio": ratio}
        return Finalist(Tried(recipe, Arm(())), 0.4, row)

    swap, floor = finalist("swap", 0.92, 1.45), finalist("floor", 0.85, 1.05)
    near = finalist("plausible", 0.9, 1.1)
    assert decided([floor, swap]) == [swap, floor]
    assert decided([floor, near, swap]) == [near, swap, floor]
    assert decided([]) == []


def test_a_first_strength_that_does_enough_ends_the_search(tmp_path):
    seen = []

    def quick(one, n):
        seen.append((one.op, n))
        effect = {"add": 0.5, "floor": 0.9}[one.op]
        return {"share": effect, "effect": effect, "perplexity_ratio": 1.1}

    built = [(one, arm) for one in recipes_named(["add", "floor"]) if (arm := one.build(Aim(3)))]
    every, (found,) = searching(quick, tmp_path, enough=0.8).run(built)
    assert seen == [("add", 2), ("floor", 2), ("floor", 8)]
    assert found.tried.recipe.name == "floor"
    assert [len(one.tries) for one in every] == [1, 1]
    seen.clear()
    searching(quick, tmp_path / "named", enough=0.8, recipes=("floor", "add")).run(built[::-1])
    assert seen == [("floor", 2), ("add", 2), ("floor", 8)]
    seen.clear()
    searching(quick, tmp_path / "first", enough=0.8).run(built[::-1])
    assert seen == [("floor", 2), ("floor", 8)]
    seen.clear()
    searching(quick, tmp_path / "all", enough=0.95).run(built)
    assert len(seen) > 8


def test_of_several_features_the_one_that_steers_best_is_taken(tmp_path):
    def quick(one, n):
        dear = one.feature == 8  # nothing of it fits
        effect = {7: 0.3, 8: 0.9, 9: 0.5}[one.feature]
        return {"share": effect, "effect": effect, "perplexity_ratio": 9.0 if dear else 1.1}

    search = searching(quick, tmp_path)
    assert search.choose([7, 8, 9]) == 9
    assert search.choose([8]) == 8


def test_its_progress_never_goes_back(tmp_path):
    shares = []

    class Bar(NullProgress):
        def update(self, done, total, unit, metrics=None):
            shares.append(done / total)

    def quick(one, n):
        return {"share": one.value, "effect": one.value, "perplexity_ratio": 1 + one.value**2}

    search = searching(quick, tmp_path)
    search._progress = Bar()
    search.choose([7, 8, 9])
    assert shares[-1] < 0.3
    built = [(one, arm) for one in recipes_named(["add", "floor"]) if (arm := one.build(Aim(9)))]
    search.run(built)
    assert shares == sorted(shares)


def test_a_second_strength_is_for_the_more_promising(tmp_path):
    tries = []

    def quick(one, n):
        tries.append(one.op)
        # The dearest does the most, and would within the limit.
        dear = one.op == "swap"
        effect = {"swap": 0.9}.get(one.op, 0.1 if one.schedule.kind == "constant" else 0.2)
        return {
            "effect": effect * one.value,
            "perplexity_ratio": 1 + one.value * (2.5 if dear else 1),
        }

    search = searching(quick, tmp_path)
    aim = Aim(3, (4, 5), ((3, 1.0), (6, 0.5)), "made", "spread")
    built = [(one, arm) for one in recipes_named([]) if (arm := one.build(aim))]
    tried, _ = search.run(built)
    once = [one.recipe.name for one in tried if len(one.tries) == 1]
    assert len(once) == len(built) - 8
    assert all(one.dropped for one in tried if one.recipe.name in once)
    assert "swap" not in once
    assert {"decay", "group-decay", "means-decay"} & {*once} == set()


def test_recipes_are_compared_at_equal_cost():
    # Linear in the ratio's logarithm; the square of the strength goes along with it.
    assert bought([(0.4, 0.8, 4.0)], 2.0) == (pytest.approx(0.4 / 2**0.5), pytest.approx(0.4))
    between = bought([(0.2, 0.3, 1.2), (0.4, 0.5, 1.2**3)], 1.2**2)
    assert between is not None
    assert between[1] == pytest.approx(0.4)
    # Never less than a try that fits did.
    assert bought([(0.2, 0.3, 1.2), (0.4, 0.1, 2.0)], 1.5) == (0.2, 0.3)
    assert bought([(0.2, 0.3, 0.8), (0.4, 0.6, 0.9)], 1.5) == (0.4, 0.6)
    assert bought([(0.2, 0.3, float("inf"))], 1.5) is None
    assert bought([], 1.5) is None


def test_a_finalist_that_had_to_step_back_is_compared_by_what_the_limit_buys(tmp_path):
    def quick(one, n):
        costs = {"floor": 1.0, "add": 3.0}[one.op]
        effect = {"floor": 0.2, "add": 0.9}[one.op] * one.value
        # Of `add` a second seed costs more: it steps back, to where it does less than `floor`.
        dear = costs * (3 if n > 4 and one.op == "add" else 1)
        return {"effect": effect, "perplexity_ratio": 1 + dear * one.value**2, "ratio_room": 0.1}

    search = searching(quick, tmp_path, most_ratio=1.5)
    recipes = recipes_named(["floor", "add"])
    built = [(one, arm) for one in recipes if (arm := one.build(Aim(3)))]
    _, finalists = search.run(built)
    assert finalists[0].tried.recipe.name == "add"
    assert finalists[0].row["perplexity_ratio"] <= 1.5
    assert finalists[0].effect >= finalists[0].row["effect"]
