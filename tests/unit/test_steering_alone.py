"""Steering a model without an SAE: by vectors, layers, neurons, and features that name theirs."""

import json

import pytest
import torch

from mi_crow.cli import main
from mi_crow.errors import UserError
from mi_crow.language_model import LanguageModel
from mi_crow.language_model.config import ModelSpec
from mi_crow.mechanistic.steering.fits import needs_own_sae
from mi_crow.mechanistic.steering.interventions import Intervention, parse_intervention
from mi_crow.mechanistic.steering.loading import LoadedModel
from mi_crow.mechanistic.steering.run import steer_loaded, steer_prompt
from mi_crow.mechanistic.vectors.stored import SteeringVector, save_vector
from mi_crow.store.workspace import Workspace
from tests.helpers.session_fixture import SAE_ID, add_tiny_sae
from tests.helpers.steering_fixture import WIDTH

PROMPT = "The ferry"


@pytest.fixture
def home(workspace: Workspace, tiny_lm: LanguageModel) -> Workspace:
    """A workspace with one vector and nothing else."""
    direction = torch.randn(WIDTH, generator=torch.Generator().manual_seed(2))
    made = {"model_id": tiny_lm.model_id, "tokenizer_hash": tiny_lm.tokenizer_hash}
    save_vector(workspace, SteeringVector("calm", {"resid_post.1": direction}, made))
    return workspace


@pytest.mark.parametrize(
    "change", ["vector:calm=+9", "layer:model.layers.1=x0", "neuron:resid_post.1/5=+200"]
)
def test_a_model_alone_is_steered_and_measured(home, tiny_lm, change):
    found = steer_loaded(
        home, LoadedModel(tiny_lm), PROMPT, [parse_intervention(change)], max_new_tokens=8
    )
    assert found["baseline"] != found["steered"]
    assert found["metrics"]["kl"] > 0
    read = [change.partition("=")[0]] if not change.startswith("layer:") else []
    assert (found["sae_id"], found["targets"]) == (None, read)
    acts = found["samples"][0]["steered"]["acts"]
    assert [len(one) for one in acts] == [8] * len(read)
    assert all(any(one) for one in acts)
    assert tiny_lm.layers.get_hooks() == []


def test_a_feature_that_names_its_sae_acts_as_with_that_sae_open(home, tiny_model_dir, tiny_lm):
    add_tiny_sae(home, tiny_model_dir)
    stack = [parse_intervention(f"{SAE_ID}/3=+15")]
    alone = steer_loaded(home, LoadedModel(tiny_lm), PROMPT, stack, max_new_tokens=8)
    beside = steer_prompt(home, SAE_ID, PROMPT, stack, device="cpu", max_new_tokens=8)
    assert alone["steered"] == beside["steered"] != alone["baseline"]
    with pytest.raises(UserError, match="feature 3 does not name its SAE"):
        steer_prompt(home, ModelSpec("sample"), PROMPT, [parse_intervention("3=+15")])
    with pytest.raises(UserError, match="tag sea does not name its SAE"):
        steer_prompt(home, ModelSpec("sample"), PROMPT, [parse_intervention("tag:sea=+1")])


def test_features_of_an_sae_that_is_not_open_are_read_as_if_it_were(home, tiny_model_dir, tiny_lm):
    add_tiny_sae(home, tiny_model_dir)
    stack = [parse_intervention(f"{SAE_ID}/{'+'.join(map(str, range(16)))}=+1")]
    alone = steer_loaded(home, LoadedModel(tiny_lm), PROMPT, stack, max_new_tokens=8)
    beside = steer_prompt(home, SAE_ID, PROMPT, stack, device="cpu", max_new_tokens=8)
    assert alone["targets"] == [f"feature:{SAE_ID}/{one}" for one in range(16)]
    for side in ("baseline", "steered"):
        read, known = (one["samples"][0][side]["acts"] for one in (alone, beside))
        assert any(map(any, read))
        for own, open_sae in zip(read, known, strict=True):
            assert own == pytest.approx(open_sae)


def test_a_vector_of_another_model_is_refused(home, tiny_lm):
    made = {"model_id": "other", "tokenizer_hash": "1" * 16}
    save_vector(home, SteeringVector("far", {"resid_post.1": torch.ones(WIDTH)}, made))
    with pytest.raises(UserError, match="vector 'far' is of model 'other'"):
        steer_loaded(home, LoadedModel(tiny_lm), PROMPT, [parse_intervention("vector:far=+1")])


@pytest.mark.parametrize(
    ("text", "needs"),
    [
        ("3=+1", True),
        ("a/3=+1", False),
        ("tag:sea=+1", True),
        ("vector:calm=+1", False),
        ("vector:calm=+1 ?7>2", True),
        ("vector:calm=+1 ?a/7>2", False),
        ("layer:model.layers.1=x2", False),
    ],
)
def test_what_asks_for_an_open_sae(text: str, needs: bool) -> None:
    one = parse_intervention(text)
    assert needs_own_sae([one]) is needs
    off = Intervention.from_json(one.as_json() | {"enabled": False})
    assert needs_own_sae([off]) is False


def test_the_command_takes_a_model_or_finds_the_one_that_is_meant(home, tiny_model_dir, capsys):
    asked = ["steer", PROMPT, "--steer", "vector:calm=+9", "--max-new-tokens", "4", "--json"]
    where = ["--workspace", str(home.root)]
    assert main([*asked, *where]) == 0  # the vector says its model
    found = json.loads(capsys.readouterr().out)
    assert main([*asked, *where, "--model", str(tiny_model_dir)]) == 0
    assert json.loads(capsys.readouterr().out)["steered"] == found["steered"] != found["baseline"]
    for more, sentence in (
        (["--model", "no/such/folder/"], "model 'no/such/folder/' not found"),
        (["--sae", "x", "--model", "sample"], "an SAE and a model were both given"),
        (["--revision", "x"], "--revision is of a --model"),
    ):
        assert main([*asked, *where, *more]) == 2
        assert sentence in capsys.readouterr().err
    plain = ["steer", PROMPT, "--steer", "3=+1", *where]
    assert main(plain) == 2
    assert "has no SAEs" in capsys.readouterr().err
