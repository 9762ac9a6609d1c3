"""What the model wrote on a topic while recipes were tried, and the recipes that learn from it."""

from dataclasses import replace
from typing import cast

import numpy as np
import pytest

from mi_crow.errors import UserError
from mi_crow.mechanistic.steering.loading import load_for_work
from mi_crow.mechanistic.steering.measure.aims.own_texts import (
    KEPT,
    others_of,
    own_vector,
    worthy,
)
from mi_crow.mechanistic.steering.measure.auto import run_auto
from mi_crow.mechanistic.steering.measure.bench import ArmTexts, Bench
from mi_crow.mechanistic.steering.measure.config import AutoConfig, Trial
from mi_crow.mechanistic.steering.measure.judges import Judge
from mi_crow.mechanistic.steering.measure.recipes import Aim, recipes_named
from mi_crow.mechanistic.steering.measure.results import Measurement
from mi_crow.mechanistic.steering.measure.search import Search
from mi_crow.mechanistic.vectors.stored import list_vectors, load_vector
from mi_crow.progress import NullProgress
from tests.helpers.index_fixture import make_index
from tests.helpers.session_fixture import SAE_ID, add_tiny_sae
from tests.helpers.steering_fixture import LATENTS, tiny_sae


@pytest.fixture
def home(workspace, tiny_model_dir):
    add_tiny_sae(workspace, tiny_model_dir)
    make_index(workspace, SAE_ID, n_features=LATENTS)
    tiny_sae(model=str(tiny_model_dir)).save(workspace.sae_dir(SAE_ID))
    return workspace


def judged(margins):
    """A judge that knows the margin of each text."""
    return Judge(
        "made up",
        lambda texts: [margins[text] > 0 for text in texts],
        margins=lambda texts: np.array([margins[text] for text in texts]),
        typical=2.0,
    )


def written(texts, nats, lengths):
    tokens = [list(range(n)) for n in lengths]
    prompts = ["The ship"] * len(texts)
    return ArmTexts(prompts, texts, tokens, np.array(nats), 1.0, 0.0, 0.0)


def test_the_worthiest_texts_are_on_the_topic_and_cost_little():
    judge = judged({" on": 2.0, " dear": 2.0, " half": 1.0, " off": -1.0, " short": 2.0})
    steered = written(
        [" on", " dear", " half", " off", " short"], [40.0, 58.0, 20.0, 20.0, 4.0], [20] * 4 + [4]
    )
    plain = written([" off", " on", " off"], [40.0, 38.0, 90.0], [20, 20, 20])
    # Effects of 1, 1 and 0.75; the second costs 0.9 nats a token more than the plain median, 2.
    assert worthy(judge, steered, plain) == [
        ("The ship on", 1.0),
        ("The ship half", 0.75),
        ("The ship dear", 0.1),
    ]
    assert worthy(judge, steered, plain, most=1) == [("The ship on", 1.0)]
    assert worthy(judge, written([], [], []), plain) == []
    assert others_of(judge, plain) == ["The ship off", "The ship off"]
    assert KEPT >= 8


def test_the_direction_leads_to_the_worthiest_texts_and_is_made_once(home):
    loaded = load_for_work(home, SAE_ID, "cpu")
    about = [(f"The ferry left harbour {n} at dawn.", 1 - n / 100) for n in range(9)]
    others = [f"Knead the dough {n} times and let it rest." for n in range(9)]
    name = own_vector(home, loaded, [*about, *about], others, 12, "sailing")
    held = load_vector(home, name)
    assert (held.made["texts_for"], held.made["texts_against"]) == (9, 9)
    assert own_vector(home, loaded, about[::-1], others, 12, "sailing") == name
    assert load_vector(home, name).made["created"] == held.made["created"]
    for sides in ((about[:7], others), (about, others[:7])):
        with pytest.raises(UserError, match="too few"):
            own_vector(home, loaded, *sides, 12)


def test_recipes_that_learn_from_texts_are_tried_after_the_others(tmp_path):
    class OneBench:
        """A bench on which a vector does twice as much as a feature."""

        def quick(self, arm, trial, prompts, n, seed):
            (one,) = arm.interventions
            effect = one.value / 4 * (2 if one.aim.kind == "vector" else 1)
            row = {"share": effect, "effect": effect, "perplexity_ratio": 1 + one.value / 2}
            return {**row, "own": [[f"{one.op} {one.value:g}", effect]]}

    told = []

    def further(texts):
        told.extend(texts)
        (recipe,) = recipes_named(["own"])
        arm = recipe.build(Aim(3, own="made"))
        return [(recipe, arm)] if arm else []

    config = AutoConfig("sae", feature=3, tries=3, development=4)
    measurement = Measurement(tmp_path / "one.json", {})
    search = Search(cast(Bench, OneBench()), config, ["a"], measurement, NullProgress())
    recipes = recipes_named(["floor", "add"])
    built = [(one, arm) for one in recipes if (arm := one.build(Aim(3)))]
    tried, finalists = search.run(built, further)
    assert [one.recipe.name for one in tried] == ["floor", "add", "own"]
    assert {text.split()[0] for text, _ in told} == {"floor", "add"}
    assert all(isinstance(worth, float) for _, worth in told)
    assert finalists[0].tried.recipe.name == "own"


@pytest.mark.slow
def test_a_search_steers_to_what_the_model_wrote(home):
    config = AutoConfig(
        SAE_ID,
        feature=12,
        recipes=("floor", "own", "own-decay"),
        tries=2,
        development=32,
        most_ratio=50.0,
        trial=Trial(n=4, max_new_tokens=20, documents=0, control=False),
        device="cpu",
    )
    loaded = load_for_work(home, SAE_ID, "cpu")
    judge = Judge("lengths", lambda texts: [len(text) % 3 > 0 for text in texts])
    result = run_auto(home, config, None, loaded, judge=judge)
    assert set(result["tried"]) == {"floor", "own", "own-decay"}
    rows = {arm["recipe"]: arm for arm in result["arms"]}
    (vector,) = {one["target"] for one in rows["own"]["interventions"]}
    assert vector == f"vector:{list_vectors(home)[0].name}"
    assert all("own" not in arm["development"] for arm in result["arms"])
    # Recipes that need no such texts leave no vector behind.
    alone = replace(config, recipes=("floor",), name="alone")
    assert "own" not in run_auto(home, alone, None, loaded, judge=judge)["tried"]
    assert len(list_vectors(home)) == 1
