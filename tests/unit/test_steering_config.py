"""What a sweep or a search refuses before it starts, and the arms that a sweep tries."""

from typing import Any

import pytest
import torch

from mi_crow.errors import UserError
from mi_crow.mechanistic.steering.interventions import parse_intervention
from mi_crow.mechanistic.steering.measure.arms import Arm, alike, arms_of, beside, kinds_beside
from mi_crow.mechanistic.steering.measure.checks import judging_of
from mi_crow.mechanistic.steering.measure.config import (
    AutoConfig,
    Judging,
    ScoresConfig,
    SweepConfig,
)
from mi_crow.mechanistic.steering.measure.indexed import Indexed
from mi_crow.mechanistic.vectors.stored import SteeringVector, save_vector
from mi_crow.store import Workspace
from tests.helpers.index_fixture import make_index

STACK = (parse_intervention("3=+1").as_json(),)


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"interventions": ()}, "no intervention given"),
        ({"operations": ("ablate",)}, "operation 'ablate' has no amount; use add, clamp"),
        ({"schedules": ("sometimes",)}, "sometimes"),
        ({"plausible": (0.1, 2.0)}, "the plausible share"),
        ({"kl_budgets": (0.0, -1.0)}, "the KL budget"),
        ({"strengths": (float("nan"),)}, "a strength"),
    ],
)
def test_a_sweep_that_makes_no_sense(given: dict[str, Any], says: str) -> None:
    with pytest.raises(UserError) as caught:
        SweepConfig("s", **{"interventions": STACK, **given})
    assert says in caught.value.sentence


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({}, "give one of a feature, a label and a description"),
        ({"feature": 1, "label": "sea"}, "give one of a feature, a label and a description"),
        ({"description": " "}, "the description is empty"),
        ({"feature": 1, "label_free": True}, "label-free needs a label"),
        ({"feature": 1, "most_ratio": 1.0}, "of at most 1 leaves no room to steer"),
    ],
)
def test_a_search_that_makes_no_sense(given: dict[str, Any], says: str) -> None:
    with pytest.raises(UserError) as caught:
        AutoConfig("s", **given)
    assert says in caught.value.sentence


def test_a_search_is_judged_by_what_it_is_for() -> None:
    assert AutoConfig("s", label="sea", pattern="x+").judging.pattern == "x+"
    assert AutoConfig("s", label="sea").judging.label == "sea"
    assert AutoConfig("s", label="sea", label_free=True).judging.label is None
    with pytest.raises(UserError, match="a prompt is empty"):
        ScoresConfig("s", prompts=("a", " "))


def test_a_sweep_tries_each_combination_once() -> None:
    config = SweepConfig(
        "s", STACK, strengths=(1.0, 2.0), operations=("add", "floor"), kl_budgets=(0.0, 0.5)
    )
    stack = [parse_intervention("3=+1"), parse_intervention("layer:model.layers.1=x0.5")]
    found = arms_of(config, stack)
    assert len(found) == 8
    assert {(arm.interventions[0].op, arm.interventions[0].value) for arm in found} == {
        ("add", 1.0), ("add", 2.0), ("floor", 1.0), ("floor", 2.0),
    }  # fmt: skip
    assert {arm.interventions[1] for arm in found} == {stack[1]}, "a layer is left as it is"
    assert {arm.kl_budget for arm in found} == {None, 0.5}
    off = arms_of(SweepConfig("s", STACK, strengths=(1.0, 2.0)), [parse_intervention("3=ablate")])
    assert len(off) == 1, "no amount, so all strengths are one arm"


def test_the_name_of_a_long_arm_and_its_control() -> None:
    long = Arm(tuple(parse_intervention(f"{n}=+1") for n in range(6)))
    assert long.name.endswith("and 2 more")
    assert Arm(()).name == "nothing"
    rivals = "+".join(str(n) for n in range(10, 16))
    swap = parse_intervention(f"3=swap 1 against {rivals}")
    assert "against 6 rivals" in Arm((swap,)).name
    others = {3: 40, 10: 50, 11: 51}
    (moved,) = Arm((swap,)).of_other_features(others).interventions
    assert moved.features == ((40, 1.0),)
    assert moved.rival_features == ((50, 1.0), (51, 1.0))
    vector = parse_intervention("vector:calm=+1norm")
    (moved,) = Arm((vector,)).of_other_features(others, {"vector:calm": "vector:r"}).interventions
    assert moved.target == "vector:r"
    layer = parse_intervention("layer:model.layers.1=x0.5")
    assert Arm((layer,)).of_other_features(others).interventions == (layer,)


def test_what_stands_beside_a_stack_is_named() -> None:
    def words(*changes: str) -> str:
        return beside([parse_intervention(one) for one in changes])

    assert words("3=+1") == "a random feature"
    assert words("3=+1", "3=cap 2") == "a random feature"
    assert words("3+7=+1", "sea/3=+1") == words("tag:sea=+1") == "random features"
    assert words("vector:calm=+1") == "a random direction"
    assert words("vector:calm=+1", "3=+1") == "a random direction and a random feature"
    assert words("neuron:mlp_in.1/4=+1", "neuron:mlp_in.1/5=+1") == "random neurons"
    assert words("layer:model.layers.1=x0.5") == ""
    arm = {"interventions": [{"target": "vector:calm"}, {"target": "layer:x"}, {"target": "tag:a"}]}
    assert kinds_beside(arm, {"vector:calm": "vector:random-1"}) == ["direction", "feature"]
    assert kinds_beside(arm, {}) == ["feature"], "a search of before compared with features"
    assert alike(["direction"]) == "directions of the same norm"


@pytest.mark.parametrize(
    ("made", "judged"),
    [
        ({"for": ["label:sailing"]}, Judging(label="sailing")),
        ({"of": {"sae": "s", "feature": 7, "label": "weather"}}, Judging(label="weather")),
        ({"of": {"sae": "s", "feature": 7, "label": None}}, Judging(feature=7)),
        ({"of": {"sae": "another", "feature": 7, "label": "weather"}}, None),
        ({"for": ["label:gone"]}, None),
        ({"for": ["label:sailing", "label:weather"]}, None),
        ({}, None),
    ],
)
def test_a_vector_is_judged_by_what_it_was_made_for(
    workspace: Workspace, made: dict[str, Any], judged: Judging | None
) -> None:
    make_index(workspace, "s")
    save_vector(workspace, SteeringVector("calm", {"resid_post.1": torch.ones(4)}, made))
    stack = [parse_intervention("vector:calm=+1norm")]
    of = workspace, Indexed.open(workspace, "s")
    if judged is None:
        with pytest.raises(UserError, match="nothing says what the texts should be about"):
            judging_of(*of, Judging(), stack, "s")
    else:
        assert judging_of(*of, Judging(), stack, "s") == judged
    assert judging_of(*of, Judging(pattern="x"), stack, "s") == Judging(pattern="x")
    with_feature = [*stack, parse_intervention("3=+1")]
    assert judging_of(*of, Judging(), with_feature, "s") == Judging()
