"""The control of vectors and neurons: random directions of the same size, other neurons."""

import pytest
import torch

from mi_crow.mechanistic.steering.interventions import parse_intervention
from mi_crow.mechanistic.steering.loading import load_for_work
from mi_crow.mechanistic.steering.measure.aims.stand_ins import stand_ins
from mi_crow.mechanistic.steering.measure.arms import Arm, kinds_beside
from mi_crow.mechanistic.steering.measure.auto import run_auto
from mi_crow.mechanistic.steering.measure.config import AutoConfig, Judging, SweepConfig, Trial
from mi_crow.mechanistic.steering.measure.controls import of_other_saes
from mi_crow.mechanistic.steering.measure.sweep import run_sweep
from mi_crow.mechanistic.steering.parts import LoadedParts
from mi_crow.mechanistic.steering.targets import read_target
from mi_crow.mechanistic.vectors.stored import SteeringVector, save_vector
from tests.helpers.index_fixture import make_index
from tests.helpers.session_fixture import SAE_ID, add_tiny_sae
from tests.helpers.steering_fixture import LATENTS, WIDTH, tiny_sae


@pytest.fixture
def home(workspace, tiny_model_dir, tiny_lm):
    """The tiny model's SAE with a made-up index, and a vector at two layers."""
    add_tiny_sae(workspace, tiny_model_dir)
    make_index(workspace, SAE_ID, n_features=LATENTS)
    tiny_sae(model=str(tiny_model_dir)).save(workspace.sae_dir(SAE_ID))
    generator = torch.Generator().manual_seed(2)
    directions = {
        point: size * torch.randn(WIDTH, generator=generator)
        for point, size in (("resid_post.0", 3.0), ("resid_post.1", 1.0))
    }
    made = {"model_id": str(tiny_model_dir), "layers": {"resid_post.1": {"max": 2.0}}}
    save_vector(workspace, SteeringVector("calm", directions, made))
    return workspace


def test_a_random_direction_is_as_long_at_every_layer_and_the_same_for_one_seed(home):
    loaded = load_for_work(home, SAE_ID, "cpu")
    parts = LoadedParts(home, loaded.lm)
    stack = [
        parse_intervention("vector:calm=+0.3norm"),
        *(parse_intervention(f"neuron:resid_post.1/{n}=+9") for n in (5, 6)),
    ]
    found = stand_ins(parts, loaded, stack, 7)
    assert found == stand_ins(parts, loaded, stack, 7)
    assert found["vector:calm"] != stand_ins(parts, loaded, stack, 8)["vector:calm"]
    neurons = {found[f"neuron:resid_post.1/{n}"] for n in (5, 6)}
    assert len(neurons) == 2
    assert not neurons & {f"neuron:resid_post.1/{n}" for n in (5, 6)}
    moved = parse_intervention(f"{found['vector:calm']}=+0.3norm")
    (own,) = parts.parts(loaded, stack[:1]).vectors.values()
    (other,) = parts.parts(loaded, [moved]).vectors.values()
    assert other.figure("resid_post.1", "max") == 2.0
    for point, direction in own.directions.items():
        drawn = other.directions[point]
        assert float(drawn.norm()) == pytest.approx(float(direction.norm()))
        assert abs(float(torch.cosine_similarity(drawn, direction, dim=0))) < 0.7


def test_a_vector_is_measured_beside_a_random_direction_and_its_projection_is_told(home):
    loaded = load_for_work(home, SAE_ID, "cpu")
    trial = Trial(prompts=("The ferry", "Knead it"), n=4, max_new_tokens=6, documents=2)

    def arm(change: str) -> dict:
        config = SweepConfig(
            SAE_ID,
            interventions=(parse_intervention(change).as_json(),),
            judging=Judging(label="sailing"),
            trial=trial,
            device="cpu",
        )
        (found,) = run_sweep(home, config, loaded=loaded)["arms"]
        return found

    found = arm("vector:calm=+0.5norm on generated")
    assert isinstance(found["share_random"], float)
    assert found["random"]["texts"] != found["texts"]
    assert found["activation"] != 0 != found["activation_baseline"]
    assert isinstance(arm("neuron:resid_post.1/5=+200")["share_random"], float)
    # There is no other layer like a whole layer, and nothing whose activation could be read.
    whole = arm("layer:resid_post.1=x0.5")
    assert whole.get("share_random") is None
    assert whole["activation"] is None


@pytest.mark.slow
def test_a_search_measures_a_vector_beside_a_random_direction(home):
    loaded = load_for_work(home, SAE_ID, "cpu")
    config = AutoConfig(
        SAE_ID,
        label="sailing",
        recipes=("means",),
        tries=1,
        development=2,
        most_ratio=50.0,
        trial=Trial(prompts=("The ferry", "Knead it"), n=2, max_new_tokens=4, documents=0),
        device="cpu",
    )
    result = run_auto(home, config, None, loaded)
    (held,) = result["interventions"]
    assert result["control_targets"][held["target"]].startswith("vector:random-")
    assert kinds_beside(result["arms"][0], result["control_targets"]) == ["direction"]
    assert isinstance(result["share_random"], float)


def test_a_feature_of_another_sae_is_compared_with_one_of_that_sae(home, tiny_model_dir):
    make_index(home, "other", n_features=LATENTS)
    tiny_sae(model=str(tiny_model_dir)).save(home.sae_dir("other"))
    stack = [parse_intervention(one) for one in ("other/3=+1", "other/3+0.5*7=+1", "5=+1")]
    found = of_other_saes(home, stack, SAE_ID, 7)
    assert set(found) == {"feature:other/3", "group:other/3+0.5*7"}
    one, group = (read_target(text) for text in found.values())
    assert (one.sae, group.sae) == ("other", "other")
    assert group.features[0] == one.features[0]
    assert not {n for n, _ in group.features} & {3, 7}
    moved = Arm(tuple(stack)).of_other_features({5: 6, 3: 4}, found).interventions
    assert [each.target for each in moved] == [*found.values(), "feature:6"]
